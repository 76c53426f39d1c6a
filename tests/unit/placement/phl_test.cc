#include "tiers/placement/phl.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

using Names = std::vector<uint64_t>;

BlockId B(uint32_t id) {
  return BlockId{id};
}

// A cache over the policy, which checks what every owner may rely on.
class PhlTest : public testing::Test {
 protected:
  void Make(const PhlOptions& options, uint64_t capacity) {
    policy_ = MakePhlPolicy(options);
    capacity_ = capacity;
  }

  // Returns the hits.
  size_t Request(const Names& chain, const RequestHints& hints = {}) {
    const auto asked = absl::MakeConstSpan(chain).first(chain.size() - generated_);
    std::vector<BlockId> blocks;
    while (blocks.size() < asked.size() && ids_.count(chain[blocks.size()]) != 0) {
      blocks.push_back(ids_[chain[blocks.size()]]);
    }
    const size_t hits = blocks.size();
    policy_->Use({now_, asked, blocks, hints});
    for (const BlockId block : blocks) {
      Lock(block);
    }
    GrowthTicket ticket = policy_->Extend({now_, hits == 0 ? kNoBlock : blocks.back(),
                                           absl::MakeConstSpan(chain).subspan(hits), late_hints_});
    while (blocks.size() < chain.size() &&
           Store(chain[blocks.size()], blocks.empty() ? kNoBlock : blocks.back(), ticket)) {
      blocks.push_back(ids_[chain[blocks.size()]]);
      ++ticket.depth;
    }
    for (const BlockId block : blocks) {
      Unlock(block);
    }
    StudyNow(*policy_);
    return hits;
  }
  bool Store(uint64_t name, BlockId parent, const GrowthTicket& ticket) {
    const Newcomer newcomer{parent, name, ticket};
    if (ids_.count(name) != 0) {  // behind a gap
      Lock(ids_[name]);
      return true;
    }
    if (policy_->resident() == capacity_) {
      const BlockId victim = policy_->Victim();
      if (victim == kNoBlock || !policy_->Admits(newcomer)) {
        ++declined_;
        return false;
      }
      Evict(victim);
    }
    const BlockId block = B(next_id_++);
    ids_[name] = block;
    parents_[block] = parent;
    names_[block] = name;
    policy_->Insert(block, newcomer);
    Lock(block);
    EXPECT_LE(policy_->resident(), capacity_);
    return true;
  }
  void Evict(BlockId victim) {
    EXPECT_EQ(locks_[victim], 0) << "a locked block was chosen";
    for (const auto& [block, parent] : parents_) {
      EXPECT_NE(parent, victim) << "a block with residents below it was chosen";
    }
    policy_->Remove(victim);
    ids_.erase(names_[victim]);
    names_.erase(victim);
    parents_.erase(victim);
    locks_.erase(victim);
  }
  void Lock(BlockId block) {
    policy_->Lock(block);
    ++locks_[block];
  }
  void Unlock(BlockId block) {
    policy_->Unlock(block);
    --locks_[block];
  }
  void Pass(absl::Duration time) {
    now_ += time;
    policy_->Advance(now_);
  }
  // Names of all that can go, in order.
  Names EvictAll() {
    Names order;
    for (BlockId victim = policy_->Victim(); victim != kNoBlock; victim = policy_->Victim()) {
      order.push_back(names_[victim]);
      Evict(victim);
    }
    return order;
  }

  std::unique_ptr<EvictionPolicy> policy_ = MakePhlPolicy({});
  uint64_t capacity_ = 1'000;
  absl::Duration now_ = absl::Seconds(1);
  uint32_t next_id_ = 0;
  uint64_t declined_ = 0;
  RequestHints late_hints_;
  size_t generated_ = 0;  // blocks at the end of a chain that are stored without being asked for
  std::map<uint64_t, BlockId> ids_;
  std::map<BlockId, uint64_t> names_;
  std::map<BlockId, BlockId> parents_;
  std::map<BlockId, int> locks_;
};

TEST_F(PhlTest, EvictsTheSuffixOfAChainBeforeItsPrefix) {
  Request({1, 2, 3, 4});
  EXPECT_EQ(EvictAll(), (Names{4, 3, 2, 1}));
}

TEST_F(PhlTest, KeepsASharedPrefixLongerThanBothBranches) {
  Request({1, 2, 3});
  Pass(absl::Seconds(1));
  Request({1, 4, 5});
  const Names evicted = EvictAll();
  ASSERT_EQ(evicted.size(), 5U);
  const auto at = [&evicted](uint64_t name) {
    return std::find(evicted.begin(), evicted.end(), name) - evicted.begin();
  };
  EXPECT_EQ(at(1), 4) << "which branch goes first hangs on what was learnt of its use";
  EXPECT_LT(at(3), at(2));
  EXPECT_LT(at(5), at(4));
}

TEST_F(PhlTest, IsLruWhenNothingIsLearntYet) {
  Names expected;
  for (uint64_t i = 0; i < 25; ++i) {
    Pass(absl::Milliseconds(100));
    Request({i * 10, i * 10 + 1, i * 10 + 2});
    for (const uint64_t name : {i * 10 + 2, i * 10 + 1, i * 10}) {
      expected.push_back(name);
    }
  }
  EXPECT_EQ(EvictAll(), expected);
}

TEST_F(PhlTest, NeverChoosesLockedOrInnerBlocksAndStaysWithinCapacity) {
  for (const uint64_t seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(seed);
    Make({.least_ghosts = 200}, 60);
    ids_.clear();
    names_.clear();
    parents_.clear();
    locks_.clear();
    std::mt19937_64 random(seed);
    for (int i = 0; i < 3'000; ++i) {
      Names chain;
      uint64_t name = 1;
      const uint64_t length = 1 + random() % 12;
      for (uint64_t k = 0; k < length; ++k) {
        name = name * 3 + random() % (k < 2 ? 2 : 3);
        chain.push_back(name);
      }
      Request(chain);
      Pass(absl::Milliseconds(random() % 4'000));
      if (i % 7 == 0 && !ids_.empty()) {  // deleted by its owner, wherever it is
        const auto at =
            std::next(ids_.begin(), static_cast<std::ptrdiff_t>(random() % ids_.size()));
        const BlockId block = at->second;
        policy_->Remove(block);
        ids_.erase(at);
        names_.erase(block);
        parents_.erase(block);
        locks_.erase(block);
        for (auto& [child, parent] : parents_) {
          parent = parent == block ? kNoBlock : parent;
        }
      }
      ASSERT_EQ(policy_->resident(), ids_.size());
    }
  }
}

TEST_F(PhlTest, HasNoVictimWhenEverythingIsLocked) {
  Request({1, 2});
  Lock(ids_[1]);
  Lock(ids_[2]);
  EXPECT_EQ(policy_->Victim(), kNoBlock);
  Unlock(ids_[2]);
  EXPECT_EQ(policy_->Victim(), ids_[2]);
}

TEST_F(PhlTest, ChoosesAnInnerBlockOnlyWhenNoLeafIsFree) {
  Request({1, 2});
  Lock(ids_[2]);
  EXPECT_EQ(policy_->Victim(), ids_[1]);
}

TEST_F(PhlTest, ABlockThatNobodyAnnouncedCanBeEvictedToo) {
  policy_->Insert(B(5), {kNoBlock, 77, {}});
  EXPECT_EQ(policy_->Victim(), B(5));
  policy_->Remove(B(5));
  EXPECT_EQ(policy_->Victim(), kNoBlock);
  EXPECT_EQ(policy_->resident(), 0U);
}

TEST_F(PhlTest, BlocksOfAChainMayArriveInAnyOrder) {
  const Names chain = {1, 2, 3};
  policy_->Use({now_, chain, {}, {}});
  const GrowthTicket ticket = policy_->Extend({now_, kNoBlock, chain, {}});
  for (const uint32_t i : {2U, 0U, 1U}) {
    policy_->Insert(B(i), {kNoBlock, chain[i], {ticket.place, ticket.depth + i}});
  }
  for (const uint32_t i : {2U, 1U, 0U}) {
    EXPECT_EQ(policy_->Victim(), B(i));
    policy_->Remove(B(i));
  }
}

// Sessions that say how they end: those that are over never come back, the others do after 40 s.
class PhlHintsTest : public PhlTest {
 protected:
  void Learn(RequestHints over, RequestHints goes_on) {
    Make({.guarded = false}, 4'000);
    for (uint64_t i = 0; i < 400; ++i) {
      Ask(i * 100, 4, i % 2 == 0 ? over : goes_on);
      if (i >= 8 && i % 2 == 1) {
        Ask((i - 8) * 100, 5, goes_on);
      }
      Pass(absl::Seconds(5));
    }
  }
  void Ask(uint64_t first, uint64_t length, const RequestHints& hints) {
    Names chain;
    for (uint64_t i = 0; i < length; ++i) {
      chain.push_back(first + i);
    }
    (late_ ? late_hints_ : now_hints_) = hints;
    Request(chain, now_hints_);
  }
  void ExpectTheFinishedToGoFirst(const RequestHints& over, const RequestHints& goes_on) {
    Ask(900'000, 4, goes_on);
    Pass(absl::Seconds(2));
    Ask(910'000, 4, over);  // younger, and still worth less
    const Names order = EvictAll();
    const auto at = [&](uint64_t name) { return std::find(order.begin(), order.end(), name); };
    EXPECT_LT(at(910'000), at(900'000));
  }
  bool late_ = false;
  RequestHints now_hints_;
};

TEST_F(PhlHintsTest, SessionsThatAreOverGoBeforeOlderOnesThatGoOn) {
  RequestHints over;
  over.session_end = true;
  Learn(over, {});
  ExpectTheFinishedToGoFirst(over, {});
}

TEST_F(PhlHintsTest, HintsThatComeWithThePutCountAsMuch) {
  late_ = true;
  RequestHints over;
  over.stop = StopReason::kEndOfTurn;
  RequestHints goes_on;
  goes_on.stop = StopReason::kToolCall;
  Learn(over, goes_on);
  ExpectTheFinishedToGoFirst(over, goes_on);
}

TEST_F(PhlHintsTest, HintsOfWhatWasGeneratedReachThePrompt) {
  late_ = true;
  generated_ = 1;
  RequestHints over;
  over.stop = StopReason::kEndOfTurn;
  RequestHints goes_on;
  goes_on.stop = StopReason::kToolCall;
  Learn(over, goes_on);
  ExpectTheFinishedToGoFirst(over, goes_on);
}

TEST_F(PhlTest, DeclinesWhatIsWorthLessThanWhatItWouldDisplace) {
  Make({.guarded = false}, 22);
  RequestHints over;
  over.session_end = true;
  uint64_t hits = 0;
  for (uint64_t i = 0; i < 2'000; ++i) {
    for (uint64_t k = 0; k < 4; ++k) {  // four sessions that are used all the time
      hits += Request({k * 10 + 1, k * 10 + 2, k * 10 + 3, k * 10 + 4, k * 10 + 5});
    }
    Request({i * 100 + 1'000, i * 100 + 1'001, i * 100 + 1'002}, over);
    Pass(absl::Seconds(10));
  }
  EXPECT_GT(declined_, 1'000U);
  EXPECT_GT(hits, 2'000U * 20 * 98 / 100);
}

TEST_F(PhlTest, GhostsAreBounded) {
  Make({.ghosts_per_four_blocks = 4, .least_ghosts = 5'000}, 100);
  uint64_t highest = 0;
  for (uint64_t i = 0; i < 20'000; ++i) {
    Pass(absl::Milliseconds(100));
    Request({i * 10, i * 10 + 1, i * 10 + 2, i * 10 + 3});
    highest = std::max(highest, policy_->memory_bytes());
  }
  EXPECT_LT(highest, uint64_t{4} << 20);
}

TEST_F(PhlTest, GhostsAreBoundedWhileTheOldestAreKept) {
  Make({.ghosts_per_four_blocks = 4, .least_ghosts = 1'000}, 1'000);
  for (uint64_t i = 0; i < 200; ++i) {  // more than are looked at for one request
    Request({i * 10, i * 10 + 1});
    Lock(ids_[i * 10]);
    Lock(ids_[i * 10 + 1]);
  }
  for (uint64_t i = 1'000; i < 3'000; ++i) {
    Request({i * 10, i * 10 + 1});
    Pass(absl::Milliseconds(100));
  }
  const uint64_t early = policy_->memory_bytes();
  for (uint64_t i = 3'000; i < 20'000; ++i) {
    Request({i * 10, i * 10 + 1});
    Pass(absl::Milliseconds(100));
  }
  EXPECT_LT(policy_->memory_bytes(), early + (uint64_t{1} << 19));
}

TEST_F(PhlTest, ABlockTakesSixtyFourBytesAtMost) {
  constexpr uint64_t kBlocks = 160'000;
  constexpr uint64_t kChain = 12;
  constexpr uint64_t kModels = uint64_t{4} << 20;  // whatever there is to hold
  Make({.least_ghosts = kBlocks / 4}, kBlocks);
  for (uint64_t i = 0; policy_->resident() + kChain <= kBlocks; ++i) {
    Names chain;
    for (uint64_t k = 0; k < kChain; ++k) {
      chain.push_back(i * 100 + k);
    }
    Request(chain);
    Names ghosts(kChain / 4);
    std::iota(ghosts.begin(), ghosts.end(), i * 100 + 50);
    policy_->Use({now_, ghosts, {}, {}});
  }
  EXPECT_LE(policy_->memory_bytes(), kModels + policy_->resident() * 64);
}

TEST_F(PhlTest, TheGuardLetsLruRuleWherePhlTrails) {
  // Long learnt that chains come back after an hour only, if at all, and then they all come back
  // after a minute: whoever believes the past evicts the young.
  Make({}, 300);
  for (uint64_t i = 0; i < 3'000; ++i) {
    Request({i * 10, i * 10 + 1, i * 10 + 2});
    Pass(absl::Seconds(10));
  }
  uint64_t hits = 0;
  for (uint64_t i = 0; i < 6'000; ++i) {
    const uint64_t chain = 100'000 + i % 90;
    hits += Request({chain * 10, chain * 10 + 1, chain * 10 + 2});
    Pass(absl::Seconds(1));
  }
  EXPECT_GT(hits, 6'000U * 3 * 9 / 10);
}

}  // namespace
}  // namespace terrace
