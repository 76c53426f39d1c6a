// The store over DRAM and the local tier: demotion, promotion, levels, deletion.
#include <algorithm>
#include <numeric>

#include "tests/doubles/local_room.h"

namespace terrace {
namespace {

using doubles::LevelAt;
using doubles::LocalRoom;
using doubles::OutcomeAt;
using doubles::ReasonAt;

std::vector<uint64_t> Keys(uint64_t first, uint64_t count) {
  std::vector<uint64_t> keys(count);
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

TEST(LocalTierTest, EvictedBlocksComeBackFromTheLocalTier) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored);
  }
  EXPECT_EQ(room.losses(), 0U);
  EXPECT_GE(room.counters().local_writes, 200 - LocalRoom::kDram / LocalRoom::kPayload);
  EXPECT_EQ(room.StateOf(0), KeyState::kLower);
  EXPECT_EQ(room.StateOf(199), KeyState::kReady);
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
  EXPECT_GT(room.counters().tier_hits[1], 100U);
  // A block that came up still lies below, so that its next eviction writes nothing.
  const uint64_t written = room.counters().local_writes;
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
  EXPECT_LE(room.counters().local_writes, written + 64);
  EXPECT_EQ(room.losses(), 0U);
}

TEST(LocalTierTest, OnePutMayBeLargerThanAllOfDram) {
  LocalRoom room;
  room.Open();
  const PutResult result = room.Put(Keys(0, 100));
  // A put never evicts its own blocks, so the rest is declined and nothing hangs.
  EXPECT_EQ(OutcomeAt(result, 0), PutOutcome::kStored);
  EXPECT_EQ(OutcomeAt(result, 99), PutOutcome::kDeclined);
  EXPECT_EQ(ReasonAt(result, 99), Reason::kNoSpace);
}

TEST(LocalTierTest, OneGetTakesBlocksFromBothTiers) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 40; ++key) {
    room.Put({key});
  }
  ASSERT_TRUE(room.Flush(Level::kLocalWritten).ok());
  room.Evict(0);
  for (uint64_t key = 0; key < 40; key += 2) {
    ASSERT_EQ(room.Get(key), GetOutcome::kOk);
  }
  GetCall call;
  call.parts.push_back(room.Part(Keys(0, 12)));
  call.delivery = Delivery::kLease;
  call.wait_pending = true;
  call.deadline = room.clock().Now() + absl::Seconds(30);
  std::optional<absl::StatusOr<GetResult>> result;
  room.store().Get(room.caller(), std::move(call), [&](auto r) { result = std::move(r); });
  room.RunUntil([&] { return result.has_value(); });
  ASSERT_TRUE(result->ok());
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(static_cast<GetOutcome>((*result)->outcomes[i]), GetOutcome::kOk) << i;
  }
  EXPECT_EQ(room.counters().tier_hits[1], 20U + 6U);
}

TEST(LocalTierTest, WhatIsReportedWrittenSurvivesTheDeathOfTheProcess) {
  LocalRoom room;
  room.Open();
  const PutResult result = room.Put(Keys(0, 30), Level::kLocalWritten);
  for (size_t i = 0; i < 30; ++i) {
    ASSERT_EQ(LevelAt(result, i), Level::kLocalWritten) << i;
    ASSERT_EQ(ReasonAt(result, i), Reason::kNone) << i;
  }
  room.Kill();
  room.Open();
  room.RunAll();
  for (uint64_t key = 0; key < 30; ++key) {
    EXPECT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
}

TEST(LocalTierTest, WhatIsReportedSyncedSurvivesALossOfPower) {
  for (uint64_t seed = 1; seed < 6; ++seed) {
    LocalRoom room(seed);
    room.Open();
    const PutResult result = room.Put(Keys(0, 20), Level::kLocalSynced);
    for (size_t i = 0; i < 20; ++i) {
      ASSERT_EQ(LevelAt(result, i), Level::kLocalSynced) << i;
    }
    room.LosePower(seed);
    room.Open();
    room.RunAll();
    for (uint64_t key = 0; key < 20; ++key) {
      ASSERT_EQ(room.Get(key), GetOutcome::kOk) << key << ", seed " << seed;
    }
  }
}

TEST(LocalTierTest, ADuplicateWaitsForTheLevelToo) {
  LocalRoom room;
  room.Open();
  ASSERT_EQ(LevelAt(room.Put({1}), 0), Level::kDram);
  const PutResult again = room.Put({1}, Level::kLocalSynced);
  EXPECT_EQ(OutcomeAt(again, 0), PutOutcome::kDuplicate);
  EXPECT_EQ(LevelAt(again, 0), Level::kLocalSynced);
  EXPECT_EQ(room.counters().local_writes, 1U);
}

TEST(LocalTierTest, APutThatCannotWaitLongerSaysHowFarItCame) {
  LocalRoom room;
  room.Open();
  const auto answer =
      room.StartPut({1}, Level::kLocalWritten, LocalRoom::kPayload, absl::Seconds(1));
  room.executor().RunAll();
  EXPECT_FALSE(answer->has_value());
  room.Tick(absl::Seconds(2));
  room.executor().RunAll();
  ASSERT_TRUE(answer->has_value());
  ASSERT_TRUE((*answer)->ok());
  EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(***answer, 0), Level::kDram);
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kDeadline);
  room.RunAll();
  EXPECT_EQ(room.Get(1), GetOutcome::kOk);
}

// Keys whose payloads fit into DRAM.
uint64_t Slots() {
  LocalRoom room;
  room.Open();
  uint64_t key = 0;
  for (bool fits = true; fits; ++key) {
    const auto answer = room.StartPut({key});
    room.executor().RunAll();
    fits = answer->has_value();
  }
  return key - 1;
}

TEST(LocalTierTest, APutThatIsCancelledWhileItWaitsForRoomSaysHowFarEachKeyCame) {
  const uint64_t slots = Slots();
  LocalRoom room;
  room.Open();
  for (uint64_t key = 1; key < slots; ++key) {
    const auto answer = room.StartPut({key});
    room.executor().RunAll();
    ASSERT_TRUE(answer->has_value()) << key;
  }
  const auto answer = room.StartPut({1000, 1001}, Level::kLocalWritten);
  room.executor().RunAll();
  ASSERT_FALSE(answer->has_value()) << "the second block has to wait for a victim's write";
  EXPECT_EQ(room.store().Usage().waiting_for_room, 1U);
  room.store().CancelCall(room.caller(), room.last_call(), [](bool) {});
  room.executor().RunAll();
  ASSERT_TRUE(answer->has_value());
  ASSERT_TRUE((*answer)->ok());
  EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(***answer, 0), Level::kDram);
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kCancelled);
  EXPECT_EQ(OutcomeAt(***answer, 1), PutOutcome::kFailed);
  EXPECT_EQ(ReasonAt(***answer, 1), Reason::kCancelled);
  room.Settle();
  EXPECT_EQ(room.Get(1000), GetOutcome::kOk);
  EXPECT_EQ(room.StateOf(1001), KeyState::kMiss);
}

// Else its region, and with it the client, would wait for the room.
TEST(LocalTierTest, APutThatWaitsForRoomEndsWithItsSession) {
  const uint64_t slots = Slots();
  LocalRoom room;
  room.Open();
  for (uint64_t key = 1; key <= slots; ++key) {
    const auto filling = room.StartPut({key});
    room.executor().RunAll();
    ASSERT_TRUE(filling->has_value()) << key;
  }
  const auto answer = room.StartPut({1000});
  room.executor().RunAll();
  ASSERT_FALSE(answer->has_value());
  ASSERT_EQ(room.store().Usage().waiting_for_room, 1U);
  room.store().CloseSession(room.caller().session, [] {});
  room.executor().RunAll();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kCancelled);
}

TEST(LocalTierTest, APutThatWaitsForALevelCanBeCancelled) {
  LocalRoom room;
  room.Open();
  const auto answer = room.StartPut({1}, Level::kLocalSynced);
  room.executor().RunAll();
  std::optional<bool> cancelled;
  room.store().CancelCall(room.caller(), room.last_call(), [&](bool found) { cancelled = found; });
  room.executor().RunAll();
  EXPECT_EQ(cancelled, true);
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kCancelled);
  room.RunAll();
  EXPECT_EQ(room.Get(1), GetOutcome::kOk);
}

TEST(LocalTierTest, FlushWritesEverythingThatWasStored) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 50; ++key) {
    room.Put({key});
  }
  ASSERT_TRUE(room.Flush(Level::kLocalSynced).ok());
  room.LosePower(3);
  room.Open();
  room.RunAll();
  for (uint64_t key = 0; key < 50; ++key) {
    EXPECT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
}

TEST(LocalTierTest, AFlushEndsAtItsDeadline) {
  LocalRoom room;
  room.Open();
  room.Put({1});
  std::optional<absl::Status> result;
  room.store().Flush(room.caller().tenant, Level::kLocalWritten,
                     room.clock().Now() + absl::Seconds(1),
                     [&](absl::Status status) { result = std::move(status); });
  room.executor().RunAll();
  EXPECT_FALSE(result.has_value());
  room.Tick(absl::Seconds(2));
  EXPECT_EQ(result->code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(LocalTierTest, WithLocalWritesOnCommitNothingNeedsAFlush) {
  LocalRoom room;
  room.store_options.local_writes = LocalWrites::kOnCommit;
  room.Open();
  for (uint64_t key = 0; key < 20; ++key) {
    room.Put({key});
  }
  room.Settle();
  EXPECT_EQ(room.counters().local_writes, 20U);
  room.Kill();
  room.Open();
  room.RunAll();
  for (uint64_t key = 0; key < 20; ++key) {
    EXPECT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
}

TEST(LocalTierTest, AnOperatorsEvictionWritesFirst) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 40; ++key) {
    room.Put({key});
  }
  const EvictResult result = room.Evict(0);
  EXPECT_EQ(result.blocks, 40U);
  EXPECT_EQ(result.used_bytes, 0U);
  EXPECT_EQ(room.losses(), 0U);
  for (uint64_t key = 0; key < 40; ++key) {
    EXPECT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
}

TEST(LocalTierTest, BlocksOfAnotherSizeAreWrittenBeforeTheirSlabIsCutAnew) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 60; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored);
  }
  for (uint64_t key = 1000; key < 1100; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}, Level::kDram, 300000), 0), PutOutcome::kStored) << key;
  }
  EXPECT_GT(room.counters().slabs_recut, 0U);
  EXPECT_EQ(room.losses(), 0U);
  for (uint64_t key = 0; key < 60; ++key) {
    EXPECT_EQ(room.Get(key), GetOutcome::kOk) << key;
  }
}

// ---------------------------------------------------------------- deletion

TEST(LocalTierTest, ADeletedBlockIsGoneFromBothTiersForGood) {
  LocalRoom room;
  room.Open();
  room.Put({1, 2, 3}, Level::kLocalWritten);
  room.Evict(0);
  const auto deleted = room.Delete({1, 3, 3, 9});
  ASSERT_TRUE(deleted.ok());
  EXPECT_EQ(deleted->deleted, 2U);
  EXPECT_EQ(deleted->not_found, 2U);
  for (int life = 0; life < 3; ++life) {
    EXPECT_EQ(room.Get(1), GetOutcome::kMiss);
    EXPECT_EQ(room.Get(2), GetOutcome::kOk);
    EXPECT_EQ(room.Get(3), GetOutcome::kMiss);
    room.Kill();
    room.Open();
    room.RunAll();
  }
}

TEST(LocalTierTest, ADeleteOvertakesNoWriteThatIsUnderWay) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    LocalRoom room(seed);
    room.Open();
    const auto put = room.StartPut({1}, Level::kLocalWritten);
    room.executor().RunAll();
    for (uint64_t steps = 0; steps < seed % 7; ++steps) {
      room.Step();
    }
    ASSERT_TRUE(room.Delete({1}).ok());
    room.Settle();
    EXPECT_TRUE(put->has_value());
    EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << seed;
    room.Kill();
    room.Open();
    room.RunAll();
    EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << seed;
  }
}

TEST(LocalTierTest, AReadThatIsUnderWayDoesNotBringADeletedBlockBack) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    LocalRoom room(seed);
    room.Open();
    room.Put({1}, Level::kLocalWritten);
    room.Evict(0);
    PrefetchCall call{{room.Part({1})}, Priority::kNormal, absl::Seconds(1000), {}};
    room.store().Prefetch(room.caller(), std::move(call), [](const auto&) {});
    for (uint64_t steps = 0; steps < seed % 11; ++steps) {
      room.Step();
    }
    std::optional<absl::StatusOr<BlockStore::DeleteResult>> deleted;
    room.store().Delete(room.caller(), room.Part({1}), [&](auto r) { deleted = std::move(r); });
    EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << "hidden at once, seed " << seed;
    room.RunUntil([&] { return deleted.has_value(); });
    room.Settle();
    EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << seed;
  }
}

TEST(LocalTierTest, AClearedNamespaceStaysClearedThroughRestarts) {
  LocalRoom room;
  room.Open();
  room.Put({1}, Level::kLocalWritten);
  ASSERT_EQ(*room.Clear(), 2U);
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss);
  room.LosePower(5);
  room.Open();
  room.RunAll();
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss);
  room.Put({2}, Level::kLocalWritten);
  room.Kill();
  room.Open();
  room.RunAll();
  EXPECT_EQ(room.Get(2), GetOutcome::kOk);
  EXPECT_EQ(*room.Clear(), 3U);
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss);
}

TEST(LocalTierTest, ClearsAtOneTimeAreNotedInTheirOrder) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    LocalRoom room(seed);
    room.Open();
    std::vector<uint64_t> generations;
    const Digest128 ns = room.Part({}).namespace_digest;
    for (int i = 0; i < 5; ++i) {
      room.store().ClearNamespace(room.caller().tenant, ns, [&](const auto& cleared) {
        ASSERT_TRUE(cleared.ok());
        generations.push_back(cleared->generation);
      });
    }
    room.RunUntil([&] { return generations.size() == 5; });
    EXPECT_EQ(generations, (std::vector<uint64_t>{2, 3, 4, 5, 6}));
    room.Kill();
    room.Open();
    EXPECT_EQ(*room.Clear(), 7U);
  }
}

TEST(LocalTierTest, AManyKeyedDeletionHidesEveryKeyBeforeItReturns) {
  LocalRoom room;
  room.Open();
  room.Put({1, 2}, Level::kLocalWritten, 1000);
  room.Put({5000}, Level::kDram, 1000);
  std::optional<absl::StatusOr<BlockStore::DeleteResult>> deleted;
  room.store().Delete(room.caller(), room.Part(Keys(0, 6000)),
                      [&](auto r) { deleted = std::move(r); });
  for (const uint64_t key : {1, 2, 5000}) {
    EXPECT_EQ(room.StateOf(key), KeyState::kMiss) << key;
  }
  room.RunUntil([&] { return deleted.has_value(); });
  ASSERT_TRUE(deleted->ok()) << deleted->status();
  EXPECT_EQ((*deleted)->deleted, 3U);
  EXPECT_EQ((*deleted)->not_found, 5997U);
  room.Kill();
  room.Open();
  room.RunAll();
  for (const uint64_t key : {1, 2, 5000}) {
    EXPECT_EQ(room.StateOf(key), KeyState::kMiss) << key;
  }
}

TEST(LocalTierTest, AGenerationThatThisProgramCannotReadIsARefusalToStart) {
  LocalRoom room;
  room.Open();
  const std::string name = room.Part({}).namespace_digest.ToBytes();
  std::optional<WriteOutcome> noted;
  room.tier().PutNote(name, "a later version's", [&](WriteOutcome outcome) { noted = outcome; });
  room.RunUntil([&] { return noted.has_value(); });
  ASSERT_EQ(noted, WriteOutcome::kWritten);
  room.Close();
  EXPECT_EQ(room.TryOpen().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace terrace
