// Reclaim: the capacity holds, what the judge keeps stays, what is read meanwhile is right.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

class ListJudge final : public ReclaimJudge {
 public:
  size_t ChooseVictim(absl::Span<const SegmentView> sealed) override {
    size_t oldest = 0;
    for (size_t i = 0; i < sealed.size(); ++i) {
      oldest = sealed[i].epoch < sealed[oldest].epoch ? i : oldest;
    }
    return oldest;
  }
  bool Keep(const JudgedRecord& record) override {
    ++judged;
    return keys.count(std::string(record.identity.key)) > 0;
  }
  std::set<std::string> keys;
  int judged = 0;
};

// Keeps what was of use while a quarter of the capacity was written.
class UseJudge final : public ReclaimJudge {
 public:
  size_t ChooseVictim(absl::Span<const SegmentView> sealed) override {
    return ListJudge().ChooseVictim(sealed);
  }
  bool Keep(const JudgedRecord& record) override {
    shares[std::string(record.identity.key)] = record.unused_share;
    return record.unused_share < 0.25;
  }
  std::map<std::string, double> shares;  // the latest
};

class UseTest : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    room_.options().capacity_bytes = GetParam() * kTestSegmentBytes;
    room_.SetJudge(&judge_);
    room_.Open();
  }
  // As many blocks as fill the tier so often, each of them used as told.
  void Fill(uint64_t times, const std::function<void()>& use) {
    for (uint64_t bytes = 0; bytes < times * room_.options().capacity_bytes; bytes += 36864) {
      ASSERT_EQ(room_.Write(TestBlock(next_++, 30000)), WriteOutcome::kWritten);
      use();
    }
  }
  UseJudge judge_;
  TierRoom room_;
  uint64_t next_ = 1000;
  const TestBlock noted_{1, 30000};
  const TestBlock read_{2, 30000};
  const TestBlock unused_{3, 30000};
};

TEST_P(UseTest, WhatIsReadOrNotedAsUsedOutlivesReclaims) {
  for (const TestBlock* block : {&noted_, &read_, &unused_}) {
    ASSERT_EQ(room_.Write(*block), WriteOutcome::kWritten);
  }
  Fill(4, [&] {
    EXPECT_TRUE(room_.tier().NoteUse(noted_.identity()));
    EXPECT_EQ(room_.Read(read_), ReadOutcome::kVerified);
  });
  EXPECT_FALSE(room_.Holds(unused_));
  EXPECT_FALSE(room_.tier().NoteUse(unused_.identity()));
  EXPECT_GT(room_.tier().figures().records_rewritten, 1U);
  EXPECT_LT(judge_.shares[noted_.key], 0.1);
  EXPECT_GT(judge_.shares[unused_.key], 0.25);
  EXPECT_LT(judge_.shares[unused_.key], 1.1) << "written once, and the log is no longer";
}

TEST_P(UseTest, WhatAnEarlierLifeUsedIsKeptIfThisOneUsesIt) {
  for (const TestBlock* block : {&noted_, &unused_}) {
    ASSERT_EQ(room_.Write(*block), WriteOutcome::kWritten);
  }
  room_.Kill();
  room_.Open();
  Fill(1, [&] { EXPECT_TRUE(room_.tier().NoteUse(noted_.identity())); });
  Fill(1, [&] { room_.tier().NoteUse(noted_.identity()); });
  EXPECT_GE(judge_.shares[unused_.key], 1);
  EXPECT_EQ(room_.Read(noted_), ReadOutcome::kVerified);
  room_.Kill();
  room_.Open();
  EXPECT_EQ(room_.Read(noted_), ReadOutcome::kVerified) << "written again, and found again";
}

INSTANTIATE_TEST_SUITE_P(SmallAndLarge, UseTest, testing::Values(8, 24));

TEST(ReclaimTest, TenTimesTheCapacityNeverGoesOverIt) {
  TierRoom room;
  room.Open();
  uint64_t written = 0;
  for (uint64_t i = 0; written < 10 * room.options().capacity_bytes; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten) << i;
    written += 30000;
    uint64_t bytes = 0;
    for (const std::string& name : room.SegmentNames()) {
      bytes += room.disk().SizeOf(kTierPath, name);
    }
    ASSERT_LE(bytes, room.options().capacity_bytes);
    ASSERT_EQ(room.Read(TestBlock(i, 30000)), ReadOutcome::kVerified);
  }
  const SegmentTierFigures figures = room.tier().figures();
  EXPECT_GT(figures.reclaimed_segments, 50U);
  EXPECT_LE(figures.file_bytes, room.options().capacity_bytes);
  EXPECT_GT(figures.records_reclaimed, 0U);
}

TEST(ReclaimTest, FilesAreUsedAgainInsteadOfMade) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
  }
  EXPECT_LE(room.SegmentNames().size(), 8U);
  EXPECT_EQ(room.faults().calls(doubles::FileCall::kRemove), 0U);
}

TEST(ReclaimTest, WhatTheJudgeKeepsStaysAndTheRestGoes) {
  ListJudge judge;
  TierRoom room;
  room.SetJudge(&judge);
  room.Open();
  std::vector<TestBlock> kept;
  for (uint64_t i = 0; i < 4; ++i) {
    kept.emplace_back(1000 + i, 9000);
    judge.keys.insert(kept.back().key);
    room.Write(kept.back(), Heat::kWarm, std::string(i % 2 == 0 ? 100 : 9000, 'm'));
  }
  for (uint64_t i = 0; i < 400; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
  }
  EXPECT_GT(judge.judged, 4);
  EXPECT_GT(room.tier().figures().records_rewritten, 3U);
  for (const TestBlock& block : kept) {
    EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
  }
  EXPECT_FALSE(room.Holds(TestBlock(0, 30000)));
  room.Kill();
  room.Open();
  for (const TestBlock& block : kept) {
    EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
  }
}

TEST(ReclaimTest, AJudgeThatKeepsEverythingCannotBlockTheTier) {
  class Hoarder final : public ReclaimJudge {
   public:
    size_t ChooseVictim(absl::Span<const SegmentView>) override { return 0; }
    bool Keep(const JudgedRecord&) override { return true; }
  };
  Hoarder judge;
  TierRoom room;
  room.SetJudge(&judge);
  room.Open();
  uint32_t written = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    const WriteOutcome outcome = room.Write(TestBlock(i, 30000));
    ASSERT_TRUE(outcome == WriteOutcome::kWritten || outcome == WriteOutcome::kNoSpace);
    written += outcome == WriteOutcome::kWritten ? 1 : 0;
    room.Advance(absl::Seconds(1));
  }
  EXPECT_GT(written, 30U);
  EXPECT_GT(room.tier().figures().records_over_share, 0U) << "it was not asked about all of them";
}

TEST(ReclaimTest, ASegmentThatIsReadIsNotOverwritten) {
  TierRoom room;
  room.Open();
  const TestBlock block(1, 30000);
  room.Write(block);
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  ASSERT_TRUE(room.tier().Lookup(request.identity, &request.block));
  const AlignedBuffer slot(32768);
  request.destination = slot.span();
  request.deadline = absl::InfiniteDuration();
  std::optional<ReadOutcome> outcome;
  // The read waits; writes pass it, as they may.
  std::vector<std::shared_ptr<std::optional<WriteOutcome>>> writes;
  for (uint64_t i = 10; i < 200; ++i) {
    writes.push_back(room.StartWrite(TestBlock(i, 30000)));
    if (i == 20) {
      room.tier().Read(request, [&](ReadOutcome ended) { outcome = ended; });
    }
    for (int step = 0; step < 3; ++step) {
      room.executor().Step();
    }
    if (i > 20) {
      room.io().Step();
    }
  }
  room.RunAll();
  ASSERT_TRUE(outcome.has_value());
  EXPECT_TRUE(outcome == ReadOutcome::kVerified);
  EXPECT_EQ(std::memcmp(slot.bytes(), block.payload().data(), 30000), 0);
}

TEST(ReclaimTest, TombstonesOutliveTheSegmentTheyLieIn) {
  TierRoom room;
  room.options().heats = 1;
  room.Open();
  // One block stays for good in an old segment; beside it lies one that is deleted.
  ListJudge judge;
  room.Close();
  room.SetJudge(&judge);
  const TestBlock deleted(2, 20000);
  const TestBlock old(1, 20000);
  judge.keys.insert(old.key);
  room.Open();
  room.Write(old);
  room.Write(deleted);
  ASSERT_EQ(room.Delete({deleted}), WriteOutcome::kWritten);
  for (uint64_t i = 10; i < 300; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    if (i % 20 == 0) {
      room.Kill();
      room.Open();
      ASSERT_FALSE(room.Holds(deleted)) << i;
      ASSERT_EQ(room.Read(old), ReadOutcome::kVerified) << i;
    }
  }
}

// A head is torn where the power goes while its segment is taken into use again.
TEST(ReclaimTest, ATornHeadBringsNothingBackThatWasReclaimed) {
  TierRoom room;
  room.options().heats = 1;
  room.Open();
  const TestBlock gone(1, 30000);
  ASSERT_EQ(room.Write(gone), WriteOutcome::kWritten);
  const std::string file = room.PlaceOf(gone).first;
  for (uint64_t i = 10; room.Holds(gone); ++i) {
    ASSERT_LT(i, 300U);
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
  }
  ASSERT_EQ(room.Delete({gone}), WriteOutcome::kWritten);  // nothing is held, nothing hides it
  ASSERT_TRUE(room.Sync().ok());
  room.Kill();
  room.disk().Overwrite(kTierPath, file, 0, std::string(512, 'x'));
  room.Open();
  EXPECT_FALSE(room.Holds(gone));
  EXPECT_EQ(room.tier().figures().unproven_segments, 0U);
}

TEST(ReclaimTest, NotesOutliveEverySegment) {
  TierRoom room;
  room.Open();
  ASSERT_EQ(room.PutNote("generation", "1"), WriteOutcome::kWritten);
  ASSERT_EQ(room.PutNote("generation", "2"), WriteOutcome::kWritten);
  ASSERT_EQ(room.PutNote("namespace", std::string(60000, 'n')), WriteOutcome::kWritten);
  for (uint64_t i = 10; i < 300; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    if (i % 50 == 0) {
      room.Kill();
      room.Open();
      const std::vector<SegmentTier::Note> notes = room.tier().Notes();
      ASSERT_EQ(notes.size(), 2U);
      EXPECT_EQ(notes[0].value, "2");
      EXPECT_EQ(notes[1].value, std::string(60000, 'n'));
    }
  }
}

TEST(ReclaimTest, TombstonesThatHaveToStayAreNotReclaimedAgainAndAgain) {
  TierRoom room;
  room.Open();
  const auto write = [&](const TestBlock& block) {
    const auto outcome = room.StartWrite(block);
    for (int step = 0; step < 2000 && !outcome->has_value(); ++step) {
      room.Step();
    }
    ASSERT_EQ(outcome->value_or(WriteOutcome::kClosed), WriteOutcome::kWritten)
        << "the tier is busy with itself";
  };
  // Two of eight segments come to hold nothing but tombstones, each still needed, and every other
  // segment something that lives.
  for (uint64_t i = 0; i < 75 && !HasFatalFailure(); ++i) {
    write(TestBlock(i, 9000));
    std::optional<WriteOutcome> deleted;
    const TestBlock block(i, 9000);
    const BlockIdentity identity = block.identity();
    if (i % 4 == 0) {
      write(TestBlock(500 + i, 9000));
    }
    room.tier().Delete({&identity, 1}, [&](WriteOutcome ended, uint32_t) { deleted = ended; });
    for (int step = 0; step < 2000 && !deleted.has_value(); ++step) {
      room.Step();
    }
    ASSERT_EQ(deleted.value_or(WriteOutcome::kClosed), WriteOutcome::kWritten);
  }
  for (uint64_t i = 1000; i < 1300 && !HasFatalFailure(); ++i) {
    write(TestBlock(i, 9000));
  }
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_LT(room.tier().figures().reclaimed_segments, 60U);
}

TEST(ShrinkTest, ASmallerCapacityRemovesFilesAndKeepsWhatTheJudgeKeeps) {
  ListJudge judge;
  TierRoom room;
  room.options().capacity_bytes = 24 * kTestSegmentBytes;
  room.SetJudge(&judge);
  room.Open();
  std::vector<TestBlock> kept;
  for (uint64_t i = 0; i < 150; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    if (i % 40 == 0) {  // what a reclaim keeps at most, half a segment
      kept.emplace_back(i, 30000);
      judge.keys.insert(kept.back().key);
    }
  }
  const TestBlock deleted(kept.back());
  kept.pop_back();
  ASSERT_EQ(room.Delete({deleted}), WriteOutcome::kWritten);
  ASSERT_EQ(room.PutNote("note", "value"), WriteOutcome::kWritten);
  ASSERT_GT(room.SegmentNames().size(), 18U);
  room.Close();
  room.options().capacity_bytes = 8 * kTestSegmentBytes;
  room.Open();
  room.Advance(absl::Seconds(1));
  EXPECT_LE(room.SegmentNames().size(), 8U);
  EXPECT_GT(room.tier().figures().removed_segments, 9U);
  EXPECT_LE(room.tier().figures().file_bytes, room.options().capacity_bytes);
  for (const TestBlock& block : kept) {
    EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
  }
  EXPECT_FALSE(room.Holds(deleted));
  EXPECT_EQ(room.tier().Notes().size(), 1U);
  // It goes on as a tier of that size, and back to a larger one.
  for (uint64_t i = 1000; i < 1100; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    ASSERT_LE(room.SegmentNames().size(), 8U);
  }
  room.Kill();
  room.Open();
  EXPECT_EQ(room.tier().figures().removed_segments, 0U);
  for (const TestBlock& block : kept) {
    EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
  }
  EXPECT_FALSE(room.Holds(deleted));
}

TEST(ShrinkTest, APowerLossAtAnyCallOfItLosesNothingThatIsKept) {
  for (uint64_t cut = 1; cut < 120; cut += 3) {
    ListJudge judge;
    TierRoom room(cut);
    room.options().capacity_bytes = 12 * kTestSegmentBytes;
    room.SetJudge(&judge);
    room.Open();
    std::vector<TestBlock> kept;
    for (uint64_t i = 0; i < 75; ++i) {
      ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
      if (i % 15 == 0) {
        kept.emplace_back(i, 30000);
        judge.keys.insert(kept.back().key);
      }
    }
    room.Close();
    room.options().capacity_bytes = 6 * kTestSegmentBytes;
    room.Open();
    room.disk().CutPowerAfter(static_cast<int64_t>(cut));
    room.Advance(absl::Seconds(1));
    room.LosePower(cut);
    room.Open();
    room.Advance(absl::Seconds(1));
    for (const TestBlock& block : kept) {
      ASSERT_EQ(room.Read(block), ReadOutcome::kVerified) << cut;
    }
    EXPECT_LE(room.SegmentNames().size(), 6U);
  }
}

TEST(ShrinkTest, AFileThatCannotBeRemovedIsLeftAloneUntilTheNextLife) {
  TierRoom room;
  room.options().capacity_bytes = 16 * kTestSegmentBytes;
  room.Open();
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
  }
  room.Close();
  room.options().capacity_bytes = 8 * kTestSegmentBytes;
  room.faults().Fail(doubles::FileCall::kRemove, 1, absl::InternalError("EIO"), 2);
  room.Open();
  room.Advance(absl::Seconds(1));
  EXPECT_EQ(room.tier().figures().retired_segments, 2U);
  EXPECT_LE(room.SegmentNames().size(), 8U) << "others go instead";
  EXPECT_EQ(room.Write(TestBlock(1000, 30000)), WriteOutcome::kWritten);
  room.Close();
  room.Open();
  EXPECT_EQ(room.tier().figures().retired_segments, 0U);
  EXPECT_EQ(room.Read(TestBlock(1000, 30000)), ReadOutcome::kVerified);
}

}  // namespace
}  // namespace terrace
