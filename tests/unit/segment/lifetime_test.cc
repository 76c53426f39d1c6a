// What survives: closing, killing, losing power; and what a recovery finds in what is damaged.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

TEST(LifetimeTest, AfterCloseEverythingIsFoundByFooters) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 20; ++i) {
    room.Write(TestBlock(i));
  }
  room.Close();
  room.Open();
  EXPECT_EQ(room.tier().figures().recovered_by_footer, 20U);
  EXPECT_EQ(room.tier().figures().recovered_by_header, 0U);
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(room.Read(TestBlock(i)), ReadOutcome::kVerified);
  }
}

TEST(LifetimeTest, AfterAKillWhatWasReportedWrittenIsFoundByHeaders) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 10; ++i) {
    room.Write(TestBlock(i));
  }
  room.Kill();
  room.Open();
  EXPECT_EQ(room.tier().figures().recovered_by_header, 10U);
  for (uint64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(room.Read(TestBlock(i)), ReadOutcome::kVerified);
  }
  // Recovery sealed them, so that the next one is quick.
  room.Kill();
  room.Open();
  EXPECT_EQ(room.tier().figures().recovered_by_footer, 10U);
}

TEST(LifetimeTest, AfterPowerLossWhatWasSyncedIsThere) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    TierRoom room(seed);
    room.Open();
    for (uint64_t i = 0; i < 10; ++i) {
      room.Write(TestBlock(i));
    }
    ASSERT_TRUE(room.Sync().ok());
    for (uint64_t i = 10; i < 15; ++i) {
      room.Write(TestBlock(i));
    }
    room.LosePower(seed);
    room.Open();
    for (uint64_t i = 0; i < 15; ++i) {
      const ReadOutcome outcome = room.Read(TestBlock(i));
      EXPECT_TRUE(outcome == ReadOutcome::kVerified || i >= 10) << i;
    }
  }
}

TEST(LifetimeTest, TicksSyncWhatWasWritten) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.Advance(room.options().sync_interval);
  room.LosePower(3);
  room.Open();
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
}

TEST(LifetimeTest, ADeleteThatWasSyncedStays) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.Write(TestBlock(2));
  ASSERT_EQ(room.Delete({TestBlock(1)}), WriteOutcome::kWritten);
  ASSERT_TRUE(room.Sync().ok());
  room.LosePower(1);
  room.Open();
  EXPECT_FALSE(room.Holds(TestBlock(1)));
  EXPECT_EQ(room.Read(TestBlock(2)), ReadOutcome::kVerified);
  room.Close();
  room.Open();
  EXPECT_FALSE(room.Holds(TestBlock(1)));
}

TEST(LifetimeTest, WhatIsWrittenAfterADeleteStays) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.Delete({TestBlock(1)});
  ASSERT_EQ(room.Write(TestBlock(1)), WriteOutcome::kWritten);
  for (int i = 0; i < 2; ++i) {
    room.Kill();
    room.Open();
    EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  }
}

TEST(LifetimeTest, ATierServesAndTakesDeletesWhileItRecovers) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 40; ++i) {
    room.Write(TestBlock(i, 20000));
  }
  room.Kill();
  ASSERT_TRUE(room.TryOpen().ok());
  EXPECT_EQ(room.tier().figures().state, TierState::kRecovering);
  EXPECT_FALSE(room.Holds(TestBlock(7, 20000)));
  std::optional<WriteOutcome> deleted;
  const TestBlock whole(7, 20000);
  const BlockIdentity lasting[] = {whole.identity()};
  room.tier().Delete(lasting, [&](WriteOutcome outcome, uint32_t) { deleted = outcome; });
  room.RunAll();
  EXPECT_EQ(deleted, WriteOutcome::kWritten);
  EXPECT_EQ(room.tier().figures().state, TierState::kOnline);
  EXPECT_FALSE(room.Holds(whole));
  EXPECT_EQ(room.Read(TestBlock(8, 20000)), ReadOutcome::kVerified);
  room.Kill();
  room.Open();
  EXPECT_FALSE(room.Holds(whole));
}

TEST(LifetimeTest, DeletionsAndNotesAreKnownBeforeAnythingIsFoundAgain) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 60; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 20000)), WriteOutcome::kWritten);
  }
  ASSERT_EQ(room.Delete({TestBlock(59, 20000), TestBlock(40, 20000)}), WriteOutcome::kWritten);
  ASSERT_EQ(room.PutNote("generation", "3"), WriteOutcome::kWritten);
  room.Kill();
  ASSERT_TRUE(room.TryOpen().ok());
  ASSERT_EQ(room.tier().figures().state, TierState::kRecovering);
  const std::vector<SegmentTier::Note> notes = room.tier().Notes();
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_EQ(notes[0].value, "3");
  do {
    EXPECT_FALSE(room.Holds(TestBlock(59, 20000)));
    EXPECT_FALSE(room.Holds(TestBlock(40, 20000)));
  } while (room.Step());
  EXPECT_EQ(room.Read(TestBlock(58, 20000)), ReadOutcome::kVerified);
}

TEST(LifetimeTest, AStartReadsManyDeletionsTogether) {
  constexpr uint64_t kDeletions = 25;
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i <= kDeletions; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i)), WriteOutcome::kWritten);
  }
  for (uint64_t i = 0; i < kDeletions; ++i) {
    ASSERT_EQ(room.Delete({TestBlock(i)}), WriteOutcome::kWritten);
  }
  // Sealed, and left open by a crash.
  for (const bool closed : {true, false}) {
    closed ? room.Close() : room.Kill();
    const uint64_t before = room.faults().calls(doubles::FileCall::kRead);
    room.Open();
    EXPECT_LT(room.faults().calls(doubles::FileCall::kRead) - before, kDeletions);
    for (uint64_t i = 0; i < kDeletions; ++i) {
      EXPECT_FALSE(room.Holds(TestBlock(i)));
    }
    EXPECT_EQ(room.Read(TestBlock(kDeletions)), ReadOutcome::kVerified);
    ASSERT_EQ(room.Write(TestBlock(100)), WriteOutcome::kWritten);
    ASSERT_EQ(room.Delete({TestBlock(100)}), WriteOutcome::kWritten);
  }
}

TEST(LifetimeTest, WritesAreRefusedAndLookupsMissAfterClose) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  bool closed = false;
  room.tier().Close([&](const absl::Status&) { closed = true; });
  EXPECT_FALSE(room.Holds(TestBlock(1)));
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kClosed);
  room.RunAll();
  EXPECT_TRUE(closed);
  bool again = false;
  room.tier().Close([&](const absl::Status&) { again = true; });
  room.RunAll();
  EXPECT_TRUE(again);
  EXPECT_EQ(room.tier().figures().state, TierState::kClosed);
}

TEST(LifetimeTest, CloseWaitsForWritesInFlightAndEndsThoseThatWait) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(0));
  const auto first = room.StartWrite(TestBlock(1));
  room.Close();
  EXPECT_EQ(*first, WriteOutcome::kWritten);
  room.Open();
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
}

// ---- damage on the medium, through the real read path

class DamageTest : public testing::Test {
 protected:
  void SetUp() override {
    room_.Open();
    for (uint64_t i = 0; i < 4; ++i) {
      ASSERT_EQ(room_.Write(TestBlock(i)), WriteOutcome::kWritten);
    }
  }
  // Damages the record of block 1, expects a miss, and that its neighbours are unharmed.
  void ExpectMissAfter(const std::string& record) {
    const auto [name, offset] = room_.PlaceOf(TestBlock(1));
    room_.disk().Overwrite(kTierPath, name, offset, record);
    EXPECT_EQ(room_.Read(TestBlock(1)), ReadOutcome::kCorrupt);
    EXPECT_FALSE(room_.Holds(TestBlock(1)));
    EXPECT_EQ(room_.Read(TestBlock(0)), ReadOutcome::kVerified);
    EXPECT_EQ(room_.Read(TestBlock(2)), ReadOutcome::kVerified);
  }
  std::string RecordOf(const TestBlock& block) {
    const auto [name, offset] = room_.PlaceOf(block);
    return room_.disk().Read(kTierPath, name, offset, kPageBytes + 12288);
  }
  TierRoom room_;
};

TEST_F(DamageTest, ZeroedSectorsAreMisses) {
  std::string record = RecordOf(TestBlock(1));
  record.replace(kPageBytes + 1024, 512, 512, '\0');
  ExpectMissAfter(record);
  EXPECT_EQ(room_.tier().figures().corrupt_payloads, 1U);
}

TEST_F(DamageTest, AZeroedHeaderIsAMiss) {
  std::string record = RecordOf(TestBlock(1));
  record.replace(0, 512, 512, '\0');
  ExpectMissAfter(record);
  EXPECT_EQ(room_.tier().figures().corrupt_headers, 1U);
}

TEST_F(DamageTest, SwappedSectorsAreMisses) {
  std::string record = RecordOf(TestBlock(1));
  const std::string first = record.substr(kPageBytes, 512);
  record.replace(kPageBytes, 512, record, kPageBytes + 512, 512);
  record.replace(kPageBytes + 512, 512, first);
  ExpectMissAfter(record);
}

TEST_F(DamageTest, AMisdirectedWriteIsAMiss) {
  // A whole, sound record of another block in its place.
  ExpectMissAfter(RecordOf(TestBlock(2)));
  EXPECT_EQ(room_.tier().figures().stale_records, 1U);
}

TEST_F(DamageTest, AStaleRecordIsAMiss) {
  // What lay there in an earlier use of the segment: the same block, another sequence.
  const std::string stale = RecordOf(TestBlock(1));
  RecordHeader header;
  ASSERT_EQ(DecodeRecordHeader(stale, &header), HeaderFault::kNone);
  header.segment_epoch -= 1;
  std::string record = stale;
  const AlignedBuffer page(kPageBytes);
  EncodeRecordHeader(header, page.span());
  record.replace(0, kPageBytes, page.bytes(), kPageBytes);
  ExpectMissAfter(record);
  EXPECT_EQ(room_.tier().figures().stale_records, 1U);
}

TEST_F(DamageTest, TruncationAtEverySectorIsAMissOrTheRightBytes) {
  const auto [name, offset] = room_.PlaceOf(TestBlock(3));
  for (uint64_t bytes = offset + 16384; bytes >= offset; bytes -= 512) {
    TierRoom room;
    room.Open();
    for (uint64_t i = 0; i < 4; ++i) {
      ASSERT_EQ(room.Write(TestBlock(i)), WriteOutcome::kWritten);
    }
    room.disk().Truncate(kTierPath, name, bytes);
    const ReadOutcome outcome = room.Read(TestBlock(3));
    EXPECT_EQ(outcome == ReadOutcome::kVerified, bytes >= offset + kPageBytes + 10000) << bytes;
    EXPECT_EQ(room.Read(TestBlock(0)), ReadOutcome::kVerified);
  }
}

TEST_F(DamageTest, ARecordMovedToAnotherTierIsNotServed) {
  TierRoom other;
  other.Open();
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_EQ(other.Write(TestBlock(i)), WriteOutcome::kWritten);
  }
  ExpectMissAfter([&] {
    const auto [name, offset] = other.PlaceOf(TestBlock(1));
    return other.disk().Read(kTierPath, name, offset, kPageBytes + 12288);
  }());
}

TEST_F(DamageTest, ADamagedFooterCostsAScanOfHeaders) {
  const std::string name = room_.PlaceOf(TestBlock(1)).first;
  room_.Close();
  for (const uint64_t from_end : {uint64_t{1}, uint64_t{kPageBytes + 4090}}) {
    const uint64_t at = kTestSegmentBytes - from_end;
    const std::string byte = room_.disk().Read(kTierPath, name, at, 1);
    room_.disk().Overwrite(kTierPath, name, at, std::string(1, static_cast<char>(byte[0] ^ 4)));
    room_.Open();
    EXPECT_EQ(room_.tier().figures().recovered_by_header, 4U);
    for (uint64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(room_.Read(TestBlock(i)), ReadOutcome::kVerified);
    }
    room_.Close();
  }
}

TEST_F(DamageTest, ADamagedHeadIsMadeUpForByTheFooter) {
  const std::string name = room_.PlaceOf(TestBlock(1)).first;
  room_.Close();
  room_.disk().Overwrite(kTierPath, name, 0, std::string(4096, 'x'));
  room_.Open();
  EXPECT_EQ(room_.Read(TestBlock(1)), ReadOutcome::kVerified);
}

TEST_F(DamageTest, AClientsPayloadThatLooksLikeARecordIsNotOne) {
  // The forger even knows the tier and the place; the header before it is then damaged.
  RecordHeader forged;
  const std::string real = RecordOf(TestBlock(3));
  ASSERT_EQ(DecodeRecordHeader(real, &forged), HeaderFault::kNone);
  const auto [name, offset] = room_.PlaceOf(TestBlock(3));
  const std::string victim_key(32, 'v');
  forged.page += 1;
  forged.key = victim_key;
  const AlignedBuffer page(kPageBytes);
  EncodeRecordHeader(forged, page.span());
  std::string record = real;
  record.replace(kPageBytes, kPageBytes, page.bytes(), kPageBytes);
  record[20] = static_cast<char>(record[20] ^ 1);
  room_.disk().Overwrite(kTierPath, name, offset, record);
  room_.Kill();
  room_.Open();
  LowerBlock found;
  EXPECT_FALSE(
      room_.tier().Lookup({forged.namespace_digest, forged.generation, "", victim_key}, &found));
  EXPECT_EQ(room_.Read(TestBlock(2)), ReadOutcome::kVerified);
}

TEST(TornTailTest, WhatWasBeingWrittenAndIsNotWholeIsNotHeldAfterARecovery) {
  for (const bool torn_metadata : {false, true}) {
    TierRoom room;
    room.Open();
    for (uint64_t i = 0; i < 3; ++i) {
      ASSERT_EQ(room.Write(TestBlock(i), Heat::kWarm, std::string(9000, 'm')),
                WriteOutcome::kWritten);
    }
    const auto [name, offset] = room.PlaceOf(TestBlock(1));
    const uint64_t payload_end = offset + kPageBytes + 3 * kPageBytes;
    room.disk().Overwrite(kTierPath, name, torn_metadata ? payload_end : payload_end - 4096,
                          std::string(512, 'x'));
    room.Kill();
    room.Open();
    EXPECT_FALSE(room.Holds(TestBlock(1)));
    EXPECT_EQ(room.Read(TestBlock(0)), ReadOutcome::kVerified);
    EXPECT_EQ(room.Read(TestBlock(2)), ReadOutcome::kVerified);
    EXPECT_EQ(room.Write(TestBlock(1)), WriteOutcome::kWritten);
  }
}

TEST(BitFlipTest, EveryBitOfARecordFlippedThroughTheReadPathIsAMiss) {
  TierRoom room;
  room.Open();
  const TestBlock block(1, 4096);
  ASSERT_EQ(room.Write(block), WriteOutcome::kWritten);
  const auto [name, offset] = room.PlaceOf(block);
  const std::string record = room.disk().Read(kTierPath, name, offset, 2 * kPageBytes);
  // A prime step visits every byte of the header's fields and every bit position of the payload.
  for (uint64_t bit = 0; bit < record.size() * 8; bit += bit < 600 * 8 ? 1 : 29) {
    std::string sector = record.substr(bit / 8 / 512 * 512, 512);
    const std::string sound = sector;
    sector[bit / 8 % 512] = static_cast<char>(sector[bit / 8 % 512] ^ (1 << bit % 8));
    room.disk().Overwrite(kTierPath, name, offset + bit / 8 / 512 * 512, sector);
    LowerTier::ReadRequest request;
    ASSERT_EQ(room.Read(block), ReadOutcome::kCorrupt) << bit;
    // A miss ever after: it takes a new record to hold the block again.
    ASSERT_FALSE(room.Holds(block));
    room.disk().Overwrite(kTierPath, name, offset + bit / 8 / 512 * 512, sound);
    room.Kill();
    room.Open();
  }
}

}  // namespace
}  // namespace terrace
