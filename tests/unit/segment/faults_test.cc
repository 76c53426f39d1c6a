// Faults of the medium and of the file system at every call: a miss or "not stored", never a wrong
// byte, and back to normal by itself.
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

using doubles::FileCall;

const absl::Status kEio = absl::InternalError("EIO");
const absl::Status kEnospc = absl::ResourceExhaustedError("ENOSPC");
const absl::Status kErofs = absl::PermissionDeniedError("EROFS");

TEST(FaultTest, AReadThatFailsOnceIsRepeated) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.faults().Fail(FileCall::kRead, 1, kEio);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(room.tier().figures().read_faults, 1U);
}

TEST(FaultTest, AReadThatFailsTwiceIsAFaultAndTheBlockIsKept) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.faults().Fail(FileCall::kRead, 1, kEio, 2);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kFault);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
}

TEST(FaultTest, AFailedWriteIsNotServedAndTheNextOneSucceeds) {
  for (const auto& [status, outcome] :
       {std::pair(kEio, WriteOutcome::kFault), std::pair(kEnospc, WriteOutcome::kNoSpace),
        std::pair(kErofs, WriteOutcome::kReadOnly)}) {
    TierRoom room;
    room.Open();
    room.Write(TestBlock(1));
    room.faults().Fail(FileCall::kWrite, 1, status);
    EXPECT_EQ(room.Write(TestBlock(2)), outcome);
    EXPECT_FALSE(room.Holds(TestBlock(2)));
    EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
    room.Advance(room.options().retry_interval);
    EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kWritten);
    EXPECT_EQ(room.Read(TestBlock(2)), ReadOutcome::kVerified);
    room.Kill();
    room.Open();
    EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
    EXPECT_EQ(room.Read(TestBlock(2)), ReadOutcome::kVerified);
  }
}

TEST(FaultTest, WritesBehindAFailedOneFailWithIt) {
  TierRoom room;
  room.options().batch_bytes = 4096;
  room.Open();
  room.Write(TestBlock(0));
  room.faults().Fail(FileCall::kWrite, 1, kEio);
  const auto first = room.StartWrite(TestBlock(1));
  const auto second = room.StartWrite(TestBlock(2));
  const auto third = room.StartWrite(TestBlock(3));
  room.RunAll();
  EXPECT_EQ(*first, WriteOutcome::kFault);
  EXPECT_EQ(*second, WriteOutcome::kFault);
  EXPECT_EQ(*third, WriteOutcome::kFault);
  room.Kill();
  room.Open();
  EXPECT_FALSE(room.Holds(TestBlock(2)));
  EXPECT_EQ(room.Read(TestBlock(0)), ReadOutcome::kVerified);
}

TEST(FaultTest, ADeleteOfAWriteThatFailedHoldsThroughARecovery) {
  TierRoom room;
  room.options().batch_bytes = 4096;
  room.Open();
  room.Write(TestBlock(0));
  // The second of two batches fails, and no footer can be written: the first one's record lies
  // behind a header chain that a recovery follows.
  const auto first = room.StartWrite(TestBlock(1));
  const auto second = room.StartWrite(TestBlock(2));
  room.faults().Fail(FileCall::kSync, 1, kEio, 1000);
  room.RunAll();
  EXPECT_EQ(*first, WriteOutcome::kWritten);
  EXPECT_FALSE(room.Sync().ok());
  EXPECT_FALSE(room.Holds(TestBlock(1)));
  room.faults().Heal();
  room.Advance(room.options().retry_interval);
  EXPECT_EQ(room.Delete({TestBlock(1)}), WriteOutcome::kWritten);
  room.Kill();
  room.Open();
  EXPECT_FALSE(room.Holds(TestBlock(1)));
}

TEST(FaultTest, AFailedSyncIsFinalForWhatItCovered) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  ASSERT_TRUE(room.Sync().ok());
  room.Write(TestBlock(2));
  room.faults().Fail(FileCall::kSync, 1, kEio);
  EXPECT_FALSE(room.Sync().ok());
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  EXPECT_FALSE(room.Holds(TestBlock(2)));
  EXPECT_EQ(room.tier().figures().records_dropped_by_sync_faults, 1U);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kWritten);
  EXPECT_TRUE(room.Sync().ok());
  room.LosePower(1);
  room.Open();
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(room.Read(TestBlock(2)), ReadOutcome::kVerified);
}

TEST(FaultTest, AFullDiskDeclinesAndRecoversByItself) {
  TierRoom room;
  room.disk().SetCapacity(3 * kTestSegmentBytes);
  room.Open();
  uint32_t written = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    const WriteOutcome outcome = room.Write(TestBlock(i, 30000));
    ASSERT_TRUE(outcome == WriteOutcome::kWritten || outcome == WriteOutcome::kNoSpace);
    written += outcome == WriteOutcome::kWritten ? 1 : 0;
  }
  EXPECT_GT(written, 5U);
  room.disk().SetCapacity(uint64_t{1} << 40);
  room.Advance(room.options().retry_interval);
  for (uint64_t i = 200; i < 300; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten) << i;
  }
}

TEST(FaultTest, TheReserveOfTheFileSystemIsLeftToOthers) {
  TierRoom room;
  room.options().free_reserve_bytes = 4 * kTestSegmentBytes;
  room.disk().SetCapacity(7 * kTestSegmentBytes + 8192);
  room.Open();
  for (uint64_t i = 0; i < 100; ++i) {
    room.Write(TestBlock(i, 30000));
  }
  EXPECT_EQ(room.SegmentNames().size(), 3U);
}

TEST(FaultTest, AReadOnlyFileSystemServesReadsAndIsTriedAgain) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.faults().Fail(FileCall::kWrite, 1, kErofs, 1000000);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kReadOnly);
  EXPECT_EQ(room.tier().figures().state, TierState::kReadOnly);
  EXPECT_EQ(room.Write(TestBlock(3)), WriteOutcome::kReadOnly);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  room.Advance(room.options().retry_interval);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kReadOnly);
  room.faults().Heal();
  room.Advance(room.options().retry_interval);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kWritten);
  EXPECT_EQ(room.tier().figures().state, TierState::kOnline);
}

TEST(FaultTest, ADriveThatDisappearsMakesMissesAndComesBack) {
  TierRoom room;
  room.Open();
  for (uint64_t i = 0; i < 5; ++i) {
    room.Write(TestBlock(i));
  }
  ASSERT_TRUE(room.Sync().ok());
  for (const FileCall call : doubles::kAllFileCalls) {
    room.faults().Fail(call, 1, kEio, 1000000);
  }
  for (uint64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(room.Read(TestBlock(i)), ReadOutcome::kFault);
    EXPECT_EQ(room.Write(TestBlock(100 + i)), WriteOutcome::kFault);
    room.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(room.tier().figures().state, TierState::kFaulty);
  room.faults().Heal();
  room.Advance(absl::Seconds(30));
  EXPECT_EQ(room.Write(TestBlock(50)), WriteOutcome::kWritten);
  EXPECT_EQ(room.Read(TestBlock(50)), ReadOutcome::kVerified);
}

TEST(FaultTest, ShortTransfersAreNoFaults) {
  TierRoom room;
  room.faults().Shorten(4096);
  room.Open();
  for (uint64_t i = 0; i < 30; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i)), WriteOutcome::kWritten);
    ASSERT_EQ(room.Read(TestBlock(i)), ReadOutcome::kVerified);
  }
  room.Close();
  room.Open();
  EXPECT_EQ(room.tier().figures().records, 30U);
}

TEST(FaultTest, WithoutDirectTransfersTheTierWorksAndSaysSo) {
  TierRoom room;
  room.disk().RefuseDirect();
  room.Open();
  EXPECT_EQ(room.Write(TestBlock(1)), WriteOutcome::kWritten);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(room.tier().figures().transfers.caching, Caching::kBuffered);
  EXPECT_FALSE(room.tier().figures().transfers.reason.empty());
}

TEST(FaultTest, AnEngineThatTakesNoMoreTransfersIsAFaultThatPasses) {
  TierRoom room;
  room.Open();
  room.Write(TestBlock(1));
  room.io().RefuseNext(1);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kFault);
  EXPECT_EQ(room.Read(TestBlock(1)), ReadOutcome::kVerified);
  room.io().RefuseNext(1);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kFault);
  EXPECT_EQ(room.Write(TestBlock(2)), WriteOutcome::kWritten);
}

// Lets the nth call of a kind fail, for n = 1, 2, ... until the whole life of a tier passes without
// meeting it.
void Live(TierRoom& room) {
  const absl::Status opened = room.TryOpen();
  if (!opened.ok()) {
    return;
  }
  room.RunAll();
  for (uint64_t i = 0; i < 40; ++i) {
    const WriteOutcome outcome = room.Write(TestBlock(i, 30000));
    if (outcome == WriteOutcome::kWritten) {
      const ReadOutcome read = room.Read(TestBlock(i, 30000));
      ASSERT_TRUE(read == ReadOutcome::kVerified || read == ReadOutcome::kGone ||
                  read == ReadOutcome::kFault);
    }
    if (i % 10 == 5) {
      room.Delete({TestBlock(i, 30000)});
      room.Advance(absl::Seconds(1));
    }
  }
  room.Sync().IgnoreError();
  room.Close();
}

class EveryCallTest : public testing::TestWithParam<std::tuple<FileCall, int>> {};

TEST_P(EveryCallTest, MayFailOnceOrForAWhileAndTheNextLifeIsWhole) {
  const auto& [call, kind] = GetParam();
  const absl::Status status = kind == 0 ? kEio : kind == 1 ? kEnospc : kErofs;
  for (const uint64_t times : {uint64_t{1}, uint64_t{1000000}}) {
    for (uint64_t nth = 1;; nth += nth < 12 ? 1 : 7) {
      TierRoom room(nth % 5);
      room.faults().Fail(call, nth, status, times);
      Live(room);
      const bool met = room.faults().failed() > 0;
      room.faults().Heal();
      room.Kill();
      room.Open();
      ASSERT_TRUE(room.is_open());
      for (uint64_t i = 0; i < 40; ++i) {
        const ReadOutcome read = room.Read(TestBlock(i, 30000));
        ASSERT_TRUE(read == ReadOutcome::kVerified || read == ReadOutcome::kGone ||
                    read == ReadOutcome::kCorrupt);
      }
      ASSERT_EQ(room.Write(TestBlock(999)), WriteOutcome::kWritten);
      ASSERT_EQ(room.Read(TestBlock(999)), ReadOutcome::kVerified);
      if (!met) {
        break;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         EveryCallTest,
                         testing::Combine(testing::ValuesIn(doubles::kAllFileCalls),
                                          testing::Range(0, 3)));

}  // namespace
}  // namespace terrace
