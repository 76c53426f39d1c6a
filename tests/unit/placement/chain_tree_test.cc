#include "tiers/placement/chain_tree.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

using Names = std::vector<uint64_t>;

BlockId B(uint32_t id) {
  return BlockId{id};
}

TEST(ChainTree, FindsARunByItsFirstBlock) {
  ChainTree tree;
  const RunId run = tree.Add(kRootRun, Names{1, 2, 3});
  EXPECT_EQ(tree.Child(kRootRun, ChainTree::PrintOf(1)), run);
  EXPECT_EQ(tree.Child(kRootRun, ChainTree::PrintOf(2)), kNoRun);
  EXPECT_EQ(tree.Match(run, Names{1, 2, 9}), 2U);
  EXPECT_EQ(tree.Match(run, Names{1, 2, 3, 4}), 3U);
  EXPECT_EQ(tree.prints(), 3U);
}

TEST(ChainTree, SplittingKeepsBlocksWhereTheyAre) {
  ChainTree tree;
  const RunId tail = tree.Add(kRootRun, Names{1, 2, 3, 4});
  const RunId child = tree.Add(tail, Names{5});
  for (uint32_t i = 0; i < 3; ++i) {
    tree.Attach(B(10 + i), tail, i);
  }
  const RunId head = tree.Split(tail, 2);
  EXPECT_EQ(tree.Child(kRootRun, ChainTree::PrintOf(1)), head);
  EXPECT_EQ(tree.Child(head, ChainTree::PrintOf(3)), tail);
  EXPECT_EQ(tree.Child(tail, ChainTree::PrintOf(5)), child);
  EXPECT_EQ(tree.PlaceOf(B(11)).run, head);
  EXPECT_EQ(tree.PlaceOf(B(11)).position, 1U);
  EXPECT_EQ(tree.PlaceOf(B(12)).run, tail);
  EXPECT_EQ(tree.PlaceOf(B(12)).position, 0U);
  EXPECT_EQ(tree.At(head).resident, 2U);
  EXPECT_EQ(tree.At(tail).resident, 1U);
  EXPECT_EQ(tree.At(tail).resident_end, 1U);
  EXPECT_EQ(tree.At(head).live_children, 1U);
  EXPECT_EQ(tree.At(tail).depth, 2U);
  EXPECT_EQ(tree.At(tree.At(head).parent).live_children, 1U);
}

TEST(ChainTree, JoiningUndoesSplitting) {
  ChainTree tree;
  const RunId tail = tree.Add(kRootRun, Names{1, 2, 3, 4});
  const RunId child = tree.Add(tail, Names{5});
  for (uint32_t i = 0; i < 4; ++i) {
    tree.Attach(B(i), tail, i);
  }
  const RunId head = tree.Split(tail, 1);
  tree.Join(head);
  EXPECT_EQ(tree.At(head).length, 4U);
  EXPECT_EQ(tree.At(head).resident, 4U);
  EXPECT_EQ(tree.At(head).resident_end, 4U);
  EXPECT_EQ(tree.Child(head, ChainTree::PrintOf(5)), child);
  EXPECT_EQ(tree.At(child).parent, head);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(tree.PlaceOf(B(i)).run, head);
    EXPECT_EQ(tree.PlaceOf(B(i)).position, i);
  }
}

TEST(ChainTree, JoiningAGhostLeavesNoBlocksBehind) {
  ChainTree tree;
  const RunId run = tree.Add(kRootRun, Names{1, 2});
  tree.Add(run, Names{3});
  tree.Attach(B(1), run, 0);
  tree.Join(run);
  EXPECT_EQ(tree.At(run).length, 3U);
  EXPECT_EQ(tree.At(run).resident, 1U);
  EXPECT_EQ(tree.At(run).children, 0U);
  EXPECT_EQ(tree.At(run).live_children, 0U);
}

TEST(ChainTree, TellsWhenTheLastBlockBelowARunIsGone) {
  ChainTree tree;
  const RunId a = tree.Add(kRootRun, Names{1});
  const RunId b = tree.Add(a, Names{2});
  const RunId c = tree.Add(b, Names{3});
  tree.Attach(B(1), a, 0);
  tree.Attach(B(3), c, 0);  // b is a gap
  EXPECT_EQ(tree.At(a).live_children, 1U);
  std::vector<RunId> quiet;
  tree.Detach(B(3), [&](RunId run) { quiet.push_back(run); });
  EXPECT_EQ(quiet, (std::vector<RunId>{b, a}));
  EXPECT_EQ(tree.At(a).live_children, 0U);
  EXPECT_EQ(tree.resident(), 1U);
}

TEST(ChainTree, GivesMemoryBack) {
  ChainTree tree;
  std::vector<RunId> runs;
  for (uint32_t i = 0; i < 5'000; ++i) {
    runs.push_back(tree.Add(kRootRun, Names{i, i + 1}));
    tree.Attach(B(i), runs.back(), 0);
  }
  for (uint32_t i = 0; i < runs.size(); ++i) {
    tree.Detach(B(i), [](RunId) {});
    tree.Drop(runs[i]);
  }
  EXPECT_EQ(tree.runs(), 1U);
  EXPECT_EQ(tree.prints(), 0U);
  EXPECT_EQ(tree.resident(), 0U);
  EXPECT_FALSE(tree.Has(B(1)));
  const uint64_t before = tree.memory_bytes();
  for (uint32_t i = 0; i < 5'000; ++i) {
    tree.Add(kRootRun, Names{i, i + 1});
  }
  EXPECT_LE(tree.memory_bytes(), before + 5'000 * 32) << "the least that the heap gives for names";
}

}  // namespace
}  // namespace terrace
