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

  void PutOver(LocalReplay local) {
    local_ = std::move(local);
    if (local_.rule == LocalRule::kPriced || local_.rule == LocalRule::kThreshold) {
      MakeAdmission();
    }
  }

  void Restart(Learnt learnt) override {
    std::string saved;
    if (Lesson* lesson = policy_->BeginLesson(); lesson != nullptr && learnt == Learnt::kKept) {
      lesson->Study();
      saved = lesson->Save();
    }
    ids_.clear();
    residents_.clear();
    free_.clear();
    TERRACE_CHECK(Choose(policy_name_, textbook_).ok());
    if (!saved.empty()) {
      TERRACE_CHECK(policy_->BeginLesson()->Load(saved).ok());
      policy_->EndLesson();
    }
    if (local_.contents != nullptr) {
      local_.contents->ForgetUse();
    }
    if (admission_ != nullptr) {
      MakeAdmission();
    }
  }

  uint64_t Request(const ReplayRequest& request) override {
    const absl::Span<const uint64_t> chain = request.chain;
    blocks_.clear();
    now_ = request.now;
    if (local_.contents != nullptr) {
      local_.contents->Begin(request.now, chain, request.hints);
    }
    for (const uint64_t name : local_.rule == LocalRule::kSecondTouch ? chain : chain.first(0)) {
      ++touches_[name];
    }
    const uint64_t hits = TouchHits(request);
    GrowthTicket ticket;
    if (hits < chain.size()) {
      ticket =
          policy_->Extend({request.now, hits == 0 ? kNoBlock : blocks_.back(), chain.subspan(hits),
                           request.hints_when_stored.value_or(request.hints)});
    }
    // Locked as they are stored, so that the request never displaces its own blocks.
    for (const uint64_t name : chain.subspan(hits)) {
      if (!Store({.name = name,
                  .above = blocks_.empty() ? kNone : chain[blocks_.size() - 1],
                  .depth = static_cast<uint32_t>(blocks_.size())},
                 ticket)) {
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
  [[nodiscard]] const LocalContents* local() const override { return local_.contents.get(); }
  [[nodiscard]] const WriteBudget* budget() const override {
    return admission_ == nullptr ? nullptr : &admission_->budget();
  }

 private:
  static constexpr uint64_t kNone = UINT64_MAX;

  struct Resident {
    uint64_t name = 0;
    uint64_t above = kNone;  // the block before it in its chain
    uint32_t depth = 0;
    bool used = false;         // asked for again since it entered
    bool child_below = false;  // a block behind it was written to the local tier
  };
  Resident& At(BlockId block) { return residents_[static_cast<uint32_t>(block)]; }

  void MakeAdmission() {
    admission_ = std::make_unique<LocalAdmission>(
        LocalAdmission::Options{local_.budget, local_.blocks, local_.blocks * local_.block_bytes});
  }

  // Locks what it touches.
  uint64_t TouchHits(const ReplayRequest& request) {
    for (const uint64_t name : request.chain) {
      const auto found = ids_.find(name);
      if (found != ids_.end()) {
        At(found->second).used = true;
        Keep(found->second);
      } else if (local_.contents != nullptr && local_.contents->Holds(name)) {
        blocks_.push_back(kNoBlock);
      } else {
        break;
      }
    }
    if (local_.gate != nullptr) {
      Shorten(local_.gate->Reach(request.chain.first(blocks_.size()), blocks_));
    }
    BringUp(request.chain);
    policy_->Use({request.now, request.chain, blocks_, request.hints});
    policy_->Touch(blocks_);
    return blocks_.size();
  }

  // The leading run ends after `count` blocks.
  void Shorten(size_t count) {
    for (size_t behind = count; behind < blocks_.size(); ++behind) {
      if (blocks_[behind] != kNoBlock) {
        policy_->Unlock(blocks_[behind]);
      }
    }
    blocks_.resize(count);
  }

  // What the leading run has in the local tier, as far as there is room for it.
  void BringUp(absl::Span<const uint64_t> chain) {
    reads_.clear();
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i] == kNoBlock) {
        reads_.push_back(chain[i]);
      }
    }
    if (!reads_.empty()) {
      local_.contents->NoteReads(reads_);
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i] != kNoBlock) {
        continue;
      }
      const Newcomer newcomer{i == 0 ? kNoBlock : blocks_[i - 1], chain[i], {}};
      if (policy_->resident() == capacity_ && !EvictFor(newcomer)) {
        Shorten(i);
        return;
      }
      blocks_[i] = Enter({.name = chain[i],
                          .above = i == 0 ? kNone : chain[i - 1],
                          .depth = static_cast<uint32_t>(i)},
                         newcomer);
      policy_->Lock(blocks_[i]);
      ++counts_.local_hits;
    }
  }

  // False: nothing can be evicted for it, or nothing is worth less.
  bool Store(const Resident& block, const GrowthTicket& ticket) {
    const auto found = ids_.find(block.name);
    if (found != ids_.end()) {  // resident behind a gap in the chain
      Keep(found->second);
      return true;
    }
    const Newcomer newcomer{blocks_.empty() ? kNoBlock : blocks_.back(), block.name, ticket};
    if (policy_->resident() == capacity_ && !EvictFor(newcomer)) {
      return false;
    }
    ++counts_.stored;
    Keep(Enter(block, newcomer));
    if (local_.rule == LocalRule::kOnCommit && local_.contents != nullptr &&
        !local_.contents->Holds(block.name)) {
      local_.contents->Append(block.name);
    }
    return true;
  }

  BlockId Enter(const Resident& block, const Newcomer& newcomer) {
    const BlockId id = NewId();
    At(id) = block;
    ids_.emplace(block.name, id);
    policy_->Insert(id, newcomer);
    if (admission_ != nullptr) {
      admission_->Entered(block.name);
    }
    return id;
  }

  void Keep(BlockId block) {
    policy_->Lock(block);
    blocks_.push_back(block);
  }

  bool EvictFor(const Newcomer& newcomer) {
    const BlockId victim = policy_->Victim();
    // What is worth less than all of DRAM may be worth its place below, and goes there through
    // DRAM.
    if (victim == kNoBlock || (local_.contents == nullptr && !policy_->Admits(newcomer))) {
      return false;
    }
    const Resident block = At(victim);
    if (local_.contents != nullptr) {
      WriteBelow(victim, block);
    }
    policy_->Remove(victim);
    ids_.erase(block.name);
    free_.push_back(victim);
    ++counts_.evicted;
    return true;
  }

  void WriteBelow(BlockId id, const Resident& block) {
    const bool lay_there = local_.contents->NoteUse(block.name);
    if (!lay_there && IsLetBelow(id, block)) {
      const LocalContents::Counts& counts = local_.contents->counts();
      const uint64_t rewritten = counts.rewritten;
      local_.contents->Append(block.name);
      if (admission_ != nullptr) {
        admission_->budget().Charge(
            now_, static_cast<double>((counts.rewritten - rewritten) * local_.block_bytes));
      }
      if (const auto above = ids_.find(block.above); above != ids_.end()) {
        At(above->second).child_below = true;
      }
    }
    if (admission_ != nullptr) {
      admission_->Left({block.name, block.depth, block.used});
    }
  }

  bool IsLetBelow(BlockId id, const Resident& block) {
    switch (local_.rule) {
      case LocalRule::kOnEviction:
      case LocalRule::kOnCommit:
        return true;
      case LocalRule::kSecondTouch:
        return touches_[block.name] > 1;
      case LocalRule::kOracle:
        return textbook_.future->NextUse(block.name) != UINT64_MAX;
      case LocalRule::kPriced:
      case LocalRule::kThreshold:
        break;
    }
    LocalAdmission::Candidate candidate;
    candidate.facts = {block.name, block.depth, block.used};
    candidate.forecast = policy_->ReuseChance(id, admission_->horizon());
    candidate.seconds_saved =
        local_.seconds_saved == nullptr ? 1 : local_.seconds_saved(block.depth);
    candidate.bytes = local_.block_bytes;
    candidate.completes = block.child_below;
    if (local_.rule == LocalRule::kThreshold) {
      return candidate.completes || admission_->ChanceOf(candidate) >= local_.least_chance;
    }
    return IsLetIn(admission_->Judge(now_, candidate));
  }

  BlockId NewId() {
    if (!free_.empty()) {
      const BlockId id = free_.back();
      free_.pop_back();
      return id;
    }
    residents_.emplace_back();
    return BlockId{static_cast<uint32_t>(residents_.size() - 1)};
  }

  const uint64_t capacity_;
  std::string policy_name_;
  TextbookOptions textbook_;
  LocalReplay local_;  // without contents: there is no local tier
  std::unique_ptr<LocalAdmission> admission_;
  absl::flat_hash_map<uint64_t, uint32_t> touches_;  // where a second one counts
  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_;
  absl::flat_hash_map<uint64_t, BlockId> ids_;
  std::vector<Resident> residents_;  // by id
  std::vector<BlockId> free_;
  std::vector<BlockId>
      blocks_;  // of the request at hand: the part of its chain that is resident now
  std::vector<uint64_t> reads_;  // of it, from the local tier
  absl::Duration now_;
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
  replay->PutOver({.contents = std::make_unique<SegmentLog>(log), .budget = {}});
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

absl::StatusOr<std::unique_ptr<PlacementReplay>> PlacementReplay::CreateAnyOver(
    std::string_view policy, const TextbookOptions& options, LocalReplay local) {
  if (local.rule == LocalRule::kOracle && options.future == nullptr) {
    return absl::InvalidArgumentError("the oracle needs a known future");
  }
  auto replay = std::make_unique<ReplayOfOnePool>(options.capacity_blocks);
  if (absl::Status status = replay->Choose(policy, options); !status.ok()) {
    return status;
  }
  replay->PutOver(std::move(local));
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
