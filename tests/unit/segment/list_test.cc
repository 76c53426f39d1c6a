// What a tier holds by name: listed, and told as it changes.
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"
#include "tests/unit/segment/tier_set_case.h"

namespace terrace {
namespace {

using Unnamed = SegmentTier::Unnamed;

std::set<std::string> ListOf(SegmentTier& tier, const std::function<void()>& run) {
  std::set<std::string> keys;
  ListPlace place;
  for (int pieces = 0; !place.over && pieces < 1000; ++pieces) {
    bool done = false;
    tier.List(place, [&](const ListPlace& next, const std::vector<NamedBlock>& blocks) {
      place = next;
      done = true;
      for (const NamedBlock& block : blocks) {
        keys.insert(block.key);
        EXPECT_TRUE(tier.Holds(block.identity()));
      }
    });
    run();
    EXPECT_TRUE(done);
  }
  EXPECT_TRUE(place.over);
  return keys;
}

class ListTest : public testing::Test {
 protected:
  void Fill(uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) {
      ASSERT_EQ(room_.Write(TestBlock(i)), WriteOutcome::kWritten);
    }
  }
  std::set<std::string> List() {
    return ListOf(room_.tier(), [this] { room_.RunAll(); });
  }
  std::set<std::string> HeldBelow(uint64_t end) {
    std::set<std::string> keys;
    for (uint64_t i = 0; i < end; ++i) {
      if (room_.tier().Holds(TestBlock(i).identity())) {
        keys.insert(TestBlock(i).key);
      }
    }
    return keys;
  }
  void Watch() {
    room_.tier().WatchChanges([this](const std::vector<NamedBlock>& changed, Unnamed unnamed) {
      for (const NamedBlock& block : changed) {
        changed_.insert(block.key);
      }
      unnamed_ = unnamed_ || unnamed == Unnamed::kMore;
    });
  }
  void TearDown() override {
    if (room_.is_open()) {
      room_.tier().WatchChanges(nullptr);
    }
  }

  TierRoom room_;
  std::set<std::string> changed_;
  bool unnamed_ = false;
};

class KeepAll final : public ReclaimJudge {
 public:
  size_t ChooseVictim(absl::Span<const SegmentView>) override { return 0; }
  bool Keep(const JudgedRecord&) override { return true; }
};

TEST_F(ListTest, AListNamesWhatIsHeldInOpenAndSealedSegments) {
  room_.Open();
  EXPECT_TRUE(List().empty());
  Fill(0, 60);
  ASSERT_EQ(room_.Delete({TestBlock(3), TestBlock(50)}), WriteOutcome::kWritten);
  const std::set<std::string> listed = List();
  EXPECT_EQ(listed.size(), 58U);
  EXPECT_EQ(listed, HeldBelow(60));
}

TEST_F(ListTest, AListAfterARestartSaysTheSame) {
  room_.Open();
  Fill(0, 60);
  room_.Kill();
  room_.Open();
  EXPECT_EQ(List(), HeldBelow(60));
  EXPECT_EQ(List().size(), 60U);
}

TEST_F(ListTest, ASegmentOfManyRecordsIsListedInPieces) {
  constexpr uint64_t kMany = 2 * SegmentTier::kListedAtOnce + 300;
  room_.options().segment_bytes = uint64_t{32} << 20;
  room_.options().capacity_bytes = 8 * room_.options().segment_bytes;
  room_.Open();
  for (uint64_t i = 0; i < kMany; ++i) {
    ASSERT_EQ(room_.Write(TestBlock(i, 1)), WriteOutcome::kWritten);
  }
  ASSERT_LE(room_.tier().figures().segments, 2U) << "open, with all of them";
  EXPECT_EQ(List().size(), kMany);
  room_.Kill();
  room_.Open();
  EXPECT_EQ(List().size(), kMany);
}

TEST_F(ListTest, AListTellsParentsAndPositions) {
  room_.Open();
  TestBlock salted(1);
  salted.salt = "s";
  salted.generation = 7;
  room_.Write(salted);
  NamedBlock named;
  room_.tier().List({}, [&](const ListPlace&, const std::vector<NamedBlock>& blocks) {
    ASSERT_EQ(blocks.size(), 1U);
    named = blocks[0];
  });
  room_.RunAll();
  EXPECT_EQ(named.key, salted.key);
  EXPECT_EQ(named.salt, "s");
  EXPECT_EQ(named.generation, 7U);
  EXPECT_TRUE(named.namespace_digest == salted.identity().namespace_digest);
}

TEST_F(ListTest, ATierThatClosesListsNothing) {
  room_.Open();
  Fill(0, 5);
  room_.tier().Close([](const absl::Status&) {});
  EXPECT_TRUE(List().empty());
}

TEST_F(ListTest, WhatAReclaimLetsGoIsNamed) {
  room_.Open();
  Watch();
  Fill(0, 400);
  for (int i = 0; i < 3; ++i) {  // a look may begin another reclaim
    room_.Advance(absl::Milliseconds(50));
  }
  const std::set<std::string> held = HeldBelow(400);
  ASSERT_GT(room_.tier().figures().records_reclaimed, 100U);
  for (uint64_t i = 0; i < 400; ++i) {
    const std::string key = TestBlock(i).key;
    EXPECT_EQ(changed_.contains(key), !held.contains(key)) << i;
  }
  EXPECT_FALSE(unnamed_);
}

TEST_F(ListTest, WhatAReclaimRewritesIsNamedToo) {
  KeepAll judge;
  room_.SetJudge(&judge);
  room_.options().capacity_bytes = 12 * kTestSegmentBytes;
  room_.Open();
  Watch();
  Fill(0, 400);
  room_.Advance(absl::Milliseconds(50));
  ASSERT_GT(room_.tier().figures().records_rewritten, 0U);
  const std::set<std::string> held = HeldBelow(400);
  size_t moved = 0;
  for (const std::string& key : changed_) {
    moved += held.contains(key) ? 1 : 0;
  }
  EXPECT_GT(moved, 0U);
}

TEST_F(ListTest, WithNobodyWatchingNoNamesAreRead) {
  room_.Open();
  Fill(0, 400);
  const uint64_t reads = room_.faults().calls(doubles::FileCall::kRead);
  ASSERT_GT(room_.tier().figures().records_reclaimed, 100U);
  EXPECT_LT(reads, room_.tier().figures().records_reclaimed);
  room_.Advance(absl::Seconds(1));
  EXPECT_TRUE(changed_.empty());
}

TEST_F(ListTest, DamageIsNamedByWhoeverReadsIt) {
  room_.Open();
  Watch();
  const TestBlock block(1);
  room_.Write(block);
  const auto [name, offset] = room_.PlaceOf(block);
  room_.disk().Overwrite(kTierPath, name, offset + kPageBytes + 5, "damage");
  EXPECT_EQ(room_.Read(block), ReadOutcome::kCorrupt);
  room_.Advance(absl::Milliseconds(50));
  EXPECT_EQ(changed_, std::set<std::string>{block.key});
  EXPECT_FALSE(unnamed_);
}

TEST_F(ListTest, AHeaderThatCannotBeReadLeavesItsBlockUnnamed) {
  room_.Open();
  Fill(0, 30);
  Watch();
  const TestBlock damaged(2);
  const auto [name, offset] = room_.PlaceOf(damaged);
  room_.disk().Overwrite(kTierPath, name, offset + 64, std::string(64, 'x'));
  EXPECT_FALSE(List().contains(damaged.key));
  Fill(30, 400);
  room_.Advance(absl::Milliseconds(50));
  EXPECT_FALSE(room_.tier().Holds(damaged.identity()));
  EXPECT_FALSE(changed_.contains(damaged.key));
  EXPECT_TRUE(unnamed_);
}

TEST_F(ListTest, WhatAFailedSyncDropsHasNoNames) {
  room_.Open();
  Watch();
  Fill(0, 5);
  room_.faults().Fail(doubles::FileCall::kSync, 1, absl::InternalError("EIO"));
  EXPECT_FALSE(room_.Sync().ok());
  room_.Advance(absl::Milliseconds(50));
  EXPECT_TRUE(HeldBelow(5).empty());
  EXPECT_TRUE(unnamed_);
}

TEST_F(ListTest, TheEndOfRecoveryIsTold) {
  room_.Open();
  Fill(0, 60);
  room_.Kill();
  ASSERT_TRUE(room_.TryOpen().ok());
  Watch();
  room_.RunAll();
  room_.Advance(absl::Milliseconds(50));
  EXPECT_TRUE(unnamed_) << "what was found again by then was in no list before";
}

class SetListTest : public TierSetTest {};

TEST_F(SetListTest, AListGoesOverAllDrives) {
  Make(3);
  Open();
  std::set<std::string> keys;
  for (uint64_t i = 0; i < 90; ++i) {
    ASSERT_EQ(Write(TestBlock(i)), WriteOutcome::kWritten);
    keys.insert(TestBlock(i).key);
  }
  EXPECT_EQ(ListOf(*set_, [this] { RunAll(); }), keys);
}

TEST_F(SetListTest, ADriveThatGoesAndComesIsToldOf) {
  Make(2);
  Open();
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_EQ(Write(TestBlock(i)), WriteOutcome::kWritten);
  }
  int unnamed = 0;
  set_->WatchChanges([&](const std::vector<NamedBlock>&, Unnamed more) {
    unnamed += more == Unnamed::kMore ? 1 : 0;
  });
  Advance(absl::Seconds(1));
  EXPECT_EQ(unnamed, 0);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(10));
  EXPECT_EQ(unnamed, 1);
  EXPECT_LT(ListOf(*set_, [this] { RunAll(); }).size(), 40U);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(20));
  EXPECT_GE(unnamed, 2);
  EXPECT_EQ(ListOf(*set_, [this] { RunAll(); }).size(), 40U);
  // The drive that came later is watched as well.
  unnamed = 0;
  for (uint64_t i = 100; i < 180; ++i) {
    Write(TestBlock(i));
  }
  drives_[0]->plan.Fail(doubles::FileCall::kSync, 1, kEio, 1000);
  Advance(absl::Seconds(2));
  EXPECT_GT(drives_[0]->plan.failed(), 0U);
  EXPECT_GE(unnamed, 1);
  set_->WatchChanges(nullptr);
}

}  // namespace
}  // namespace terrace
