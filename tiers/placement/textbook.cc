#include "tiers/placement/textbook.h"

#include <string>

#include "tiers/placement/textbook_makers.h"

namespace terrace {

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeTextbookPolicy(std::string_view name,
                                                                   const TextbookOptions& options) {
  std::unique_ptr<EvictionPolicy> policy = MakeQueuePolicy(name, options.capacity_blocks);
  if (policy == nullptr) {
    policy = MakeRankedPolicy(name, options);
  }
  if (policy != nullptr) {
    return policy;
  }
  if (name == "min") {
    return absl::InvalidArgumentError("policy: min needs to know the future");
  }
  std::string known;
  for (const std::string_view each : TextbookPolicyNames()) {
    known.append(known.empty() ? "" : ", ").append(each);
  }
  return absl::InvalidArgumentError("policy: unknown; there is: " + known);
}

std::vector<std::string_view> TextbookPolicyNames() {
  return {"fifo", "lfu", "2q", "arc", "s3fifo", "sieve", "wtinylfu", "gdsf", "lru2", "ttl", "min"};
}

}  // namespace terrace
