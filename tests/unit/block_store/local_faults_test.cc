// Faults of the local tier, as the store answers for them; and how generations are noted there.
#include "daemon/store/generation_format.h"
#include "tests/doubles/local_room.h"

namespace terrace {
namespace {

using doubles::LevelAt;
using doubles::LocalRoom;
using doubles::OutcomeAt;
using doubles::ReasonAt;

constexpr uint64_t kForever = uint64_t{1} << 40;

TEST(LocalFaultsTest, AClearThatCannotBeRecordedSaysSoAndIsRecordedWhenTheMediumIsBack) {
  LocalRoom room;
  room.Open();
  room.Put({1}, Level::kLocalWritten);
  room.faults().Fail(doubles::FileCall::kSync, 1, absl::DataLossError("failed"), kForever);
  EXPECT_EQ(room.Clear().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << "cleared here";
  room.faults().Heal();
  for (int i = 0; i < 40; ++i) {
    room.Tick(absl::Milliseconds(500));
    room.RunAll();
  }
  room.Put({2}, Level::kLocalSynced);
  room.LosePower(7);
  room.Open();
  room.RunAll();
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss);
  EXPECT_EQ(room.Get(2), GetOutcome::kOk);
  EXPECT_EQ(*room.Clear(), 3U);
}

TEST(LocalFaultsTest, ADeletionThatCannotBeRecordedSaysSo) {
  LocalRoom room;
  room.Open();
  room.Put({1}, Level::kLocalWritten);
  room.faults().Fail(doubles::FileCall::kSync, 1, absl::DataLossError("failed"), kForever);
  EXPECT_EQ(room.Delete({1}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss);
  room.faults().Heal();
  room.Tick(absl::Seconds(30));
  room.Settle();
  EXPECT_TRUE(room.Delete({1}).ok());
  room.LosePower(3);
  room.Open();
  room.RunAll();
  EXPECT_EQ(room.StateOf(1), KeyState::kMiss);
}

// A room that has been opened without its drive, on which a cleared and a later block lie.
void OpenWithoutItsDrive(LocalRoom& room) {
  room.Open();
  room.Put({1}, Level::kLocalWritten);
  ASSERT_EQ(*room.Clear(), 2U);
  room.Put({2, 3}, Level::kLocalWritten);
  room.Close();
  for (const doubles::FileCall call : doubles::kAllFileCalls) {
    room.faults().Fail(call, 1, absl::UnavailableError("not there"), kForever);
  }
  room.Open();
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss);
}

void LetItsDriveCome(LocalRoom& room) {
  room.faults().Heal();
  for (int i = 0; i < 20; ++i) {
    room.Tick(absl::Milliseconds(500));
    room.RunAll();
    EXPECT_EQ(room.StateOf(1), KeyState::kMiss) << "cleared in an earlier life";
  }
  ASSERT_TRUE(room.tier().Drives()[0].open) << room.tier().Drives()[0].problem;
}

TEST(LocalFaultsTest, StartsWithoutItsDriveAndTakesItWithWhatWasNotedThere) {
  LocalRoom room;
  OpenWithoutItsDrive(room);
  room.Put({4});
  LetItsDriveCome(room);
  EXPECT_EQ(room.Get(2), GetOutcome::kOk);
  EXPECT_EQ(room.StateOf(4), KeyState::kMiss) << "stored under a generation that had been cleared";
  EXPECT_EQ(*room.Clear(), 3U);
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss);
}

TEST(LocalFaultsTest, WhatIsClearedBeforeTheDriveComesIsClearedOnIt) {
  LocalRoom room;
  OpenWithoutItsDrive(room);
  EXPECT_EQ(room.Clear().status().code(), absl::StatusCode::kUnavailable);
  LetItsDriveCome(room);
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss);
  room.Tick(absl::Seconds(2));
  room.RunAll();
  room.Close();
  room.Open();
  room.RunAll();
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss) << "durable by now";
  EXPECT_EQ(*room.Clear(), 4U);
}

TEST(LocalFaultsTest, WhatIsDeletedBeforeTheDriveComesDoesNotComeWithIt) {
  LocalRoom room;
  OpenWithoutItsDrive(room);
  EXPECT_EQ(room.Delete({2}).status().code(), absl::StatusCode::kUnavailable);
  LetItsDriveCome(room);
  EXPECT_EQ(room.StateOf(2), KeyState::kMiss);
}

TEST(LocalFaultsTest, AFullDiskCostsBlocksAndNeverAPut) {
  LocalRoom room;
  room.disk().SetCapacity(5 * LocalRoom::kSegment);
  room.Open();
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored) << key;
  }
  for (uint64_t key = 0; key < 200; ++key) {
    const GetOutcome outcome = room.Get(key);
    EXPECT_TRUE(outcome == GetOutcome::kOk || outcome == GetOutcome::kMiss) << key;
  }
  EXPECT_EQ(room.Get(199), GetOutcome::kOk);
  room.disk().SetCapacity(UINT64_MAX);
  room.Tick(absl::Seconds(30));
  room.Settle();
  EXPECT_EQ(LevelAt(room.Put({777}, Level::kLocalWritten), 0), Level::kLocalWritten);
}

TEST(LocalFaultsTest, AMediumThatFailsIsNotWaitedFor) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 60; ++key) {
    room.Put({key});
  }
  room.faults().Fail(doubles::FileCall::kWrite, 1, absl::DataLossError("failed"), kForever);
  room.faults().Fail(doubles::FileCall::kOpen, 1, absl::DataLossError("failed"), kForever);
  for (uint64_t key = 60; key < 160; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored) << key;
  }
  EXPECT_GT(room.losses(), 0U);
  const PutResult refused = room.Put({500}, Level::kLocalWritten);
  EXPECT_EQ(OutcomeAt(refused, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(refused, 0), Level::kDram);
  EXPECT_EQ(ReasonAt(refused, 0), Reason::kTierFault);
  EXPECT_FALSE(room.Flush(Level::kLocalWritten).ok());
  room.faults().Heal();
  room.Tick(absl::Seconds(30));
  room.Settle();
  EXPECT_EQ(LevelAt(room.Put({777}, Level::kLocalWritten), 0), Level::kLocalWritten);
}

TEST(LocalFaultsTest, WhatLiesOnADriveWhoseReadsAreSuspendedIsEvictedWithoutWaiting) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 60; ++key) {
    room.Put({key}, Level::kLocalWritten);
  }
  room.Put({500}, Level::kLocalWritten);
  room.Evict(0);
  for (uint64_t key = 0; key < 50; ++key) {
    ASSERT_EQ(room.Get(key), GetOutcome::kOk);
  }
  room.faults().Fail(doubles::FileCall::kRead, 1, absl::DataLossError("failed"), kForever);
  while (!room.tier().figures().reads_suspended) {
    ASSERT_EQ(room.Get(500), GetOutcome::kMiss);
  }
  const StoreCounters before = room.counters();
  for (uint64_t key = 1000; key < 1040; ++key) {
    const auto answer = room.StartPut({key});
    for (int steps = 0; steps < 1000 && !answer->has_value(); ++steps) {
      room.Step();  // no time passes
    }
    ASSERT_TRUE(answer->has_value()) << key;
  }
  EXPECT_GT(room.counters().evictions, before.evictions);
  EXPECT_EQ(room.losses(), 0U) << "it lies there, and can be read when the drive is back";
  room.faults().Heal();
  room.Tick(absl::Seconds(11));
  room.Settle();
  EXPECT_EQ(room.Get(500), GetOutcome::kOk);
}

TEST(LocalFaultsTest, ATierThatDoesNotAnswerDelaysAPutByTheConfiguredTimeAndNoMore) {
  LocalRoom room;
  room.Open();
  uint64_t key = 0;
  for (; room.counters().room_waits == 0; ++key) {
    const auto answer = room.StartPut({key});
    room.executor().RunAll();
    if (!answer->has_value()) {
      // Full, and the first victim is not written: nothing moves but time.
      room.Tick(absl::Milliseconds(50));
      room.executor().RunAll();
      EXPECT_FALSE(answer->has_value());
      room.Tick(absl::Milliseconds(60));
      room.executor().RunAll();
      ASSERT_TRUE(answer->has_value());
      EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kStored);
    }
    ASSERT_LT(key, 100U);
  }
  EXPECT_EQ(room.losses(), 1U);
}

TEST(LocalFaultsTest, PutsWhoseTimeIsOverTakeNoBlockWhoseWriteHasJustBegun) {
  // A tier that is slow, so that puts give up, and look for a victim while writes begin and end.
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    LocalRoom room(seed);
    doubles::Seeded pace(seed);
    room.Open();
    std::vector<LocalRoom::PutAnswer> answers;
    for (uint64_t key = 0; key < 500; ++key) {
      answers.push_back(room.StartPut({key}, Level::kDram, 300000));
      room.executor().RunAll();
      for (uint64_t steps = pace.Below(4); steps > 0; --steps) {
        room.Step();
      }
      room.Tick(absl::Milliseconds(pace.Below(60)));
    }
    const auto has_answer = [](const LocalRoom::PutAnswer& answer) { return answer->has_value(); };
    room.RunUntil([&] { return std::all_of(answers.begin(), answers.end(), has_answer); });
    for (uint64_t key = 0; key < answers.size(); ++key) {
      ASSERT_TRUE((*answers[key])->ok()) << key;
      EXPECT_EQ(OutcomeAt(***answers[key], 0), PutOutcome::kStored) << key;
    }
    EXPECT_GT(room.losses(), 0U) << "none gave up";
  }
}

TEST(LocalFaultsTest, AnEvictionOfAllDramDoesNotLockAllOfItAtOnce) {
  LocalRoom room;
  room.Open();
  for (uint64_t key = 0; key < 150; ++key) {
    room.Put({key}, Level::kDram, 300000);
  }
  ASSERT_EQ(room.losses(), 0U);
  std::optional<absl::StatusOr<EvictResult>> result;
  room.store().Evict("", 0, [&](auto r) { result = std::move(r); });
  room.executor().RunAll();
  EXPECT_FALSE(result.has_value());
  EXPECT_LE(room.store().Usage().local_writes_in_flight, 64U);
  room.RunUntil([&] { return result.has_value(); });
  EXPECT_EQ((*result)->used_bytes, 0U);
  EXPECT_EQ(room.losses(), 0U);
  for (uint64_t key = 0; key < 150; ++key) {
    ASSERT_EQ(room.Get(key, 300000), GetOutcome::kOk) << key;
  }
}

TEST(LocalFaultsTest, ABlockIsCountedAsLostOnceAndOnlyWhenItGoes) {
  LocalRoom room;
  room.store_options.local_max_payload_bytes = 300000;
  room.Open();
  // Of one slot size, and every second one too large for the tier.
  constexpr uint64_t kBlocks = 150;
  for (uint64_t key = 0; key < kBlocks; ++key) {
    const uint32_t bytes = key % 2 == 0 ? 299500 : 302000;
    ASSERT_EQ(OutcomeAt(room.Put({key}, Level::kDram, bytes), 0), PutOutcome::kStored);
  }
  ASSERT_EQ(room.counters().evictions, 0U);
  // Their slab is cut anew, once those that can be are written.
  ASSERT_EQ(OutcomeAt(room.Put({1000}, Level::kDram, 800000), 0), PutOutcome::kStored);
  EXPECT_GT(room.counters().room_waits, 0U);
  EXPECT_EQ(room.counters().evictions, kBlocks);
  EXPECT_EQ(room.counters().local_losses[0], kBlocks / 2);
  EXPECT_EQ(room.losses(), kBlocks / 2);
}

TEST(LocalFaultsTest, BlocksTooLargeForTheLocalTierStayInDramAlone) {
  LocalRoom room;
  room.store_options.local_max_payload_bytes = 500000;
  room.Open();
  const PutResult result = room.Put({1}, Level::kLocalWritten);
  EXPECT_EQ(OutcomeAt(result, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(result, 0), Level::kDram);
  EXPECT_EQ(ReasonAt(result, 0), Reason::kAdmission);
  EXPECT_EQ(LevelAt(room.Put({2}, Level::kLocalWritten, 400000), 0), Level::kLocalWritten);
}

TEST(LocalFaultsTest, ABlockThatRottedOnTheMediumIsAMissAndNeverDelivered) {
  LocalRoom room;
  room.Open();
  room.Put({1}, Level::kLocalWritten);
  room.Evict(0);
  ASSERT_EQ(room.StateOf(1), KeyState::kLower);
  for (const std::string& name : room.disk().Names("/local")) {
    if (name.rfind("segment-", 0) == 0) {
      for (uint64_t at = 8192; at < LocalRoom::kPayload; at += 65536) {
        const std::string was = room.disk().Read("/local", name, at, 1);
        room.disk().Overwrite("/local", name, at, std::string(1, static_cast<char>(was[0] ^ 1)));
      }
    }
  }
  EXPECT_EQ(room.Get(1), GetOutcome::kCorrupt);
  EXPECT_EQ(room.Get(1), GetOutcome::kMiss);
}

TEST(GenerationFormatTest, BytesAreAsTheGrammarSays) {
  EXPECT_EQ(EncodeGeneration(0x1122334455667788U),
            std::string("\x01\x88\x77\x66\x55\x44\x33\x22\x11", 9));
  EXPECT_EQ(DecodeGeneration(EncodeGeneration(0x1122334455667788U)), 0x1122334455667788U);
}

TEST(GenerationFormatTest, AnythingElseIsRefused) {
  const std::string good = EncodeGeneration(2);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(DecodeGeneration(good.substr(0, length)), std::nullopt) << length;
  }
  EXPECT_EQ(DecodeGeneration(good + "x"), std::nullopt);
  EXPECT_EQ(DecodeGeneration("\x02" + good.substr(1)), std::nullopt);
  EXPECT_EQ(DecodeGeneration(EncodeGeneration(1)), std::nullopt);
}

}  // namespace
}  // namespace terrace
