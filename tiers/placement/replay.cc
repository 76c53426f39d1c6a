#include "tiers/placement/replay.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

class ReplayOfOnePool final : public PlacementReplay {
 public:
  explicit ReplayOfOnePool(uint64_t capacity_blocks) : capacity_(capacity_blocks) {
    TERRACE_CHECK(capacity_blocks > 0 && capacity_blocks < static_cast<uint32_t>(kNoBlock));
  }

  absl::Status Choose(std::string_view name, const TextbookOptions& options) {
    absl::StatusOr<std::unique_ptr<EvictionPolicy>> made = MakeEvictionPolicy(name, recency_);
    if (!made.ok()) {
      made = MakeTextbookPolicy(name, options);
    }
    if (!made.ok()) {
      return made.status();
    }
    policy_ = *std::move(made);
    return absl::OkStatus();
  }

  uint64_t Request(const ReplayRequest& request) override {
    const absl::Span<const uint64_t> chain = request.chain;
    blocks_.clear();
    const uint64_t hits = TouchHits(request);
    GrowthTicket ticket;
    if (hits < chain.size()) {
      ticket = policy_->Extend(
          {request.now, hits == 0 ? kNoBlock : blocks_.back(), chain.subspan(hits), request.hints});
    }
    // Locked as they are stored, so that the request never displaces its own blocks.
    for (const uint64_t name : chain.subspan(hits)) {
      if (!Store(name, ticket)) {
        break;
      }
      ++ticket.depth;
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
  [[nodiscard]] const EvictionPolicy& policy() const override { return *policy_; }

 private:
  uint64_t TouchHits(const ReplayRequest& request) {
    for (const uint64_t name : request.chain) {
      const auto found = ids_.find(name);
      if (found == ids_.end()) {
        break;
      }
      blocks_.push_back(found->second);
    }
    policy_->Use({request.now, request.chain, blocks_, request.hints});
    policy_->Touch(blocks_);
    for (const BlockId block : blocks_) {
      policy_->Lock(block);
    }
    return blocks_.size();
  }

  // False: nothing can be evicted for it, or nothing is worth less.
  bool Store(uint64_t name, const GrowthTicket& ticket) {
    const auto found = ids_.find(name);
    if (found != ids_.end()) {  // resident behind a gap in the chain
      Keep(found->second);
      return true;
    }
    const Newcomer newcomer{blocks_.empty() ? kNoBlock : blocks_.back(), name, ticket};
    if (policy_->resident() == capacity_ && !EvictFor(newcomer)) {
      return false;
    }
    const BlockId block = NewId();
    names_[static_cast<uint32_t>(block)] = name;
    ids_.emplace(name, block);
    policy_->Insert(block, newcomer);
    ++counts_.stored;
    Keep(block);
    return true;
  }

  void Keep(BlockId block) {
    policy_->Lock(block);
    blocks_.push_back(block);
  }

  bool EvictFor(const Newcomer& newcomer) {
    const BlockId victim = policy_->Victim();
    if (victim == kNoBlock || !policy_->Admits(newcomer)) {
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
  auto replay = std::make_unique<ReplayOfOnePool>(capacity_blocks);
  TERRACE_CHECK(replay->Choose(policy, {.capacity_blocks = capacity_blocks}).ok());
  return replay;
}

absl::StatusOr<std::unique_ptr<PlacementReplay>> PlacementReplay::CreateAny(
    std::string_view policy, const TextbookOptions& options) {
  auto replay = std::make_unique<ReplayOfOnePool>(options.capacity_blocks);
  if (absl::Status status = replay->Choose(policy, options); !status.ok()) {
    return status;
  }
  return std::unique_ptr<PlacementReplay>(std::move(replay));
}

std::vector<std::string_view> ReplayPolicyNames() {
  std::vector<std::string_view> names = EvictionPolicyNames();
  for (const std::string_view name : TextbookPolicyNames()) {
    names.push_back(name);
  }
  return names;
}

}  // namespace terrace
