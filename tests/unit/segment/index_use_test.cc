// A tier and its index: what it knows spares a scan, and what it loses, or invents, harms nothing.
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/memory_block_index.h"
#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

class IndexUseTest : public testing::Test {
 protected:
  void SetUp() override {
    room_.SetIndex(&index_);
    room_.Open();
    for (uint64_t i = 0; i < kBlocks; ++i) {
      ASSERT_EQ(room_.Write(TestBlock(i)), WriteOutcome::kWritten);
    }
  }
  void ExpectAllHeld() {
    for (uint64_t i = 0; i < kBlocks; ++i) {
      EXPECT_EQ(room_.Read(TestBlock(i)), ReadOutcome::kVerified) << i;
    }
  }
  static constexpr uint64_t kBlocks = 25;
  doubles::MemoryBlockIndex index_;
  TierRoom room_;
};

TEST_F(IndexUseTest, TheIndexFollowsWithTheTicks) {
  room_.Advance(room_.options().sync_interval);
  EXPECT_EQ(index_.records(), kBlocks);
  room_.Kill();
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_index, kBlocks);
  EXPECT_EQ(room_.tier().figures().recovered_by_header, 0U);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, WhatTheIndexHasNotHeardOfIsScanned) {
  room_.Advance(room_.options().sync_interval);
  for (uint64_t i = 100; i < 103; ++i) {
    room_.Write(TestBlock(i));
  }
  room_.Kill();
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_index, kBlocks);
  EXPECT_EQ(room_.tier().figures().recovered_by_header, 3U);
  ExpectAllHeld();
  EXPECT_EQ(room_.Read(TestBlock(102)), ReadOutcome::kVerified);
}

TEST_F(IndexUseTest, AClosedTierIsWhollyIndexed) {
  room_.Close();
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_index, kBlocks);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, AnIndexThatCannotBeReadCostsAScan) {
  room_.Close();
  index_.FailWith(absl::DataLossError("gone"));
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_footer, kBlocks);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, AnIndexThatBreaksOffCostsAScan) {
  room_.Close();
  index_.FailLoadsWith(absl::DataLossError("half"));
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_footer, kBlocks);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, AnIndexOfAnEarlierUseIsNotBelieved) {
  room_.Close();
  index_.ChangePositions([](SegmentPosition& position) { --position.epoch; });
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_index, 0U);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, EntriesOutsideTheSegmentAreNotBelieved) {
  room_.Close();
  index_.ChangeRecords([](IndexedRecord& record) { record.page += 60; });
  room_.Open();
  EXPECT_EQ(room_.tier().figures().recovered_by_index, 0U);
  ExpectAllHeld();
}

TEST_F(IndexUseTest, EntriesThatLieAreMissesAndNeverWrongBytes) {
  room_.Close();
  std::vector<Digest128> fingerprints;
  index_.ChangeRecords([&](IndexedRecord& record) { fingerprints.push_back(record.fingerprint); });
  size_t next = 1;
  // Every identity is said to lie where its neighbour does.
  index_.ChangeRecords([&](IndexedRecord& record) {
    record.fingerprint = fingerprints[next++ % fingerprints.size()];
  });
  room_.Open();
  for (uint64_t i = 0; i < kBlocks; ++i) {
    EXPECT_NE(room_.Read(TestBlock(i)), ReadOutcome::kVerified);
  }
}

TEST_F(IndexUseTest, AnIndexThatFailsIsNotWrittenAnyMore) {
  const uint64_t before = index_.batches();
  index_.FailWith(absl::UnavailableError("full"));
  room_.Advance(room_.options().sync_interval);
  EXPECT_EQ(room_.tier().figures().index_faults, 1U);
  index_.FailWith(absl::OkStatus());
  room_.Write(TestBlock(100));
  room_.Advance(room_.options().sync_interval);
  EXPECT_EQ(index_.batches(), before);
  room_.Kill();
  room_.Open();
  ExpectAllHeld();
  EXPECT_EQ(room_.Read(TestBlock(100)), ReadOutcome::kVerified);
  room_.Advance(room_.options().sync_interval);
  EXPECT_EQ(index_.records(), kBlocks + 1);
}

TEST_F(IndexUseTest, ReclaimedSegmentsAreForgotten) {
  for (uint64_t i = 100; i < 400; ++i) {
    ASSERT_EQ(room_.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    room_.Advance(absl::Milliseconds(100));
  }
  room_.Close();
  EXPECT_LE(index_.records(), 8 * 60U);
  room_.Open();
  for (uint64_t i = 100; i < 400; ++i) {
    const ReadOutcome outcome = room_.Read(TestBlock(i, 30000));
    EXPECT_TRUE(outcome == ReadOutcome::kVerified || outcome == ReadOutcome::kGone);
  }
}

TEST_F(IndexUseTest, WhatAFooterLeftOutAsTornIsNotTakenFromTheIndex) {
  room_.Advance(room_.options().sync_interval);
  const auto [name, offset] = room_.PlaceOf(TestBlock(kBlocks - 1));
  room_.disk().Overwrite(kTierPath, name, offset + kPageBytes, std::string(512, 'x'));
  room_.Kill();
  index_.FailWith(absl::UnavailableError("not told anew"));
  room_.Open();  // writes the footer
  EXPECT_FALSE(room_.Holds(TestBlock(kBlocks - 1)));
  room_.Kill();
  index_.FailWith(absl::OkStatus());
  room_.Open();
  EXPECT_FALSE(room_.Holds(TestBlock(kBlocks - 1)));
  EXPECT_EQ(room_.Read(TestBlock(kBlocks - 2)), ReadOutcome::kVerified);
}

TEST_F(IndexUseTest, AnEarlierUseThatTheIndexStillListsIsForgotten) {
  room_.Advance(room_.options().sync_interval);
  index_.ChangePositions([](SegmentPosition& position) { --position.epoch; });
  index_.ChangeRecords([](IndexedRecord& record) { record.fingerprint.hi ^= 1; });
  for (int life = 0; life < 2; ++life) {
    room_.Kill();
    room_.Open();
    EXPECT_EQ(room_.tier().figures().records, kBlocks);
    room_.Advance(room_.options().sync_interval);
  }
}

TEST_F(IndexUseTest, DeletesHoldAlsoWhereTheIndexStillKnowsTheBlock) {
  room_.Advance(room_.options().sync_interval);
  ASSERT_EQ(room_.Delete({TestBlock(3)}), WriteOutcome::kWritten);
  for (int life = 0; life < 3; ++life) {
    room_.Kill();
    room_.Open();
    EXPECT_FALSE(room_.Holds(TestBlock(3)));
    EXPECT_EQ(room_.Read(TestBlock(4)), ReadOutcome::kVerified);
    room_.Advance(room_.options().sync_interval);
  }
}

}  // namespace
}  // namespace terrace
