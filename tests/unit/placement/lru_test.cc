#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

BlockId B(uint32_t id) {
  return BlockId{id};
}

class LruTest : public testing::Test {
 protected:
  void InsertAll(const std::vector<uint32_t>& ids) {
    for (const uint32_t id : ids) {
      policy_->Insert(B(id), {});
    }
  }
  void Touch(const std::vector<uint32_t>& ids) {
    std::vector<BlockId> chain;
    for (const uint32_t id : ids) {
      chain.push_back(B(id));
    }
    policy_->Touch(chain);
  }
  // Evicts until nothing can go.
  std::vector<uint32_t> EvictAll() {
    std::vector<uint32_t> order;
    for (BlockId victim = policy_->Victim(); victim != kNoBlock; victim = policy_->Victim()) {
      order.push_back(static_cast<uint32_t>(victim));
      policy_->Remove(victim);
    }
    return order;
  }

  RecencySource recency_;
  std::unique_ptr<EvictionPolicy> policy_ = *MakeEvictionPolicy("lru", recency_);
};

using Ids = std::vector<uint32_t>;

TEST_F(LruTest, HasNoVictimWhenEmpty) {
  EXPECT_EQ(policy_->Victim(), kNoBlock);
}

TEST_F(LruTest, EvictsInOrderOfInsertion) {
  InsertAll({7, 3, 5000, 1});
  EXPECT_EQ(EvictAll(), (Ids{7, 3, 5000, 1}));
}

TEST_F(LruTest, VictimStaysUntilItIsRemoved) {
  InsertAll({1, 2});
  EXPECT_EQ(policy_->Victim(), B(1));
  EXPECT_EQ(policy_->Victim(), B(1));
  policy_->Remove(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
}

TEST_F(LruTest, EvictsTheSuffixOfAChainBeforeItsPrefix) {
  InsertAll({1, 2, 3, 4});
  Touch({1, 2, 3, 4});
  EXPECT_EQ(EvictAll(), (Ids{4, 3, 2, 1}));
}

TEST_F(LruTest, KeepsASharedPrefixLongerThanBothBranches) {
  InsertAll({1, 2, 3, 4, 5});
  Touch({1, 2, 3});
  Touch({1, 4, 5});
  EXPECT_EQ(EvictAll(), (Ids{3, 2, 5, 4, 1}));
}

TEST_F(LruTest, TouchingTheNewestBlockAgainReordersIt) {
  InsertAll({1, 2});
  Touch({1, 2});  // 1 is the newest
  Touch({2});
  EXPECT_EQ(EvictAll(), (Ids{1, 2}));
}

TEST_F(LruTest, ABlockTwiceInOneChainCountsAtItsFirstPlace) {
  InsertAll({1, 2, 3});
  Touch({1, 2, 1, 3});
  EXPECT_EQ(EvictAll(), (Ids{3, 2, 1}));
}

TEST_F(LruTest, SkipsLockedBlocks) {
  InsertAll({1, 2, 3});
  policy_->Lock(B(1));
  policy_->Lock(B(3));
  EXPECT_EQ(EvictAll(), (Ids{2}));
  EXPECT_EQ(policy_->resident(), 2U);
}

TEST_F(LruTest, LocksNest) {
  InsertAll({1});
  policy_->Lock(B(1));
  policy_->Lock(B(1));
  policy_->Unlock(B(1));
  EXPECT_EQ(policy_->Victim(), kNoBlock);
  policy_->Unlock(B(1));
  EXPECT_EQ(policy_->Victim(), B(1));
}

TEST_F(LruTest, UnlockedBlocksGoInTheOrderOfTheirLastUse) {
  InsertAll({1, 2, 3, 4});
  for (const uint32_t id : {1U, 2U, 3U}) {
    policy_->Lock(B(id));
  }
  EXPECT_EQ(policy_->Victim(), B(4));  // 1, 2 and 3 are passed over
  for (const uint32_t id : {3U, 1U, 2U}) {
    policy_->Unlock(B(id));
  }
  EXPECT_EQ(EvictAll(), (Ids{1, 2, 3, 4}));
}

TEST_F(LruTest, ATouchWhileLockedCountsAfterUnlock) {
  InsertAll({1, 2, 3});
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));  // 1 is passed over
  Touch({1});
  policy_->Unlock(B(1));
  EXPECT_EQ(EvictAll(), (Ids{2, 3, 1}));
}

TEST_F(LruTest, ATouchAfterUnlockCounts) {
  InsertAll({1, 2, 3});
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
  policy_->Unlock(B(1));
  Touch({1});
  EXPECT_EQ(EvictAll(), (Ids{2, 3, 1}));
}

TEST_F(LruTest, ABlockLockedAgainAfterUnlockIsSkipped) {
  InsertAll({1, 2});
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
  policy_->Unlock(B(1));
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
  policy_->Unlock(B(1));
  EXPECT_EQ(EvictAll(), (Ids{1, 2}));
}

TEST_F(LruTest, ALockedBlockMayBeRemoved) {
  InsertAll({1, 2});
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
  policy_->Remove(B(1));
  EXPECT_EQ(EvictAll(), (Ids{2}));
}

TEST_F(LruTest, AnIdUsedAgainStartsUnlockedAndNew) {
  InsertAll({1, 2});
  policy_->Lock(B(1));
  policy_->Remove(B(1));
  policy_->Insert(B(1), {});
  EXPECT_EQ(EvictAll(), (Ids{2, 1}));
}

TEST_F(LruTest, RankCountsUnlockedBlocksThatGoFirst) {
  InsertAll({1, 2, 3, 4});
  EXPECT_EQ(policy_->Rank(B(1)), 0U);
  EXPECT_EQ(policy_->Rank(B(4)), 3U);
  policy_->Lock(B(2));
  EXPECT_EQ(policy_->Rank(B(4)), 2U);
  Touch({1});
  EXPECT_EQ(policy_->Rank(B(1)), 2U);
}

TEST_F(LruTest, ValueComparesAcrossPools) {
  const std::unique_ptr<EvictionPolicy> other = *MakeEvictionPolicy("lru", recency_);
  policy_->Insert(B(1), {});
  other->Insert(B(2), {});
  policy_->Insert(B(3), {});
  EXPECT_LT(policy_->Value(B(1)), other->Value(B(2)));
  EXPECT_LT(other->Value(B(2)), policy_->Value(B(3)));
  policy_->Touch({B(1)});
  EXPECT_LT(policy_->Value(B(3)), policy_->Value(B(1)));
}

TEST_F(LruTest, StaysWithin32BytesABlockUnderTouches) {
  constexpr uint32_t kBlocks = 200'000;
  for (uint32_t id = 0; id < kBlocks; ++id) {
    policy_->Insert(B(id), {});
  }
  uint64_t highest = 0;
  std::vector<BlockId> chain(1024);
  for (uint32_t round = 0; round < 2'000; ++round) {
    for (uint32_t i = 0; i < chain.size(); ++i) {
      chain[i] = B((round * 77'777 + i * 13) % kBlocks);
    }
    policy_->Touch(chain);
    highest = std::max(highest, policy_->memory_bytes());
  }
  EXPECT_LE(highest, uint64_t{32} * kBlocks + 32'768);
}

TEST_F(LruTest, GivesMemoryBackWhenBlocksGo) {
  for (uint32_t id = 0; id < 100'000; ++id) {
    policy_->Insert(B(id), {});
  }
  for (uint32_t id = 0; id < 100'000; ++id) {
    policy_->Remove(B(id));
  }
  EXPECT_EQ(policy_->resident(), 0U);
  EXPECT_LE(policy_->memory_bytes(), 100'000U);
}

TEST_F(LruTest, UnlockingManyPassedOverBlocksKeepsMemoryBounded) {
  InsertAll({1, 2, 3});
  policy_->Lock(B(1));
  EXPECT_EQ(policy_->Victim(), B(2));
  policy_->Unlock(B(1));
  const uint64_t before = policy_->memory_bytes();
  for (int i = 0; i < 100'000; ++i) {  // each round leaves a stale entry behind
    Touch({1, 2, 3});
    for (const uint32_t id : {1U, 2U, 3U}) {
      policy_->Lock(B(id));
    }
    EXPECT_EQ(policy_->Victim(), kNoBlock);
    for (const uint32_t id : {1U, 2U, 3U}) {
      policy_->Unlock(B(id));
    }
  }
  EXPECT_LE(policy_->memory_bytes(), before + 65'536);
  EXPECT_EQ(EvictAll(), (Ids{3, 2, 1}));
}

TEST(EvictionPolicyDeathTest, AbortsWhenTheOwnerBreaksTheRules) {
  RecencySource recency;
  const std::unique_ptr<EvictionPolicy> policy = *MakeEvictionPolicy("lru", recency);
  policy->Insert(B(1), {});
  EXPECT_DEATH(policy->Insert(B(1), {}), "invariant");
  EXPECT_DEATH(policy->Remove(B(2)), "invariant");
  EXPECT_DEATH(policy->Touch({B(9999)}), "invariant");
  EXPECT_DEATH(policy->Unlock(B(1)), "invariant");
}

TEST(EvictionPolicyNames, AreAllMadeUnderTheirName) {
  RecencySource recency;
  ASSERT_FALSE(EvictionPolicyNames().empty());
  for (const std::string_view name : EvictionPolicyNames()) {
    const auto policy = MakeEvictionPolicy(name, recency);
    ASSERT_TRUE(policy.ok());
    EXPECT_EQ((*policy)->name(), name);
  }
}

TEST(EvictionPolicyNames, UnknownOneIsRefusedWithTheKnownOnes) {
  RecencySource recency;
  const auto policy = MakeEvictionPolicy("mru", recency);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(policy.status().message()).find("lru"), std::string::npos);
}

}  // namespace
}  // namespace terrace
