#include "tiers/placement/eviction_policy.h"

#include <string>

#include "tiers/placement/lru.h"

namespace terrace {

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(std::string_view name,
                                                                   RecencySource& recency) {
  if (name == "lru") {
    return MakeLruPolicy(recency);
  }
  std::string known;
  for (const std::string_view each : EvictionPolicyNames()) {
    known.append(known.empty() ? "" : ", ").append(each);
  }
  return absl::InvalidArgumentError("policy: unknown; there is: " + known);
}

std::vector<std::string_view> EvictionPolicyNames() {
  return {"lru"};
}

}  // namespace terrace
