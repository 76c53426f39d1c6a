// What a segment tier does when nothing goes wrong: write, find, read, batch, cancel.
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

class TierTest : public testing::Test {
 protected:
  void SetUp() override { room_.Open(); }
  TierRoom room_;
};

TEST_F(TierTest, WhatIsWrittenIsFoundAndReadVerified) {
  const TestBlock block(1);
  EXPECT_EQ(room_.Read(block), ReadOutcome::kGone);
  EXPECT_EQ(room_.Write(block), WriteOutcome::kWritten);
  LowerBlock found;
  ASSERT_TRUE(room_.tier().Lookup(block.identity(), &found));
  EXPECT_EQ(found.payload_bytes, block.payload_bytes);
  EXPECT_EQ(room_.Read(block, true), ReadOutcome::kVerified);
  EXPECT_EQ(room_.Read(block, false), ReadOutcome::kVerified);
  EXPECT_EQ(room_.tier().figures().reads, 2U);
}

TEST_F(TierTest, EveryPayloadSizeAroundAPageIsWrittenAndRead) {
  uint64_t number = 100;
  for (const uint32_t bytes : {1U, 511U, 4095U, 4096U, 4097U, 8192U, 39999U, 40000U}) {
    const TestBlock block(number++, bytes);
    ASSERT_EQ(room_.Write(block), WriteOutcome::kWritten) << bytes;
    ASSERT_EQ(room_.Read(block), ReadOutcome::kVerified) << bytes;
  }
}

TEST_F(TierTest, HeaderAndPayloadAreOneTransferIntoASlot) {
  const TestBlock block(1);
  ASSERT_EQ(room_.Write(block), WriteOutcome::kWritten);
  const uint64_t before = room_.faults().calls(doubles::FileCall::kRead);
  ASSERT_EQ(room_.Read(block, true), ReadOutcome::kVerified);
  EXPECT_EQ(room_.faults().calls(doubles::FileCall::kRead), before + 1);
}

TEST_F(TierTest, PaddingReachesTheDiskAsZeros) {
  const TestBlock block(1, 5000);  // the slot's tail holds junk
  ASSERT_EQ(room_.Write(block), WriteOutcome::kWritten);
  const auto [name, offset] = room_.PlaceOf(block);
  EXPECT_EQ(room_.disk().Read(kTierPath, name, offset + kPageBytes + 5000, 3192),
            std::string(3192, '\0'));
}

TEST_F(TierTest, AHeldBlockIsNotWrittenAgain) {
  const TestBlock block(1);
  const auto first = room_.StartWrite(block);
  EXPECT_EQ(room_.Write(block), WriteOutcome::kHeld);
  EXPECT_EQ(*first, WriteOutcome::kWritten);
  EXPECT_EQ(room_.Write(block), WriteOutcome::kHeld);
}

TEST_F(TierTest, IdentitiesThatDifferInAnyPartAreDifferentBlocks) {
  const TestBlock block(1);
  TestBlock salted = block;
  salted.salt = "salt";
  TestBlock later = block;
  later.generation = 2;
  ASSERT_EQ(room_.Write(block), WriteOutcome::kWritten);
  EXPECT_FALSE(room_.Holds(salted));
  EXPECT_FALSE(room_.Holds(later));
  EXPECT_EQ(room_.Write(salted), WriteOutcome::kWritten);
  EXPECT_EQ(room_.Read(salted), ReadOutcome::kVerified);
}

TEST_F(TierTest, SmallRecordsAreWrittenTogether) {
  room_.Write(TestBlock(99));  // the segment is open
  const uint64_t before = room_.faults().calls(doubles::FileCall::kWrite);
  std::vector<std::shared_ptr<std::optional<WriteOutcome>>> outcomes;
  for (uint64_t i = 0; i < 16; ++i) {
    outcomes.push_back(room_.StartWrite(TestBlock(i, 3000)));
  }
  room_.RunAll();
  for (uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(*outcomes[i], WriteOutcome::kWritten);
    EXPECT_EQ(room_.Read(TestBlock(i, 3000)), ReadOutcome::kVerified);
  }
  // The simulated disk takes a call for each piece; batches show as few completions out of order.
  EXPECT_EQ(room_.faults().calls(doubles::FileCall::kWrite), before + 16);
}

TEST_F(TierTest, MetadataTravelsInTheHeaderOrBehindThePayload) {
  for (const uint32_t bytes : {10U, kInlineMetadataBytes, kInlineMetadataBytes + 1, 12288U}) {
    const TestBlock block(bytes);
    const std::string metadata = doubles::Seeded(bytes).Bytes(bytes);
    ASSERT_EQ(room_.Write(block, Heat::kWarm, metadata), WriteOutcome::kWritten);
    ASSERT_EQ(room_.Read(block), ReadOutcome::kVerified);
    const auto [name, offset] = room_.PlaceOf(block);
    const uint64_t at = bytes <= kInlineMetadataBytes
                            ? offset + 528
                            : offset + kPageBytes + PagesOf(block.payload_bytes) * kPageBytes;
    EXPECT_EQ(room_.disk().Read(kTierPath, name, at, bytes), metadata);
  }
}

TEST_F(TierTest, HeatsHaveSegmentsOfTheirOwn) {
  const TestBlock cold(1);
  const TestBlock warm(2);
  const TestBlock hot(3);
  room_.Write(cold, Heat::kCold);
  room_.Write(warm, Heat::kWarm);
  room_.Write(hot, Heat::kHot);
  EXPECT_NE(room_.PlaceOf(cold).first, room_.PlaceOf(warm).first);
  EXPECT_EQ(room_.PlaceOf(warm).first, room_.PlaceOf(hot).first);  // two heats are configured
}

TEST(OpenAheadTest, TheNextSegmentIsThereBeforeTheLastOneIsFull) {
  TierRoom room;
  room.options().capacity_bytes = 20 * kTestSegmentBytes;
  room.Open();
  uint64_t block = 0;
  while (room.SegmentNames().size() < 2) {
    ASSERT_EQ(room.Write(TestBlock(block++, 10000)), WriteOutcome::kWritten);
    ASSERT_LT(block, 20U) << "twenty fill a segment";
  }
  // What follows has no file to wait for, nor one that could fail it.
  room.faults().Fail(doubles::FileCall::kOpen, 1, absl::InternalError("EIO"), 1000);
  for (; block < 30; ++block) {
    ASSERT_EQ(room.Write(TestBlock(block, 10000)), WriteOutcome::kWritten) << block;
  }
  EXPECT_EQ(room.SegmentNames().size(), 2U);
}

TEST(OpenAheadTest, ADiskThatIsFullByThenCostsNoWriteThatStillFits) {
  TierRoom room;
  room.options().capacity_bytes = 20 * kTestSegmentBytes;
  room.Open();
  ASSERT_EQ(room.Write(TestBlock(0, 10000)), WriteOutcome::kWritten);
  room.faults().Fail(doubles::FileCall::kPreallocate, 1, absl::ResourceExhaustedError("ENOSPC"),
                     1000);
  uint64_t written = 1;
  while (room.Write(TestBlock(written, 10000)) == WriteOutcome::kWritten) {
    ++written;
  }
  EXPECT_GE(written, 15U) << "as many as fit in one segment";
  EXPECT_EQ(room.SegmentNames().size(), 1U);
  room.faults().Heal();
  room.Advance(absl::Seconds(6));
  EXPECT_EQ(room.Write(TestBlock(1000, 10000)), WriteOutcome::kWritten);
}

TEST(OpenAheadTest, ATierThatClosesLeavesItFree) {
  TierRoom room;
  room.options().capacity_bytes = 20 * kTestSegmentBytes;
  room.Open();
  uint64_t blocks = 0;
  while (room.SegmentNames().size() < 2) {
    ASSERT_EQ(room.Write(TestBlock(blocks++, 10000)), WriteOutcome::kWritten);
  }
  for (const bool killed : {false, true}) {
    killed ? room.Kill() : room.Close();
    room.Open();
    EXPECT_EQ(room.tier().figures().free_segments, 1U);
    for (uint64_t i = 0; i < blocks; ++i) {
      ASSERT_EQ(room.Read(TestBlock(i, 10000)), ReadOutcome::kVerified);
    }
  }
}

TEST_F(TierTest, BlocksBecomeVisibleInTheOrderOfTheSegment) {
  TierRoom room(5);  // transfers complete in any order
  room.Open();
  std::vector<std::shared_ptr<std::optional<WriteOutcome>>> outcomes;
  for (uint64_t i = 0; i < 6; ++i) {
    outcomes.push_back(room.StartWrite(TestBlock(i, 30000)));
  }
  while (room.Step()) {
    for (uint64_t i = 0; i < 6; ++i) {
      if (outcomes[i]->has_value()) {
        EXPECT_TRUE(room.Holds(TestBlock(i, 30000)));
        EXPECT_TRUE(i == 0 || outcomes[i - 1]->has_value());
      }
    }
  }
}

TEST_F(TierTest, AReadOfALateDeadlineEndsAndMayBeAskedAgain) {
  const TestBlock block(1);
  room_.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room_.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(16384);
  request.destination = slot.span();
  request.deadline = room_.clock().Now() - absl::Seconds(1);
  std::optional<ReadOutcome> outcome;
  room_.tier().Read(request, [&](ReadOutcome ended) { outcome = ended; });
  room_.RunAll();
  EXPECT_EQ(outcome, ReadOutcome::kDeadline);
  EXPECT_EQ(room_.Read(block), ReadOutcome::kVerified);
}

TEST_F(TierTest, ACancelledReadEndsOnce) {
  const TestBlock block(1);
  room_.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room_.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(16384);
  request.destination = slot.span();
  request.deadline = absl::InfiniteDuration();
  std::optional<ReadOutcome> outcome;
  const uint64_t token = room_.tier().Read(request, [&](ReadOutcome ended) { outcome = ended; });
  room_.tier().Cancel(token);
  room_.RunAll();
  EXPECT_EQ(outcome, ReadOutcome::kCancelled);
  room_.tier().Cancel(token);
}

TEST_F(TierTest, ADestinationThatIsTooSmallIsRefused) {
  const TestBlock block(1);
  room_.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room_.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(8192);
  request.destination = slot.span();
  std::optional<ReadOutcome> outcome;
  room_.tier().Read(request, [&](ReadOutcome ended) { outcome = ended; });
  EXPECT_EQ(outcome, ReadOutcome::kFault);
}

TEST_F(TierTest, WritesBeyondTheQueueAreRefusedAtOnce) {
  TierRoom room;
  room.options().max_writes = 2;
  room.Open();
  const auto first = room.StartWrite(TestBlock(1));
  const auto second = room.StartWrite(TestBlock(2));
  const auto third = room.StartWrite(TestBlock(3));
  EXPECT_EQ(*third, WriteOutcome::kBusy);
  room.RunAll();
  EXPECT_EQ(*first, WriteOutcome::kWritten);
  EXPECT_EQ(*second, WriteOutcome::kWritten);
  EXPECT_EQ(room.Write(TestBlock(3)), WriteOutcome::kWritten);
}

TEST_F(TierTest, ReadsBeyondTheLimitAreRefused) {
  TierRoom room;
  room.options().max_reads = 1;
  room.Open();
  const TestBlock block(1);
  room.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(16384);
  request.destination = slot.span();
  request.deadline = absl::InfiniteDuration();
  std::optional<ReadOutcome> first;
  std::optional<ReadOutcome> second;
  room.tier().Read(request, [&](ReadOutcome ended) { first = ended; });
  room.tier().Read(request, [&](ReadOutcome ended) { second = ended; });
  EXPECT_EQ(second, ReadOutcome::kFault);
  room.RunAll();
  EXPECT_EQ(first, ReadOutcome::kVerified);
}

TEST_F(TierTest, AWriteThatWaitsTooLongEnds) {
  WriteRequest request;
  const TestBlock block(1);
  request.identity = block.identity();
  request.slot = room_.SlotOf(block);
  request.payload_bytes = block.payload_bytes;
  request.deadline = room_.clock().Now() + absl::Milliseconds(10);
  std::optional<WriteOutcome> outcome;
  room_.tier().Write(request, [&](WriteOutcome ended, const LowerBlock&) { outcome = ended; });
  room_.clock().Advance(absl::Milliseconds(20));
  room_.tier().Tick();  // no segment was opened meanwhile
  EXPECT_EQ(outcome, WriteOutcome::kDeadline);
  room_.RunAll();
}

TEST_F(TierTest, AWriteOfWrongBytesIsNeverDelivered) {
  // Memory that changed after it was hashed: the checksum that was recorded does not match it.
  const TestBlock block(1);
  WriteRequest request;
  request.identity = block.identity();
  request.slot = room_.SlotOf(block);
  request.slot[kPageBytes + 7] = static_cast<char>(request.slot[kPageBytes + 7] ^ 1);
  request.payload_bytes = block.payload_bytes;
  const std::string payload = block.payload();
  request.checksum = PayloadChecksum({payload.data(), payload.size()});
  room_.tier().Write(request, [](WriteOutcome, const LowerBlock&) {});
  room_.RunAll();
  EXPECT_EQ(room_.Read(block), ReadOutcome::kCorrupt);
  EXPECT_FALSE(room_.Holds(block));
  EXPECT_EQ(room_.Write(block), WriteOutcome::kWritten);
  EXPECT_EQ(room_.Read(block), ReadOutcome::kVerified);
}

TEST_F(TierTest, AnEstimateFollowsFromReads) {
  EXPECT_EQ(room_.tier().EstimateRead(1 << 20), absl::ZeroDuration());
  const TestBlock block(1);
  room_.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room_.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(16384);
  request.destination = slot.span();
  request.deadline = absl::InfiniteDuration();
  room_.tier().Read(request, [](ReadOutcome) {});
  room_.clock().Advance(absl::Milliseconds(12));
  room_.RunAll();
  EXPECT_EQ(room_.tier().EstimateRead(12288), absl::Milliseconds(12));
  EXPECT_EQ(room_.tier().EstimateRead(24576), absl::Milliseconds(24));
}

TEST_F(TierTest, DeletedBlocksAreGoneAndMayBeWrittenAgain) {
  const TestBlock block(1);
  room_.Write(block);
  std::optional<uint32_t> deleted;
  const TestBlock other(2);
  const BlockIdentity identities[] = {block.identity(), other.identity()};
  room_.tier().Delete(identities, [&](WriteOutcome outcome, uint32_t count) {
    EXPECT_EQ(outcome, WriteOutcome::kWritten);
    deleted = count;
  });
  EXPECT_FALSE(room_.Holds(block));
  room_.RunAll();
  EXPECT_EQ(deleted, 1U);
  EXPECT_EQ(room_.Write(block), WriteOutcome::kWritten);
  EXPECT_EQ(room_.Read(block), ReadOutcome::kVerified);
}

TEST_F(TierTest, ADeleteOverlappingAWriteEndsIt) {
  const TestBlock block(1);
  const auto write = room_.StartWrite(block);
  EXPECT_EQ(room_.Delete({block}), WriteOutcome::kWritten);
  EXPECT_EQ(*write, WriteOutcome::kDeleted);
  EXPECT_FALSE(room_.Holds(block));
}

TEST_F(TierTest, OptionsOutOfRangeAreRefusedNamingThem) {
  const std::vector<std::pair<std::string, std::function<void(SegmentTierOptions&)>>> bad = {
      {"heats", [](SegmentTierOptions& o) { o.heats = 0; }},
      {"heats", [](SegmentTierOptions& o) { o.heats = 4; }},
      {"segment_bytes", [](SegmentTierOptions& o) { o.segment_bytes = 4097; }},
      {"segment_bytes", [](SegmentTierOptions& o) { o.segment_bytes = 8192; }},
      {"max_payload_bytes", [](SegmentTierOptions& o) { o.max_payload_bytes = 0; }},
      {"max_payload_bytes", [](SegmentTierOptions& o) { o.max_payload_bytes = 1U << 30; }},
      {"capacity_bytes", [](SegmentTierOptions& o) { o.capacity_bytes = kTestSegmentBytes * 4; }},
      {"write_depth", [](SegmentTierOptions& o) { o.write_depth = 0; }}};
  for (const auto& [name, spoil] : bad) {
    TierRoom room;
    spoil(room.options());
    const absl::Status status = room.TryOpen();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_NE(std::string(status.message()).find(name), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace terrace
