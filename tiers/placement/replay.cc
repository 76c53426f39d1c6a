#include "tiers/placement/replay.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

class ReplayOfOnePool final : public PlacementReplay {
 public:
  ReplayOfOnePool(std::string_view policy, uint64_t capacity_blocks) : capacity_(capacity_blocks) {
    absl::StatusOr<std::unique_ptr<EvictionPolicy>> made = MakeEvictionPolicy(policy, recency_);
    TERRACE_CHECK(made.ok());
    TERRACE_CHECK(capacity_blocks > 0 && capacity_blocks < static_cast<uint32_t>(kNoBlock));
    policy_ = *std::move(made);
  }

  uint64_t Request(absl::Span<const uint64_t> chain) override {
    blocks_.clear();
    const uint64_t hits = TouchHits(chain);
    // Locked as they are stored, so that the request never displaces its own blocks.
    for (const uint64_t name : chain.subspan(hits)) {
      if (!Store(name)) {
        break;
      }
    }
    policy_->Touch(blocks_);
    for (const BlockId block : blocks_) {
      policy_->Unlock(block);
    }
    ++counts_.requests;
    counts_.blocks += chain.size();
    counts_.hits += hits;
    counts_.declined += chain.size() - blocks_.size();
    return hits;
  }

  [[nodiscard]] const ReplayCounts& counts() const override { return counts_; }

 private:
  uint64_t TouchHits(absl::Span<const uint64_t> chain) {
    for (const uint64_t name : chain) {
      const auto found = ids_.find(name);
      if (found == ids_.end()) {
        break;
      }
      blocks_.push_back(found->second);
    }
    policy_->Touch(blocks_);
    for (const BlockId block : blocks_) {
      policy_->Lock(block);
    }
    return blocks_.size();
  }

  // False: nothing can be evicted for it.
  bool Store(uint64_t name) {
    const auto found = ids_.find(name);
    if (found != ids_.end()) {  // resident behind a gap in the chain
      Keep(found->second);
      return true;
    }
    if (policy_->resident() == capacity_ && !EvictOne()) {
      return false;
    }
    const BlockId block = NewId();
    names_[static_cast<uint32_t>(block)] = name;
    ids_.emplace(name, block);
    policy_->Insert(block, blocks_.empty() ? kNoBlock : blocks_.back());
    ++counts_.stored;
    Keep(block);
    return true;
  }

  void Keep(BlockId block) {
    policy_->Lock(block);
    blocks_.push_back(block);
  }

  bool EvictOne() {
    const BlockId victim = policy_->Victim();
    if (victim == kNoBlock) {
      return false;
    }
    policy_->Remove(victim);
    ids_.erase(names_[static_cast<uint32_t>(victim)]);
    free_.push_back(victim);
    ++counts_.evicted;
    return true;
  }

  BlockId NewId() {
    if (!free_.empty()) {
      const BlockId id = free_.back();
      free_.pop_back();
      return id;
    }
    names_.push_back(0);
    return BlockId{static_cast<uint32_t>(names_.size() - 1)};
  }

  const uint64_t capacity_;
  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_;
  absl::flat_hash_map<uint64_t, BlockId> ids_;
  std::vector<uint64_t> names_;  // by id
  std::vector<BlockId> free_;
  std::vector<BlockId>
      blocks_;  // of the request at hand: the part of its chain that is resident now
  ReplayCounts counts_;
};

}  // namespace

std::unique_ptr<PlacementReplay> PlacementReplay::Create(std::string_view policy,
                                                         uint64_t capacity_blocks) {
  return std::make_unique<ReplayOfOnePool>(policy, capacity_blocks);
}

}  // namespace terrace
