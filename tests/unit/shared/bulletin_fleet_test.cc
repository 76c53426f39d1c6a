// Fleets in which a few nodes tell of the others.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"
#include "tiers/shared/pool_bulletin.h"
#include "tiers/shared/pool_format.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;

constexpr int kNodes = 7;
constexpr absl::Duration kAllTold = absl::Seconds(20);

class BulletinFleet : public testing::Test {
 protected:
  BulletinFleet() : fleet_(kNodes) {
    fleet_.options.bulletins_from = 3;
    fleet_.options.dead_after = absl::Minutes(4);
    fleet_.StartAll();
    fleet_.Pass(kAllTold);
    for (size_t i = 0; i < kNodes; ++i) {
      lives_.push_back({PoolFleet::NameOf(i), fleet_.tier(i).Nodes().front().epoch});
    }
  }

  [[nodiscard]] std::string BulletinOf(size_t node) const {
    return fleet_.mount.Content(BulletinPath(lives_[node]));
  }
  // The node that all look to for what `node` reports.
  [[nodiscard]] size_t TellerOf(size_t node) const {
    std::vector<Digest128> names;
    for (size_t i = 0; i < kNodes; ++i) {
      names.push_back(PoolFleet::NameOf(i));
    }
    const Digest128 teller = ChooseTellers(names, 32)[GroupOf(PoolFleet::NameOf(node), 32)];
    for (size_t i = 0; i < kNodes; ++i) {
      if (PoolFleet::NameOf(i) == teller) {
        return i;
      }
    }
    return kNodes;
  }

  PoolFleet fleet_;
  std::vector<NodeLife> lives_;
};

TEST_F(BulletinFleet, PublishedBlocksAreFoundByAll) {
  int told = 0;
  for (size_t node = 0; node < kNodes; ++node) {
    EXPECT_FALSE(BulletinOf(node).empty()) << node;
    told += TellerOf(node) == node ? 0 : 1;
  }
  EXPECT_GT(told, 0);
  for (size_t round = 0; round < 5; ++round) {
    for (size_t node = 0; node < kNodes; ++node) {
      ASSERT_EQ(fleet_.Publish(node, FleetBlock(round * 10 + node)), WriteOutcome::kWritten);
    }
    fleet_.Pass(kAllTold);
    for (size_t reader = 0; reader < kNodes; ++reader) {
      for (size_t node = 0; node < kNodes; ++node) {
        EXPECT_EQ(fleet_.Read(reader, FleetBlock(round * 10 + node)), ReadOutcome::kVerified)
            << round << " " << reader << " " << node;
      }
    }
  }
}

TEST_F(BulletinFleet, DeletionsAndGenerationsAreTold) {
  const FleetBlock block(1);
  ASSERT_EQ(fleet_.Publish(0, block), WriteOutcome::kWritten);
  fleet_.Pass(kAllTold);
  ASSERT_EQ(fleet_.Delete(1, block), WriteOutcome::kWritten);
  const RaisedGeneration raised{block.space, 2};
  ASSERT_TRUE(fleet_.Raise(2, raised).ok());
  fleet_.Pass(kAllTold);
  for (size_t node = 0; node < kNodes; ++node) {
    EXPECT_FALSE(fleet_.Finds(node, block)) << node;
    const std::vector<RaisedGeneration>& learned = fleet_.node(node).learned;
    EXPECT_TRUE(node == 2 || std::find(learned.begin(), learned.end(), raised) != learned.end())
        << node;
  }
  fleet_.Pass(kAllTold);
  EXPECT_TRUE(fleet_.tier(2).SeenByAll(raised));
}

TEST_F(BulletinFleet, WithoutItsTellerANodeIsFollowedAllTheSame) {
  size_t told = 0;
  while (TellerOf(told) == told) {
    ++told;
  }
  fleet_.Kill(TellerOf(told));
  const FleetBlock block(5);
  ASSERT_EQ(fleet_.Publish(told, block), WriteOutcome::kWritten);
  fleet_.Pass(absl::Seconds(30));  // until the bulletin is as none, and a look
  for (size_t node = 0; node < kNodes; ++node) {
    EXPECT_TRUE(node == TellerOf(told) || fleet_.Finds(node, block)) << node;
  }
}

TEST_F(BulletinFleet, ATellerThatLiesCostsHitsUntilNodesAreLookedAt) {
  size_t told = 0;
  while (TellerOf(told) == told) {
    ++told;
  }
  const size_t liar = TellerOf(told);
  const FleetBlock before(6);
  ASSERT_EQ(fleet_.Publish(told, before), WriteOutcome::kWritten);
  fleet_.Pass(kAllTold);
  fleet_.Kill(liar);
  // It says that nothing is left, and that no serial will ever be higher.
  PoolReport title;
  std::vector<PoolReport> excerpts;
  ASSERT_TRUE(ReadBulletin(BulletinOf(liar), &title, &excerpts));
  std::string lie;
  title.serial += 1000;
  lie = EncodeReport(title);
  for (PoolReport& excerpt : excerpts) {
    excerpt.since = 0;
    excerpt.serial = uint64_t{1} << 60;
    excerpt.manifest = 77;
    excerpt.segments.clear();
    excerpt.records.clear();
    ReportedSegment gone;
    gone.name = {excerpt.life, 1};
    gone.state = ReportedState::kGone;
    gone.file_pages = gone.end_page = gone.listed_from_page = 2;
    excerpt.segments.push_back(gone);
    lie += EncodeReport(excerpt);
  }
  fleet_.mount.Plant(BulletinPath(lives_[liar]), lie);
  fleet_.Pass(kAllTold);
  const FleetBlock after(7);
  ASSERT_EQ(fleet_.Publish(told, after), WriteOutcome::kWritten);
  fleet_.Pass(absl::Seconds(60));
  for (size_t node = 0; node < kNodes; ++node) {
    if (node == liar || node == told) {
      continue;
    }
    EXPECT_EQ(fleet_.Read(node, after), ReadOutcome::kVerified) << node;
    EXPECT_EQ(fleet_.Read(node, before), ReadOutcome::kVerified) << node;
  }
}

}  // namespace
}  // namespace terrace
