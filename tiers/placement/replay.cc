#include "tiers/placement/replay.h"

#include <string>
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
    policy_name_ = name;
    textbook_ = options;
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

  void PutOver(const SegmentLog::Options& log) { log_ = std::make_unique<SegmentLog>(log); }

  void Restart(Learnt learnt) override {
    std::string saved;
    if (Lesson* lesson = policy_->BeginLesson(); lesson != nullptr && learnt == Learnt::kKept) {
      lesson->Study();
      saved = lesson->Save();
    }
    ids_.clear();
    names_.clear();
    free_.clear();
    TERRACE_CHECK(Choose(policy_name_, textbook_).ok());
    if (!saved.empty()) {
      TERRACE_CHECK(policy_->BeginLesson()->Load(saved).ok());
      policy_->EndLesson();
    }
    if (log_ != nullptr) {
      log_->ForgetUse();
    }
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
    StudyNow(*policy_);
    ++counts_.requests;
    counts_.blocks += chain.size();
    counts_.hits += hits;
    counts_.declined += chain.size() - blocks_.size();
    return hits;
  }

  [[nodiscard]] const ReplayCounts& counts() const override { return counts_; }
  [[nodiscard]] const EvictionPolicy& policy() const override { return *policy_; }
  [[nodiscard]] const SegmentLog* log() const override { return log_.get(); }

 private:
  // Locks what it touches.
  uint64_t TouchHits(const ReplayRequest& request) {
    for (const uint64_t name : request.chain) {
      const auto found = ids_.find(name);
      if (found != ids_.end()) {
        Keep(found->second);
      } else if (log_ != nullptr && log_->Holds(name)) {
        blocks_.push_back(kNoBlock);
      } else {
        break;
      }
    }
    BringUp(request.chain);
    policy_->Use({request.now, request.chain, blocks_, request.hints});
    policy_->Touch(blocks_);
    return blocks_.size();
  }

  // What the leading run has in the local tier, as far as there is room for it.
  void BringUp(absl::Span<const uint64_t> chain) {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i] != kNoBlock) {
        continue;
      }
      log_->NoteUse(chain[i]);
      const Newcomer newcomer{i == 0 ? kNoBlock : blocks_[i - 1], chain[i], {}};
      if (policy_->resident() == capacity_ && !EvictFor(newcomer)) {
        for (size_t behind = i; behind < blocks_.size(); ++behind) {
          if (blocks_[behind] != kNoBlock) {
            policy_->Unlock(blocks_[behind]);
          }
        }
        blocks_.resize(i);
        return;
      }
      blocks_[i] = Enter(newcomer);
      policy_->Lock(blocks_[i]);
      ++counts_.local_hits;
    }
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
    ++counts_.stored;
    Keep(Enter(newcomer));
    return true;
  }

  BlockId Enter(const Newcomer& newcomer) {
    const BlockId block = NewId();
    names_[static_cast<uint32_t>(block)] = newcomer.name;
    ids_.emplace(newcomer.name, block);
    policy_->Insert(block, newcomer);
    return block;
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
    const uint64_t name = names_[static_cast<uint32_t>(victim)];
    policy_->Remove(victim);
    ids_.erase(name);
    if (log_ != nullptr && !log_->NoteUse(name)) {
      log_->Append(name);
    }
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
  std::string policy_name_;
  TextbookOptions textbook_;
  std::unique_ptr<SegmentLog> log_;  // nullptr: there is no local tier
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

std::unique_ptr<PlacementReplay> PlacementReplay::CreateOverLog(std::string_view policy,
                                                                uint64_t capacity_blocks,
                                                                const SegmentLog::Options& log) {
  auto replay = std::make_unique<ReplayOfOnePool>(capacity_blocks);
  TERRACE_CHECK(replay->Choose(policy, {.capacity_blocks = capacity_blocks}).ok());
  replay->PutOver(log);
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
