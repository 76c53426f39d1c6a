// A tier never formats, overwrites or removes what is not provably its own, and knows its own
// again.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"
#include "tiers/segment/crc32c.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/superblock_format.h"

namespace terrace {
namespace {

constexpr char kSuperblockName[] = "terrace.superblock";

TEST(OwnershipTest, AFolderWithAnythingElseInItIsNotMadeATier) {
  for (const char* name : {"photo.jpg", "segment-00000000.terrace", "index"}) {
    TierRoom room;
    room.disk().Create(kTierPath, name, "somebody's");
    EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen())) << name;
    EXPECT_EQ(room.disk().Names(kTierPath), std::vector<std::string>{name});
    EXPECT_EQ(room.disk().Read(kTierPath, name, 0, 10), "somebody's");
  }
}

TEST(OwnershipTest, WhatAMountPointOrADyingTierLeavesIsNoObstacle) {
  TierRoom room;
  room.disk().Create(kTierPath, "lost+found", "");
  room.disk().Create(kTierPath, "terrace.superblock.new", std::string(4096, 'x'));
  room.disk().Create(kTierPath, "terrace.probe-abc", "");
  room.Open();
  EXPECT_EQ(room.Write(TestBlock(1)), WriteOutcome::kWritten);
}

TEST(OwnershipTest, ALargeFileOfTheUnfinishedNameIsSomebodyElses) {
  TierRoom room;
  room.disk().Create(kTierPath, "terrace.superblock.new", std::string(1 << 20, 'x'));
  EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen()));
}

TEST(OwnershipTest, TwoTiersCannotHaveOneDirectory) {
  TierRoom room;
  room.Open();
  const std::unique_ptr<Folder> other = *room.disk().OpenFolder(kTierPath, FolderMode::kExisting);
  EXPECT_TRUE(absl::IsUnavailable(other->OwnExclusively()));
  room.Close();
  EXPECT_TRUE(other->OwnExclusively().ok());
  EXPECT_TRUE(absl::IsUnavailable(room.TryOpen()));
}

TEST(OwnershipTest, AnotherTierThanExpectedIsRefusedUntouched) {
  TierRoom room;
  room.Open();
  const Digest128 uuid = room.tier().uuid();
  room.Close();
  const std::string before = room.disk().Read(kTierPath, kSuperblockName, 0, 8192);
  room.options().expected_uuid = {1, 2};
  EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen()));
  EXPECT_EQ(room.disk().Read(kTierPath, kSuperblockName, 0, 8192), before);
  room.options().expected_uuid = uuid;
  EXPECT_TRUE(room.TryOpen().ok());
}

TEST(OwnershipTest, AnExpectedTierIsNotMadeWhereItIsAbsent) {
  TierRoom room;
  room.options().expected_uuid = {1, 2};
  EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen()));
  EXPECT_TRUE(room.disk().Names(kTierPath).empty());
}

TEST(OwnershipTest, EitherCopyOfTheSuperblockIsEnough) {
  for (const uint64_t damaged : {0U, 4096U}) {
    TierRoom room;
    room.Open();
    const TestBlock block(1);
    room.Write(block);
    room.Close();
    room.disk().Overwrite(kTierPath, kSuperblockName, damaged, std::string(4096, 'x'));
    room.Open();
    EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
    room.Close();
  }
}

TEST(OwnershipTest, WithoutASuperblockNothingIsFormatted) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.Close();
  room.disk().Overwrite(kTierPath, kSuperblockName, 0, std::string(8192, 'x'));
  EXPECT_EQ(room.TryOpen().code(), absl::StatusCode::kDataLoss);
  room.disk().Delete(kTierPath, kSuperblockName);
  EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen()));
}

TEST(OwnershipTest, ANewerSuperblockIsRefused) {
  TierRoom room;
  room.Open();
  room.Close();
  std::string page = room.disk().Read(kTierPath, kSuperblockName, 0, 4096);
  page[8] = 2;
  const uint32_t crc = PageCrc32c(page, 12);
  std::memcpy(page.data() + 12, &crc, 4);
  room.disk().Overwrite(kTierPath, kSuperblockName, 0, page);
  EXPECT_TRUE(absl::IsFailedPrecondition(room.TryOpen()));
}

TEST(OwnershipTest, EveryOpeningRaisesTheEpochDurably) {
  TierRoom room;
  uint64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    room.Open();
    uint64_t epoch = 0;
    for (const uint64_t offset : {0U, 4096U}) {
      Superblock superblock;
      const std::string page = room.disk().Read(kTierPath, kSuperblockName, offset, 4096);
      if (DecodeSuperblock(page, &superblock) == HeaderFault::kNone) {
        epoch = std::max(epoch, superblock.epoch);
      }
    }
    EXPECT_GT(epoch, last);
    last = epoch;
    room.LosePower(static_cast<uint64_t>(i));
  }
}

TEST(OwnershipTest, SegmentsOfAnotherTierAreLeftAlone) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.Close();
  const AlignedBuffer head(kPageBytes);
  EncodeSegmentHead({{7, 7}, 5, SegmentRole::kBlocks, 1, kTestSegmentBytes}, head.span());
  const std::string foreign(head.bytes(), kPageBytes);
  room.disk().Create(kTierPath, "segment-00000005.terrace", foreign + std::string(8192, 'f'));
  room.disk().Create(kTierPath, "segment-00000006.terrace", std::string(12288, 'g'));
  room.Open();
  EXPECT_EQ(room.tier().figures().unproven_segments, 2U);
  for (uint64_t i = 10; i < 60; ++i) {
    room.Write(TestBlock(i, 40000));
  }
  EXPECT_EQ(room.disk().Read(kTierPath, "segment-00000005.terrace", 0, 4096), foreign);
  EXPECT_EQ(room.disk().Read(kTierPath, "segment-00000006.terrace", 0, 12288),
            std::string(12288, 'g'));
}

TEST(OwnershipTest, AFileThatAppearsUnderANameToBeMadeIsLeftAlone) {
  TierRoom room;
  room.Open();
  room.disk().Create(kTierPath, "segment-00000000.terrace", "somebody's");
  EXPECT_EQ(room.Write(TestBlock(1)), WriteOutcome::kWritten);
  EXPECT_EQ(room.disk().Read(kTierPath, "segment-00000000.terrace", 0, 10), "somebody's");
  EXPECT_EQ(room.PlaceOf(TestBlock(1)).first, "segment-00000001.terrace");
}

TEST(OwnershipTest, ASwappedDirectoryMakesMissesUntilItIsBack) {
  TierRoom room;
  room.Open();
  const TestBlock block(1);
  room.Write(block);
  room.disk().SwapFolder(kTierPath);
  room.Advance(room.options().retry_interval);
  EXPECT_EQ(room.tier().figures().state, TierState::kDetached);
  EXPECT_FALSE(room.Holds(block));
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kFault);
  EXPECT_TRUE(room.disk().Names(kTierPath).empty());
  room.disk().SwapFolder(kTierPath);
  room.Advance(room.options().retry_interval);
  EXPECT_EQ(room.tier().figures().state, TierState::kOnline);
  EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kWritten);
}

}  // namespace
}  // namespace terrace
