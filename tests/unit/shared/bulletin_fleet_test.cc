// Fleets in which a few nodes tell of the others.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"
#include "tiers/segment/record_format.h"
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

  // A node that another one tells of.
  [[nodiscard]] size_t SomeoneTold() const {
    size_t told = 0;
    while (TellerOf(told) == told) {
      ++told;
    }
    return told;
  }
  // Puts a bulletin in the place of the teller's last one, in which `edit` has had its way with
  // excerpts that everybody takes.
  void Lie(size_t teller, const std::function<void(PoolReport*)>& edit) {
    PoolReport title;
    std::vector<PoolReport> excerpts;
    ASSERT_TRUE(ReadBulletin(BulletinOf(teller), &title, &excerpts));
    title.serial += 1000;
    std::string lie = EncodeReport(title);
    for (PoolReport& excerpt : excerpts) {
      excerpt.since = 0;
      excerpt.serial = uint64_t{1} << 60;
      excerpt.segments.clear();
      excerpt.records.clear();
      edit(&excerpt);
      lie += EncodeReport(excerpt);
    }
    fleet_.mount.Plant(BulletinPath(lives_[teller]), lie);
  }
  static ReportedSegment Told(const NodeLife& life, ReportedState state, uint32_t end_page) {
    ReportedSegment segment;
    segment.name = {life, 1};
    segment.state = state;
    segment.file_pages = PoolFleet::kSegment / kPageBytes;
    segment.end_page = end_page;
    return segment;
  }
  FleetBlock PublishedBy(size_t node, uint64_t number) {
    FleetBlock block(number);
    EXPECT_EQ(fleet_.Publish(node, block), WriteOutcome::kWritten);
    fleet_.Pass(absl::Seconds(60));
    return block;
  }
  void ExpectFoundByAllBut(const std::set<size_t>& excluded, const FleetBlock& block) {
    for (size_t node = 0; node < kNodes; ++node) {
      if (!excluded.contains(node)) {
        EXPECT_EQ(fleet_.Read(node, block), ReadOutcome::kVerified) << node;
      }
    }
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
  const size_t told = SomeoneTold();
  fleet_.Kill(TellerOf(told));
  const FleetBlock block(5);
  ASSERT_EQ(fleet_.Publish(told, block), WriteOutcome::kWritten);
  fleet_.Pass(absl::Seconds(30));  // until the bulletin is as none, and a look
  for (size_t node = 0; node < kNodes; ++node) {
    EXPECT_TRUE(node == TellerOf(told) || fleet_.Finds(node, block)) << node;
  }
}

TEST_F(BulletinFleet, ATellerThatLiesCostsHitsUntilNodesAreLookedAt) {
  const size_t told = SomeoneTold();
  const size_t liar = TellerOf(told);
  const FleetBlock before(6);
  ASSERT_EQ(fleet_.Publish(told, before), WriteOutcome::kWritten);
  fleet_.Pass(kAllTold);
  fleet_.Kill(liar);
  // Nothing is left, and no serial will ever be higher.
  Lie(liar, [](PoolReport* excerpt) {
    excerpt->manifest = 77;
    excerpt->segments = {Told(excerpt->life, ReportedState::kGone, 2)};
  });
  fleet_.Pass(kAllTold);
  ExpectFoundByAllBut({liar, told}, PublishedBy(told, 7));
  ExpectFoundByAllBut({liar, told}, before);
}

TEST_F(BulletinFleet, WhatATellerDropsComesBackUnderTheManifestThatAllHaveRead) {
  const size_t told = SomeoneTold();
  const size_t liar = TellerOf(told);
  const FleetBlock before(6);
  ASSERT_EQ(fleet_.Publish(told, before), WriteOutcome::kWritten);
  fleet_.Pass(kAllTold);
  fleet_.Stop(told);
  fleet_.Start(told);
  fleet_.Pass(kAllTold);  // the segment is in the manifest of its second life, and in no head
  fleet_.Kill(liar);
  Lie(liar, [&](PoolReport* excerpt) {
    excerpt->segments = {Told(lives_[told], ReportedState::kGone, 2)};
  });
  fleet_.Pass(absl::Seconds(60));
  ExpectFoundByAllBut({liar, told}, before);
}

TEST_F(BulletinFleet, RecordsThatATellerHidesAreReadFromTheirSegment) {
  const size_t told = SomeoneTold();
  const size_t liar = TellerOf(told);
  ASSERT_EQ(fleet_.Publish(told, FleetBlock(6)), WriteOutcome::kWritten);
  fleet_.Pass(kAllTold);
  fleet_.Kill(liar);
  // All that may ever lie in the segment is known already.
  Lie(liar, [](PoolReport* excerpt) {
    excerpt->segments = {Told(excerpt->life, ReportedState::kOpen, 200)};
  });
  fleet_.Pass(absl::Seconds(6));
  ExpectFoundByAllBut({liar, told}, PublishedBy(told, 7));
}

TEST_F(BulletinFleet, ATellerDoesNotMakeAClearSeen) {
  const size_t told = SomeoneTold();
  const size_t liar = TellerOf(told);
  size_t clearer = 0;
  while (clearer == told || clearer == liar) {
    ++clearer;
  }
  const RaisedGeneration raised{FleetBlock(1).space, 2};
  fleet_.Kill(told);  // so that it never learns of it
  ASSERT_TRUE(fleet_.Raise(clearer, raised).ok());
  fleet_.Pass(2 * kAllTold);
  fleet_.Kill(liar);
  Lie(liar, [&](PoolReport* excerpt) {
    excerpt->ended = true;
    excerpt->generations = {{raised.namespace_digest, raised.generation}};
  });
  fleet_.Pass(absl::Seconds(60));
  EXPECT_FALSE(fleet_.tier(clearer).SeenByAll(raised));
}

}  // namespace
}  // namespace terrace
