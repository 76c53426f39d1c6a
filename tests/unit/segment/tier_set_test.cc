// Several drives as one tier: placement, and drives that fail, disappear and come back.
#include "tiers/segment/tier_set.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_set_case.h"
#include "tiers/segment/set_note_format.h"

namespace terrace {
namespace {

using doubles::FileCall;

TEST(SetNoteFormatTest, BytesAreAsWrittenDownAndForeignOnesAreVersionZero) {
  const std::string note = EncodeSetNote(0x0102030405060708, "value");
  EXPECT_EQ(note, std::string("TRRCSET\n\x08\x07\x06\x05\x04\x03\x02\x01value", 21));
  uint64_t version = 0;
  std::string_view value;
  DecodeSetNote(note, &version, &value);
  EXPECT_EQ(version, 0x0102030405060708U);
  EXPECT_EQ(value, "value");
  for (const std::string foreign : {"", "value", "TRRCSET\n", "TRRCSET\n1234567"}) {
    DecodeSetNote(foreign, &version, &value);
    EXPECT_EQ(version, 0U);
    EXPECT_EQ(value, foreign);
  }
}

TEST_F(TierSetTest, BlocksSpreadOverTheDrivesByTheirSizesAndAreFound) {
  Make(3);
  options_.drives[2].options.capacity_bytes = 64 * kTestSegmentBytes;
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 120);
  std::map<int, int> on;
  for (const TestBlock& block : blocks) {
    ++on[DriveOf(block)];
    EXPECT_EQ(Read(block), ReadOutcome::kVerified);
  }
  EXPECT_EQ(on.size(), 3U);
  EXPECT_NEAR(on[0], on[1], 4);
  EXPECT_NEAR(on[2], 4 * on[0], 16);
  EXPECT_EQ(set_->figures().records, 120U);
  EXPECT_EQ(set_->figures().capacity_bytes, 96 * kTestSegmentBytes);
  EXPECT_EQ(set_->figures().state, TierState::kOnline);
}

TEST_F(TierSetTest, ABlockIsHeldOnceAndItsLocationSaysWhere) {
  Make(2);
  Open();
  LowerBlock placed;
  ASSERT_EQ(Write(TestBlock(1, kPayload), &placed), WriteOutcome::kWritten);
  LowerBlock found;
  ASSERT_TRUE(set_->Lookup(TestBlock(1, kPayload).identity(), &found));
  EXPECT_EQ(placed.location, found.location);
  EXPECT_EQ(placed.checksum, found.checksum);
  EXPECT_EQ(Write(TestBlock(1, kPayload)), WriteOutcome::kHeld);
  EXPECT_EQ(Delete(TestBlock(1, kPayload)), WriteOutcome::kWritten);
  EXPECT_EQ(Read(TestBlock(1, kPayload)), ReadOutcome::kGone);
}

TEST_F(TierSetTest, AWriteThatOneDriveFailsIsTakenByAnother) {
  Make(2);
  Open();
  for (uint64_t i = 0; i < 10; ++i) {
    drives_[i % 2]->plan.Fail(FileCall::kWrite, 1, kEio);
    EXPECT_EQ(Write(TestBlock(i, kPayload)), WriteOutcome::kWritten);
    drives_[i % 2]->plan.Heal();
    Advance(absl::Seconds(6));
  }
  for (uint64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(Read(TestBlock(i, kPayload)), ReadOutcome::kVerified);
  }
}

TEST_F(TierSetTest, ADriveThatDiesTakesOnlyItsOwnBlocksAndReturnsByItself) {
  Make(3);
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 60);
  std::vector<int> on;
  for (const TestBlock& block : blocks) {
    on.push_back(DriveOf(block));
  }
  FailDrive(1);
  // Who reads finds it out; then it is given up, and what lies on it are misses.
  for (int turn = 0; turn < 2; ++turn) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const ReadOutcome outcome = Read(blocks[i]);
      EXPECT_EQ(outcome == ReadOutcome::kVerified, on[i] != 1);
    }
    Advance(absl::Seconds(15));
  }
  EXPECT_FALSE(set_->Drives()[1].open);
  EXPECT_NE(set_->Drives()[1].problem, "");
  EXPECT_EQ(set_->figures().state, TierState::kOnline);
  const std::vector<TestBlock> more = Fill(1000, 20);
  drives_[1]->plan.Heal();
  Advance(absl::Seconds(30));
  EXPECT_TRUE(set_->Drives()[1].open);
  EXPECT_EQ(set_->Drives()[1].problem, "");
  for (const std::vector<TestBlock>& all : {blocks, more}) {
    for (const TestBlock& block : all) {
      EXPECT_EQ(Read(block), ReadOutcome::kVerified);
    }
  }
}

TEST_F(TierSetTest, ADriveThatCanBeReadAndNotWrittenServesOn) {
  Make(1);
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 20);
  drives_[0]->plan.Fail(FileCall::kWrite, 1, kEio, 1000000);
  uint64_t faulty = 0;
  for (uint64_t second = 0; second < 60; ++second) {
    Write(TestBlock(100 + second, kPayload));
    faulty += set_->figures().state == TierState::kFaulty ? 1 : 0;
    ASSERT_EQ(Read(blocks[second % 20]), ReadOutcome::kVerified) << second;
    Advance(absl::Seconds(1));
    ASSERT_TRUE(set_->Drives()[0].open) << second;
  }
  EXPECT_GT(faulty, 30U);
  // Without reads nobody knows, and an opening may help.
  Advance(absl::Seconds(30));
  EXPECT_FALSE(set_->Drives()[0].open && set_->figures().state == TierState::kFaulty);
  drives_[0]->plan.Heal();
  Advance(absl::Seconds(10));
  EXPECT_EQ(Write(TestBlock(1000, kPayload)), WriteOutcome::kWritten);
  for (const TestBlock& block : blocks) {
    EXPECT_EQ(Read(block), ReadOutcome::kVerified);
  }
}

TEST_F(TierSetTest, ADriveWhosePathIsAnEmptyFolderForAWhileIsNotFormatted) {
  Make(2);
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 30);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(15));
  EXPECT_FALSE(set_->Drives()[0].open);
  EXPECT_TRUE(drives_[0]->disk.Names(PathOf(0)).empty()) << "nothing is made in it";
  for (const TestBlock& block : blocks) {
    const ReadOutcome outcome = Read(block);
    EXPECT_TRUE(outcome == ReadOutcome::kVerified || outcome == ReadOutcome::kGone);
  }
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(30));
  for (const TestBlock& block : blocks) {
    EXPECT_EQ(Read(block), ReadOutcome::kVerified);
  }
}

TEST_F(TierSetTest, WhatIsDeletedWhileADriveIsAwayDoesNotComeBackWithIt) {
  Make(2);
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 30);
  std::vector<TestBlock> lost;
  for (const TestBlock& block : blocks) {
    if (DriveOf(block) == 0) {
      lost.push_back(block);
    }
  }
  ASSERT_GT(lost.size(), 5U);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(15));
  ASSERT_FALSE(set_->Drives()[0].open);
  EXPECT_EQ(Delete(lost[0]), WriteOutcome::kFault) << "it may be back after a restart";
  EXPECT_EQ(set_->Drives()[0].pending_deletes, 1U);
  drives_[0]->disk.SwapFolder(PathOf(0));
  for (int i = 0; i < 60; ++i) {
    Advance(absl::Milliseconds(500));
    EXPECT_EQ(Read(lost[0]), ReadOutcome::kGone);
  }
  EXPECT_EQ(Read(lost[1]), ReadOutcome::kVerified);
  EXPECT_EQ(set_->Drives()[0].pending_deletes, 0U);
  ASSERT_TRUE(Sync().ok());
  Kill();
  Open();
  EXPECT_EQ(Read(lost[0]), ReadOutcome::kGone) << "durable by now";
  EXPECT_EQ(Read(lost[1]), ReadOutcome::kVerified);
}

TEST_F(TierSetTest, TheLatestNoteCountsWhicheverDriveHasIt) {
  Make(2);
  Open();
  ASSERT_EQ(PutNote("generation", "1"), WriteOutcome::kWritten);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(15));
  ASSERT_EQ(PutNote("generation", "2"), WriteOutcome::kWritten);
  ASSERT_TRUE(Sync().ok());
  drives_[0]->disk.SwapFolder(PathOf(0));
  Kill();
  Open();
  EXPECT_EQ(NoteValue("generation"), "2");
  Advance(absl::Seconds(2));
  ASSERT_TRUE(Sync().ok());
  // By now the other drive has it, too.
  Kill();
  drives_[1]->disk.SwapFolder(PathOf(1));
  options_.drives.pop_back();
  Open();
  EXPECT_EQ(NoteValue("generation"), "2");
}

TEST_F(TierSetTest, OpensWithADriveMissingAndNotWithoutAny) {
  Make(2);
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 20);
  Kill();
  FailDrive(0);
  Open();
  EXPECT_FALSE(set_->Drives()[0].open);
  const std::vector<TestBlock> more = Fill(100, 5);
  drives_[0]->plan.Heal();
  Advance(absl::Seconds(10));
  for (const TestBlock& block : blocks) {
    EXPECT_EQ(Read(block), ReadOutcome::kVerified);
  }
  Kill();
  FailDrive(0);
  FailDrive(1);
  EXPECT_FALSE(TryOpen().ok());
}

TEST_F(TierSetTest, MayOpenWithoutAnyDriveAndTakesThemWhenTheyAreThere) {
  Make(2);
  options_.opens_without_drives = true;
  Open();
  const std::vector<TestBlock> blocks = Fill(0, 20);
  Kill();
  FailDrive(0);
  FailDrive(1);
  Open();
  EXPECT_EQ(set_->figures().state, TierState::kFaulty);
  EXPECT_NE(set_->figures().last_fault, "");
  EXPECT_EQ(Read(blocks[0]), ReadOutcome::kGone);
  EXPECT_EQ(Write(TestBlock(100, kPayload)), WriteOutcome::kFault);
  EXPECT_EQ(PutNote("name", "value"), WriteOutcome::kFault);
  drives_[0]->plan.Heal();
  drives_[1]->plan.Heal();
  Advance(absl::Seconds(10));
  for (const TestBlock& block : blocks) {
    EXPECT_EQ(Read(block), ReadOutcome::kVerified);
  }
  EXPECT_EQ(set_->figures().last_fault, "");
}

TEST_F(TierSetTest, AFolderOfSomebodyElsesIsARefusalUnlessAnotherDriveOpens) {
  Make(2);
  options_.opens_without_drives = true;
  Open();
  Fill(0, 5);
  Kill();
  FailDrive(0);
  options_.drives[1].options.expected_uuid = Digest128{1, 2};
  EXPECT_TRUE(absl::IsFailedPrecondition(TryOpen()));
  drives_[0]->plan.Heal();
  Open();
  EXPECT_TRUE(set_->Drives()[0].open);
  EXPECT_FALSE(set_->Drives()[1].open);
}

TEST_F(TierSetTest, ADriveThatComesLateServesWhenItsNotesAreKnown) {
  Make(2);
  options_.opens_without_drives = true;
  Open();
  ASSERT_EQ(PutNote("generation", "5"), WriteOutcome::kWritten);
  const std::vector<TestBlock> blocks = Fill(0, 20);
  Kill();
  FailDrive(0);
  FailDrive(1);
  Open();
  std::vector<std::string> asked;
  absl::Status answer = absl::FailedPreconditionError("not understood");
  set_->WatchNotes([&](const std::vector<SegmentTier::Note>& news) {
    for (const SegmentTier::Note& note : news) {
      asked.push_back(note.name + "=" + note.value);
    }
    for (const TestBlock& block : blocks) {
      LowerBlock found;
      EXPECT_FALSE(set_->Lookup(block.identity(), &found)) << "before its notes are known";
    }
    return answer;
  });
  drives_[0]->plan.Heal();
  Advance(absl::Seconds(15));
  EXPECT_GT(asked.size(), 1U) << "asked again at each opening";
  EXPECT_FALSE(set_->Drives()[0].open);
  EXPECT_EQ(set_->Drives()[0].problem, "not understood");
  EXPECT_EQ(NoteValue("generation"), "");
  answer = absl::OkStatus();
  asked.clear();
  Advance(absl::Seconds(10));
  EXPECT_EQ(asked, std::vector<std::string>{"generation=5"});
  EXPECT_TRUE(set_->Drives()[0].open);
  EXPECT_EQ(NoteValue("generation"), "5");
  asked.clear();
  drives_[1]->plan.Heal();
  Advance(absl::Seconds(10));
  EXPECT_TRUE(set_->Drives()[1].open);
  EXPECT_TRUE(asked.empty()) << "it has no news";
  set_->WatchNotes(nullptr);
}

TEST_F(TierSetTest, ANoteThatIsPutBeforeADriveIsBackIsLaterThanWhatLiesOnThatDrive) {
  Make(2);
  Open();
  for (const char* value : {"1", "2", "3"}) {
    ASSERT_EQ(PutNote("generation", value), WriteOutcome::kWritten);
  }
  Kill();
  FailDrive(0);
  drives_[1]->disk.SwapFolder(PathOf(1));  // a new drive, which knows nothing
  Open();
  set_->WatchNotes([&](const std::vector<SegmentTier::Note>&) {
    set_->PutNote("generation", "4", [](WriteOutcome) {});
    return absl::OkStatus();
  });
  drives_[0]->plan.Heal();
  Advance(absl::Seconds(10));
  ASSERT_TRUE(set_->Drives()[0].open);
  EXPECT_EQ(NoteValue("generation"), "4");
  set_->WatchNotes(nullptr);
  Kill();
  Open();
  EXPECT_EQ(NoteValue("generation"), "4");
}

TEST_F(TierSetTest, TakesADirectoryThatOneTierMadeAlone) {
  Make(1);
  io_ = std::make_unique<doubles::StepIo>(clock_, 0);
  SegmentTierParts parts;
  parts.files = &mounts_;
  parts.io = io_.get();
  parts.clock = &clock_;
  parts.hashing = parts.maintenance = &executor_;
  set_ = *OpenSegmentTier(options_.drives[0].options, parts);
  RunAll();
  const std::vector<TestBlock> blocks = Fill(0, 10);
  ASSERT_EQ(PutNote("generation", "3"), WriteOutcome::kWritten);
  Kill();
  Open();
  EXPECT_EQ(NoteValue("generation"), "3");
  EXPECT_EQ(Read(blocks[4]), ReadOutcome::kVerified);
  ASSERT_EQ(PutNote("generation", "4"), WriteOutcome::kWritten);
  Kill();
  Open();
  EXPECT_EQ(NoteValue("generation"), "4");
}

TEST_F(TierSetTest, CountersGoOnWhereADriveLeavesAndReturns) {
  Make(2);
  Open();
  Fill(0, 40);
  Advance(absl::Seconds(1));
  const SegmentTierFigures before = set_->figures();
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(15));
  ASSERT_FALSE(set_->Drives()[0].open);
  EXPECT_GE(set_->Drives()[0].figures.writes, 10U);
  EXPECT_EQ(set_->figures().writes, before.writes);
  EXPECT_LT(set_->figures().records, before.records);
  drives_[0]->disk.SwapFolder(PathOf(0));
  Advance(absl::Seconds(15));
  ASSERT_TRUE(set_->Drives()[0].open);
  EXPECT_EQ(set_->figures().writes, before.writes);
  EXPECT_EQ(set_->figures().records, before.records);
}

TEST_F(TierSetTest, OptionsOutOfRangeAreRefusedNamingThem) {
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen())) << "no drives";
  Make(2);
  options_.drives[1].options.path = options_.drives[0].options.path;
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen()));
  options_.drives[1].options.path = PathOf(1);
  options_.drives[1].options.heats = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(TryOpen()));
}

TEST_F(TierSetTest, AFullSetReclaimsOnEveryDriveAndNeverGoesOverItsCapacities) {
  Make(2);
  Open();
  for (uint64_t i = 0; i < 900; ++i) {
    ASSERT_EQ(Write(TestBlock(i, kPayload)), WriteOutcome::kWritten) << i;
    if (i % 10 == 0) {
      Advance(absl::Milliseconds(500));
    }
  }
  for (const DriveView& drive : set_->Drives()) {
    EXPECT_LE(drive.figures.file_bytes, 16 * kTestSegmentBytes);
    EXPECT_GT(drive.figures.reclaimed_segments, 10U);
  }
  EXPECT_EQ(Read(TestBlock(899, kPayload)), ReadOutcome::kVerified);
  const uint32_t in_use = set_->figures().segments - set_->figures().free_segments;
  EXPECT_GE(set_->Sealed().size() + 4, in_use) << "of each drive one is open, and one ahead of it";
  EXPECT_LE(set_->Sealed().size() + 2, in_use);
}

TEST_F(TierSetTest, ScrubCoversAllDrivesAndMetadataIsFoundOnAny) {
  Make(2);
  Open();
  Fill(0, 60);
  std::optional<ScrubResult> result;
  set_->Scrub(ScrubPace::kFast, [&](const ScrubResult& ended) { result = ended; });
  RunAll();
  ASSERT_TRUE(result.has_value() && result->complete);
  EXPECT_GT(result->records, 20U);
  EXPECT_EQ(set_->figures().scrub_passes, 2U);
  std::optional<ReadOutcome> outcome;
  set_->ReadMetadata(TestBlock(7, kPayload).identity(), absl::InfiniteDuration(),
                     [&](ReadOutcome ended, const RecordMetadata&) { outcome = ended; });
  RunAll();
  EXPECT_EQ(outcome, ReadOutcome::kVerified);
}

TEST_F(TierSetTest, ClosesAllDrivesAndRefusesAfterwards) {
  Make(2);
  Open();
  Fill(0, 10);
  std::optional<absl::Status> closed;
  set_->Close([&](const absl::Status& status) { closed = status; });
  RunAll();
  ASSERT_TRUE(closed.has_value() && closed->ok());
  EXPECT_EQ(Write(TestBlock(50)), WriteOutcome::kClosed);
  EXPECT_EQ(Read(TestBlock(1, kPayload)), ReadOutcome::kGone);
}

}  // namespace
}  // namespace terrace
