#include "tools/sim/lower_tiers.h"

#include <utility>
#include <vector>

namespace terrace::sim {

LowerTiers::LowerTiers(std::unique_ptr<LocalContents> local,
                       std::unique_ptr<LocalContents> shared,
                       std::function<void(uint64_t name)> left)
    : local_(std::move(local)), shared_(std::move(shared)), left_(std::move(left)) {}

Place LowerTiers::PlaceOf(uint64_t name) const {
  return local_->Holds(name) ? Place::kLocal : Place::kShared;
}

void LowerTiers::Begin(absl::Duration now,
                       absl::Span<const uint64_t> chain,
                       const RequestHints& hints) {
  local_->Begin(now, chain, hints);
  if (shared_ != nullptr) {
    shared_->Begin(now, chain, hints);
  }
}

bool LowerTiers::Holds(uint64_t name) const {
  return local_->Holds(name) || (shared_ != nullptr && shared_->Holds(name));
}

bool LowerTiers::NoteUse(uint64_t name) {
  left_(name);
  if (shared_ != nullptr && !shared_->NoteUse(name)) {
    shared_->Append(name);
  }
  return local_->NoteUse(name);
}

void LowerTiers::NoteReads(absl::Span<const uint64_t> names) {
  std::vector<uint64_t> local;
  std::vector<uint64_t> shared;
  for (const uint64_t name : names) {
    (PlaceOf(name) == Place::kLocal ? local : shared).push_back(name);
  }
  local_->NoteReads(local);
  if (!shared.empty()) {
    shared_->NoteReads(shared);
  }
}

void LowerTiers::ForgetUse() {
  local_->ForgetUse();
  if (shared_ != nullptr) {
    shared_->ForgetUse();
  }
}

LocalContents::Counts LowerTiers::shared_counts() const {
  return shared_ == nullptr ? Counts{} : shared_->counts();
}

}  // namespace terrace::sim
