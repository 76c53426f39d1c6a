#include "tiers/placement/shadow_phl.h"

#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

using Names = std::vector<uint64_t>;

class ShadowPhlTest : public testing::Test {
 protected:
  // Stores a chain of one run; a larger key is worth more.
  RunId Store(const Names& names, uint32_t key, uint64_t capacity) {
    const RunId run = tree_.Add(kRootRun, names);
    StoreAgain({run}, key, capacity);
    return run;
  }
  void StoreAgain(const std::vector<RunId>& path, uint32_t key, uint64_t capacity) {
    for (const RunId run : path) {
      Instance& instance = tree_.InstanceOf(run);
      instance.rank.fill(static_cast<uint8_t>(key));
      instance.priced = 1;
      instance.exact = 1;
      order_.Remove(tree_, run);
    }
    shadow_.Store(tree_, path, capacity, order_, pricer_);
  }
  uint32_t Held(RunId run) { return tree_.At(run).phl_shadow; }

  ChainTree tree_;
  RankOrder order_;
  ShadowPhl shadow_;
  HazardModel model_;
  RunPricer pricer_{tree_, model_};
};

TEST_F(ShadowPhlTest, HoldsWhatThereIsRoomFor) {
  const RunId run = Store({1, 2, 3}, 5, 10);
  EXPECT_EQ(Held(run), 3U);
  EXPECT_EQ(ShadowPhl::Hits(tree_, {{run}}), 3U);
}

TEST_F(ShadowPhlTest, WhatIsWorthLeastGoesFirstFromItsEnd) {
  const RunId worthy = Store({1, 2, 3}, 9, 6);
  const RunId poor = Store({4, 5, 6}, 2, 6);
  const RunId next = Store({7, 8}, 5, 6);
  EXPECT_EQ(Held(worthy), 3U);
  EXPECT_EQ(Held(poor), 1U);
  EXPECT_EQ(Held(next), 2U);
}

TEST_F(ShadowPhlTest, WhatIsWorthLessThanAllThatItHoldsIsNotStored) {
  const RunId worthy = Store({1, 2, 3}, 9, 4);
  const RunId poor = Store({4, 5, 6}, 2, 4);
  EXPECT_EQ(Held(worthy), 3U);
  EXPECT_EQ(Held(poor), 1U);  // there was room for one
}

TEST_F(ShadowPhlTest, AParentGoesAfterItsChildren) {
  const RunId parent = tree_.Add(kRootRun, Names{1, 2});
  const RunId child = tree_.Add(parent, Names{3, 4});
  StoreAgain({parent, child}, 3, 4);
  const RunId other = Store({7, 8, 9}, 5, 4);
  EXPECT_EQ(Held(child), 0U);
  EXPECT_EQ(Held(parent), 1U);
  EXPECT_EQ(Held(other), 3U);
  EXPECT_EQ(ShadowPhl::Hits(tree_, {{parent, child}}), 1U);
}

TEST_F(ShadowPhlTest, BeginsWithWhatIsResident) {
  const RunId run = tree_.Add(kRootRun, Names{1, 2, 3});
  tree_.Attach(BlockId{1}, run, 0);
  tree_.Attach(BlockId{2}, run, 1);
  shadow_.Begin(tree_);
  EXPECT_EQ(Held(run), 2U);
  EXPECT_EQ(tree_.At(kRootRun).phl_children, 1U);
  shadow_.End(tree_);
  EXPECT_EQ(Held(run), 0U);
  EXPECT_EQ(tree_.At(kRootRun).phl_children, 0U);
}

}  // namespace
}  // namespace terrace
