// Scrub, retirement, the read breaker, and what is read back beside payloads.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

using doubles::FileCall;

const absl::Status kEio = absl::InternalError("EIO");
constexpr uint32_t kPayload = 30000;  // eight records a segment

class ScrubTest : public testing::Test {
 protected:
  void SetUp() override { room_.options().scrub_interval = absl::InfiniteDuration(); }

  // Blocks 0 to count - 1, of which most end up in sealed segments.
  void Fill(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      ASSERT_EQ(room_.Write(TestBlock(i, kPayload)), WriteOutcome::kWritten);
    }
    ASSERT_TRUE(room_.Sync().ok());
  }
  void Flip(const TestBlock& block, uint64_t offset_in_record) {
    const auto [name, offset] = room_.PlaceOf(block);
    std::string byte = room_.disk().Read(kTierPath, name, offset + offset_in_record, 1);
    byte[0] = static_cast<char>(byte[0] ^ 1);
    room_.disk().Overwrite(kTierPath, name, offset + offset_in_record, byte);
  }
  std::shared_ptr<std::optional<ScrubResult>> StartScrub(ScrubPace pace) {
    auto result = std::make_shared<std::optional<ScrubResult>>();
    room_.tier().Scrub(pace, [result](const ScrubResult& ended) {
      EXPECT_FALSE(result->has_value());
      *result = ended;
    });
    return result;
  }
  ScrubResult Scrub() {
    const auto result = StartScrub(ScrubPace::kFast);
    room_.RunAll();
    EXPECT_TRUE(result->has_value());
    return result->value_or(ScrubResult());
  }
  bool IsSealed(const TestBlock& block) {
    LowerBlock found;
    EXPECT_TRUE(room_.tier().Lookup(block.identity(), &found));
    for (const SegmentView& view : room_.tier().Sealed()) {
      if (view.number == found.location >> 32) {
        return true;
      }
    }
    return false;
  }

  TierRoom room_;
};

TEST_F(ScrubTest, ASoundTierIsReadOnceAndStaysWhole) {
  room_.Open();
  Fill(20);
  const ScrubResult result = Scrub();
  EXPECT_TRUE(result.complete);
  EXPECT_GE(result.records, 8U);
  EXPECT_GE(result.bytes, result.records * kPayload);
  EXPECT_EQ(result.corrupt, 0U);
  EXPECT_EQ(room_.tier().figures().scrub_passes, 1U);
  EXPECT_EQ(room_.tier().figures().scrubbed_records, result.records);
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(room_.Read(TestBlock(i, kPayload)), ReadOutcome::kVerified);
  }
}

TEST_F(ScrubTest, DamageInHeaderPayloadAndMetadataIsFoundBeforeAnybodyAsks) {
  room_.Open();
  ASSERT_EQ(room_.Write(TestBlock(900, kPayload), Heat::kWarm, std::string(9000, 'm')),
            WriteOutcome::kWritten);
  Fill(20);
  ASSERT_TRUE(IsSealed(TestBlock(900, kPayload)) && IsSealed(TestBlock(0, kPayload)) &&
              IsSealed(TestBlock(8, kPayload)));
  Flip(TestBlock(0, kPayload), 200);
  Flip(TestBlock(8, kPayload), kPageBytes + 20000);
  Flip(TestBlock(900, kPayload), uint64_t{kPageBytes} * (1 + PagesOf(kPayload)) + 5);
  const ScrubResult result = Scrub();
  EXPECT_EQ(result.corrupt, 3U);
  for (const uint64_t number : {0, 8, 900}) {
    EXPECT_FALSE(room_.Holds(TestBlock(number, kPayload))) << number;
  }
  const SegmentTierFigures figures = room_.tier().figures();
  EXPECT_EQ(figures.scrub_corrupt, 3U);
  EXPECT_EQ(figures.corrupt_headers, 1U);
  EXPECT_EQ(figures.corrupt_payloads, 2U);
  EXPECT_EQ(room_.Read(TestBlock(1, kPayload)), ReadOutcome::kVerified);
}

TEST_F(ScrubTest, WithoutAFooterWhatIsHeldIsStillRead) {
  room_.Open();
  Fill(20);
  const auto [name, offset] = room_.PlaceOf(TestBlock(0, kPayload));
  room_.disk().Overwrite(kTierPath, name, kTestSegmentBytes - kPageBytes,
                         std::string(kPageBytes, 'x'));
  Flip(TestBlock(0, kPayload), 100);                // hides the headers behind it
  Flip(TestBlock(1, kPayload), kPageBytes + 1234);  // one of these
  EXPECT_EQ(Scrub().corrupt, 2U);
  EXPECT_FALSE(room_.Holds(TestBlock(1, kPayload)));
}

TEST_F(ScrubTest, WhatCannotBeReadIsLeftAsItIs) {
  room_.Open();
  Fill(20);
  const auto result = StartScrub(ScrubPace::kFast);
  room_.faults().Fail(FileCall::kRead, 3, kEio, 4);
  room_.RunAll();
  ASSERT_TRUE(result->has_value());
  EXPECT_GT((*result)->unreadable, 0U);
  EXPECT_EQ((*result)->corrupt, 0U);
  room_.faults().Heal();
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(room_.Read(TestBlock(i, kPayload)), ReadOutcome::kVerified);
  }
}

TEST_F(ScrubTest, APassWithinABudgetTakesItsTimeAndBeginsByItself) {
  room_.options().capacity_bytes = 256 * kTestSegmentBytes;
  room_.options().scrub_interval = absl::Seconds(10);
  room_.options().scrub_bytes_per_second = uint64_t{4} << 20;
  room_.Open();
  Fill(1000);  // 34 MiB
  uint64_t most = 0;
  int turns = 0;
  for (uint64_t before = 0; room_.tier().figures().scrub_passes == 0 && turns < 1000; ++turns) {
    room_.Advance(absl::Milliseconds(100));
    const uint64_t now = room_.tier().figures().scrubbed_bytes;
    most = std::max(most, now - before);
    before = now;
  }
  const SegmentTierFigures figures = room_.tier().figures();
  EXPECT_EQ(figures.scrub_passes, 1U);
  EXPECT_GT(figures.scrubbed_bytes, uint64_t{30} << 20);
  EXPECT_LE(most, (uint64_t{8} << 20) + 2 * kTestSegmentBytes) << "one slice at a time";
  EXPECT_GE(turns, 100 + 50) << "the pause, and then some seconds";
}

TEST_F(ScrubTest, WhoAsksJoinsThePassThatRunsAndHurriesIt) {
  room_.options().scrub_bytes_per_second = 1;
  room_.Open();
  Fill(40);
  const auto slow = StartScrub(ScrubPace::kBudget);
  room_.RunAll();
  EXPECT_FALSE(slow->has_value());
  EXPECT_TRUE(room_.tier().scrub_progress().running);
  EXPECT_GT(room_.tier().scrub_progress().segments, 3U);
  const auto fast = StartScrub(ScrubPace::kFast);
  room_.RunAll();
  ASSERT_TRUE(slow->has_value() && fast->has_value());
  EXPECT_EQ((*slow)->records, (*fast)->records);
  EXPECT_FALSE(room_.tier().scrub_progress().running);
}

TEST_F(ScrubTest, ClosingEndsAPass) {
  room_.options().scrub_bytes_per_second = 1;
  room_.Open();
  Fill(40);
  const auto result = StartScrub(ScrubPace::kBudget);
  room_.Close();
  ASSERT_TRUE(result->has_value());
  EXPECT_FALSE((*result)->complete);
}

TEST_F(ScrubTest, ThreeDamagedRecordsRetireASegmentAndTheOthersInItStay) {
  room_.Open();
  Fill(20);
  const std::string name = room_.PlaceOf(TestBlock(0, kPayload)).first;
  std::vector<uint64_t> damaged;
  std::vector<uint64_t> sound;
  for (uint64_t i = 0; i < 20; ++i) {
    const bool in_it = room_.PlaceOf(TestBlock(i, kPayload)).first == name;
    (in_it && damaged.size() < SegmentTier::kMaxCorruptRecords ? damaged : sound).push_back(i);
  }
  for (const uint64_t number : damaged) {
    Flip(TestBlock(number, kPayload), kPageBytes + 77);
    EXPECT_EQ(room_.Read(TestBlock(number, kPayload)), ReadOutcome::kCorrupt);
  }
  room_.Advance(absl::Milliseconds(50));
  EXPECT_EQ(room_.tier().figures().retired_segments, 1U);
  EXPECT_GT(room_.tier().figures().records_rewritten, 0U);
  for (const uint64_t number : sound) {
    EXPECT_EQ(room_.Read(TestBlock(number, kPayload)), ReadOutcome::kVerified) << number;
    EXPECT_NE(room_.PlaceOf(TestBlock(number, kPayload)).first, name);
  }
  // Never used again in this life, and the capacity holds all the same.
  for (uint64_t i = 100; i < 300; ++i) {
    ASSERT_EQ(room_.Write(TestBlock(i, kPayload)), WriteOutcome::kWritten);
    EXPECT_NE(room_.PlaceOf(TestBlock(i, kPayload)).first, name);
  }
  EXPECT_LE(room_.tier().figures().file_bytes, room_.options().capacity_bytes);
  // In the next one it is a segment like any other.
  room_.Close();
  room_.Open();
  EXPECT_EQ(room_.tier().figures().retired_segments, 0U);
  for (const uint64_t number : damaged) {
    EXPECT_FALSE(room_.Holds(TestBlock(number, kPayload)));
  }
}

TEST_F(ScrubTest, ARetirementThatFailsLeavesWhatItHolds) {
  room_.Open();
  Fill(20);
  const std::string name = room_.PlaceOf(TestBlock(0, kPayload)).first;
  std::vector<uint64_t> in_it;
  for (uint64_t i = 0; i < 20; ++i) {
    if (room_.PlaceOf(TestBlock(i, kPayload)).first == name) {
      in_it.push_back(i);
    }
  }
  for (size_t i = 0; i < 3; ++i) {
    Flip(TestBlock(in_it[i], kPayload), kPageBytes + 77);
    EXPECT_EQ(room_.Read(TestBlock(in_it[i], kPayload)), ReadOutcome::kCorrupt);
  }
  room_.faults().Fail(FileCall::kWrite, 1, kEio, 1000);
  room_.Advance(absl::Milliseconds(50));
  room_.faults().Heal();
  for (size_t i = 3; i < in_it.size(); ++i) {
    EXPECT_EQ(room_.Read(TestBlock(in_it[i], kPayload)), ReadOutcome::kVerified);
  }
  for (int i = 0; i < 5; ++i) {
    room_.Advance(absl::Seconds(5));
  }
  EXPECT_EQ(room_.tier().figures().retired_segments, 1U);
  for (size_t i = 3; i < in_it.size(); ++i) {
    EXPECT_EQ(room_.Read(TestBlock(in_it[i], kPayload)), ReadOutcome::kVerified);
  }
}

TEST_F(ScrubTest, ADamagedNoteIsWrittenAgainFromMemory) {
  room_.Open();
  ASSERT_EQ(room_.PutNote("a note", "its value"), WriteOutcome::kWritten);
  const std::string name = room_.SegmentNames().front();
  room_.Close();
  room_.Open();  // its segment is sealed
  const uint64_t payload = 2 * kPageBytes;
  ASSERT_EQ(room_.disk().Read(kTierPath, name, payload, 9), "its value");
  room_.disk().Overwrite(kTierPath, name, payload, "Its value");
  EXPECT_EQ(Scrub().corrupt, 1U);
  EXPECT_EQ(room_.tier().figures().notes_restored, 1U);
  ASSERT_TRUE(room_.Sync().ok());
  room_.Kill();
  room_.Open();
  ASSERT_EQ(room_.tier().Notes().size(), 1U);
  EXPECT_EQ(room_.tier().Notes()[0].value, "its value");
}

class BreakerTest : public ScrubTest {
 protected:
  void FailReads() { room_.faults().Fail(FileCall::kRead, 1, kEio, 1000000); }
};

TEST_F(BreakerTest, AMediumThatFailsEveryReadIsMissesAtOnceAndComesBackByItself) {
  room_.Open();
  Fill(12);
  FailReads();
  for (uint64_t i = 0; i < room_.options().max_read_faults; ++i) {
    EXPECT_EQ(room_.Read(TestBlock(i, kPayload)), ReadOutcome::kFault);
  }
  EXPECT_TRUE(room_.tier().figures().reads_suspended);
  EXPECT_EQ(room_.tier().figures().state, TierState::kFaulty);
  const uint64_t calls = room_.faults().calls(FileCall::kRead);
  for (uint64_t i = 0; i < 12; ++i) {
    EXPECT_FALSE(room_.Holds(TestBlock(i, kPayload)));
  }
  EXPECT_EQ(room_.faults().calls(FileCall::kRead), calls);
  // Probes grow rarer, but not rarer than every ten seconds.
  for (int i = 0; i < 600; ++i) {
    room_.Advance(absl::Milliseconds(100));
  }
  const uint64_t probes = room_.faults().calls(FileCall::kRead) - calls;
  EXPECT_GE(probes, 6U);
  EXPECT_LE(probes, 30U);
  room_.faults().Heal();
  for (int i = 0; i < 300 && room_.tier().figures().reads_suspended; ++i) {
    room_.Advance(absl::Milliseconds(100));
  }
  for (uint64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(room_.Read(TestBlock(i, kPayload)), ReadOutcome::kVerified);
  }
  EXPECT_EQ(room_.tier().figures().read_suspensions, 1U);
}

TEST_F(BreakerTest, FailuresWithSuccessesBetweenThemSuspendNothing) {
  room_.Open();
  Fill(2);
  for (int i = 0; i < 40; ++i) {
    room_.faults().Fail(FileCall::kRead, 1, kEio, 2);
    EXPECT_EQ(room_.Read(TestBlock(0, kPayload)), ReadOutcome::kFault);
    room_.faults().Heal();
    EXPECT_EQ(room_.Read(TestBlock(1, kPayload)), ReadOutcome::kVerified);
  }
  EXPECT_FALSE(room_.tier().figures().reads_suspended);
}

class MetadataTest : public ScrubTest {
 protected:
  ReadOutcome ReadMetadata(const TestBlock& block, RecordMetadata* metadata) {
    std::optional<ReadOutcome> outcome;
    room_.tier().ReadMetadata(block.identity(), room_.clock().Now() + absl::Hours(1),
                              [&](ReadOutcome ended, const RecordMetadata& read) {
                                outcome = ended;
                                *metadata = read;
                              });
    room_.RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(ReadOutcome::kFault);
  }
};

TEST_F(MetadataTest, WhatWasWrittenBesideThePayloadIsReadBack) {
  room_.Open();
  for (const uint32_t bytes : {0U, 1U, 3568U, 3569U, 4096U, 4097U, kMaxMetadataBytes}) {
    const TestBlock block(bytes, kPayload);
    const std::string metadata = doubles::Seeded(bytes + 5).Bytes(bytes);
    ASSERT_EQ(room_.Write(block, Heat::kWarm, metadata), WriteOutcome::kWritten);
    RecordMetadata read;
    EXPECT_EQ(ReadMetadata(block, &read), ReadOutcome::kVerified) << bytes;
    EXPECT_EQ(read.metadata, metadata);
  }
  RecordMetadata read;
  EXPECT_EQ(ReadMetadata(TestBlock(99999), &read), ReadOutcome::kGone);
}

TEST_F(MetadataTest, DamageInItIsAMissOfTheBlock) {
  room_.Open();
  for (const uint64_t offset : {uint64_t{1000}, uint64_t{kPageBytes} * (1 + PagesOf(kPayload))}) {
    const TestBlock block(offset, kPayload);
    ASSERT_EQ(room_.Write(block, Heat::kWarm, std::string(9000, 'm')), WriteOutcome::kWritten);
    Flip(block, offset);
    RecordMetadata read;
    EXPECT_EQ(ReadMetadata(block, &read), ReadOutcome::kCorrupt);
    EXPECT_EQ(read.metadata, "");
    EXPECT_FALSE(room_.Holds(block));
  }
}

TEST_F(MetadataTest, AFaultOfTheMediumIsOneAndTheBlockStays) {
  room_.Open();
  const TestBlock block(1, kPayload);
  ASSERT_EQ(room_.Write(block, Heat::kWarm, std::string(9000, 'm')), WriteOutcome::kWritten);
  for (const uint64_t nth : {1, 2}) {
    room_.faults().Fail(FileCall::kRead, nth, kEio);
    RecordMetadata read;
    EXPECT_EQ(ReadMetadata(block, &read), ReadOutcome::kFault);
  }
  EXPECT_EQ(room_.Read(block), ReadOutcome::kVerified);
}

}  // namespace
}  // namespace terrace
