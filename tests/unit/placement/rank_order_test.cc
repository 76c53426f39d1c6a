#include "tiers/placement/rank_order.h"

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

class RankOrderTest : public testing::Test {
 protected:
  static constexpr uint32_t kMostAge = 30;

  RunId Add() {
    const RunId id = tree_.Add(kRootRun, {{++name_}});
    truth_[id].resize(kMostAge + 10);
    for (uint32_t& rank : truth_[id]) {
      rank = static_cast<uint32_t>(random_() % 200);
    }
    return id;
  }
  // What the run is worth at its age and the next ones, or up to `slack` less.
  void Price(RunId id, bool exact, uint32_t slack) {
    Instance& instance = tree_.InstanceOf(id);
    instance.priced = 1;
    instance.exact = exact ? 1 : 0;
    instance.priced_age = instance.age;
    instance.rank.fill(255);
    for (uint32_t i = 0; i < instance.PricedAges(); ++i) {
      const uint32_t truth = truth_[id][instance.age + i];
      const uint32_t less = exact ? 0 : static_cast<uint32_t>(random_() % (slack + 1));
      uint8_t& rank = instance.rank[std::min(i, Instance::kRanks - 1)];
      rank = std::min(rank, static_cast<uint8_t>(truth - std::min(truth, less)));
    }
  }
  void GrowOlder(RunId id) {
    Instance& instance = tree_.InstanceOf(id);
    ++instance.age;
    if (instance.IsStale()) {
      Price(id, false, 20);
      order_.RankAgain(tree_, id);
    } else {
      order_.Fall(tree_, id);
    }
  }
  RunId Lowest() {
    return order_.Lowest(tree_, [this](RunId id) {
      const Instance& instance = tree_.InstanceOf(id);
      if (instance.exact == 0 || instance.IsStale()) {
        Price(id, true, 0);
      }
      return barred_.count(id) == 0;
    });
  }
  uint32_t TruthOf(RunId id) { return truth_[id][tree_.InstanceOf(id).age]; }

  ChainTree tree_;
  RankOrder order_;
  std::mt19937_64 random_{7};
  uint64_t name_ = 0;
  std::map<RunId, std::vector<uint32_t>> truth_;  // by age
  std::map<RunId, bool> barred_;
};

TEST_F(RankOrderTest, IsEmptyAtFirst) {
  EXPECT_EQ(Lowest(), kNoRun);
}

TEST_F(RankOrderTest, OfEqualsTheOneThatCameFirstGoesFirst) {
  const RunId first = Add();
  const RunId second = Add();
  truth_[first].assign(40, 5);
  truth_[second].assign(40, 5);
  for (const RunId id : {first, second}) {
    Price(id, true, 0);
    order_.PushBack(tree_, id);
  }
  EXPECT_EQ(Lowest(), first);
  order_.Remove(tree_, first);
  EXPECT_EQ(Lowest(), second);
}

TEST_F(RankOrderTest, WhatDoesNotBelongThereLeaves) {
  const RunId low = Add();
  const RunId high = Add();
  truth_[low].assign(40, 5);
  truth_[high].assign(40, 9);
  for (const RunId id : {low, high}) {
    Price(id, true, 0);
    order_.Insert(tree_, id);
  }
  barred_[low] = true;
  EXPECT_EQ(Lowest(), high);
  EXPECT_FALSE(RankOrder::Has(tree_, low));
  EXPECT_TRUE(RankOrder::Has(tree_, high));
}

// However far too low their ranks were when they came.
TEST_F(RankOrderTest, TheLowestIsTheOneOfTheLowestTrueRank) {
  std::vector<RunId> listed;
  size_t compared = 0;
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t choice = random_() % 8;
    if (choice < 2 || listed.size() < 3) {
      const RunId id = Add();
      Price(id, random_() % 4 == 0, 30);
      random_() % 2 == 0 ? order_.PushBack(tree_, id) : order_.Insert(tree_, id);
      listed.push_back(id);
    } else if (choice < 6) {
      const RunId id = listed[random_() % listed.size()];
      if (tree_.InstanceOf(id).age < kMostAge) {
        GrowOlder(id);
      }
    } else if (choice == 6) {
      const size_t at = random_() % listed.size();
      order_.Remove(tree_, listed[at]);
      listed.erase(listed.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      const RunId lowest = Lowest();
      ASSERT_NE(lowest, kNoRun);
      for (const RunId id : listed) {
        ASSERT_GE(TruthOf(id), TruthOf(lowest)) << step;
      }
      ++compared;
      order_.Remove(tree_, lowest);
      listed.erase(std::find(listed.begin(), listed.end(), lowest));
    }
  }
  EXPECT_GT(compared, 1'000U);
}

}  // namespace
}  // namespace terrace
