// The store over a local tier that may be written to only so much: within the budget over any time,
// and what is worth most first.
#include "daemon/store/local_budget.h"

#include <algorithm>
#include <numeric>

#include "tests/doubles/local_room.h"

namespace terrace {
namespace {

using doubles::LocalRoom;
using doubles::OutcomeAt;

constexpr uint64_t kSlotBytes = (uint64_t{1} << 20) + 4096;

uint64_t Judged(LocalRoom& room, Admission admission) {
  return room.store().Usage().local_budget.judged[static_cast<size_t>(admission)];
}

uint64_t DeviceBytes(LocalRoom& room) {
  return room.tier().figures().bytes_written;
}

// One new block a second, of which every fifth has been asked for twice by the time it goes.
void RunTraffic(LocalRoom& room, uint64_t seconds) {
  for (uint64_t second = 0; second < seconds; ++second) {
    ASSERT_EQ(OutcomeAt(room.Put({second}), 0), PutOutcome::kStored);
    for (int i = 0; i < 10; ++i) {
      room.Tick(absl::Milliseconds(100));
      room.RunAll();
    }
    if (second >= 20) {
      const uint64_t again = second - second % 5 - 10;
      static_cast<void>(room.Get(again));
    }
  }
}

uint64_t WrittenWith(uint64_t bytes_per_day, const std::string& policy, uint64_t seconds) {
  LocalRoom room;
  room.store_options.policy = policy;
  room.store_options.local_endurance_per_day = bytes_per_day;
  room.Open();
  RunTraffic(room, seconds);
  EXPECT_EQ(room.losses(), 0U) << "what is declined is not lost by a fault";
  return DeviceBytes(room);
}

TEST(LocalBudgetTest, WithoutOneAllIsWritten) {
  LocalRoom room;
  room.Open();
  RunTraffic(room, 200);
  EXPECT_GE(room.counters().local_writes, 130U);
  const LocalBudgetUsage usage = room.store().Usage().local_budget;
  EXPECT_EQ(usage.bytes_per_day, 0U);
  EXPECT_EQ(std::accumulate(usage.judged.begin(), usage.judged.end(), uint64_t{0}), 0U);
}

void ExpectThatHalfIsKept(const char* policy) {
  constexpr uint64_t kSeconds = 1800;
  const uint64_t all = WrittenWith(0, policy, kSeconds);
  const double half = static_cast<double>(all) / 2;
  const auto per_day = static_cast<uint64_t>(half / kSeconds * 86'400);
  const auto written = static_cast<double>(WrittenWith(per_day, policy, kSeconds));
  EXPECT_LE(written, 1.05 * half);
  EXPECT_GE(written, 0.95 * half);
}

// Tests of their own, because each takes seconds, and minutes under a sanitizer.
TEST(LocalBudgetTest, HalfOfWhatWouldBeWrittenIsKeptWithinAFewPercentUnderLru) {
  ExpectThatHalfIsKept("lru");
}
TEST(LocalBudgetTest, HalfOfWhatWouldBeWrittenIsKeptWithinAFewPercentUnderPhl) {
  ExpectThatHalfIsKept("phl");
}

TEST(LocalBudgetTest, ASlackBudgetDeclinesNothing) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 100 * 86'400 * kSlotBytes;
  room.Open();
  RunTraffic(room, 200);
  EXPECT_GE(room.counters().local_writes, 130U);
  EXPECT_GE(Judged(room, Admission::kSlack), 130U);
  EXPECT_EQ(Judged(room, Admission::kPriced) + Judged(room, Admission::kSpent), 0U);
  EXPECT_EQ(room.store().Usage().local_budget.price_seconds_per_byte, 0);
}

TEST(LocalBudgetTest, WhatIsDeclinedIsGoneAndThatIsNoLoss) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 1;
  room.Open();
  for (uint64_t key = 0; key < 200; ++key) {
    ASSERT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored);
  }
  EXPECT_EQ(room.counters().local_writes, 0U);
  EXPECT_EQ(room.losses(), 0U);
  EXPECT_GE(Judged(room, Admission::kPriced) + Judged(room, Admission::kSpent), 130U);
  EXPECT_EQ(room.StateOf(0), KeyState::kMiss);
  EXPECT_EQ(room.StateOf(199), KeyState::kReady);
}

TEST(LocalBudgetTest, WhatAPutWaitsForIsWrittenAndTakenOff) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 86'400 * kSlotBytes;
  room.Open();
  for (uint64_t key = 0; key < 10; ++key) {
    room.Put({key}, Level::kLocalWritten);
  }
  EXPECT_EQ(room.counters().local_writes, 10U);
  const double before = room.store().Usage().local_budget.saved_up_bytes;
  for (int i = 0; i < 20; ++i) {
    room.Tick(absl::Milliseconds(100));
    room.RunAll();
  }
  EXPECT_LT(room.store().Usage().local_budget.saved_up_bytes, before - 7.0 * kSlotBytes);
}

void PassSeconds(LocalRoom& room, int seconds) {
  for (int i = 0; i < 10 * seconds; ++i) {
    room.Tick(absl::Milliseconds(100));
    room.RunAll();
  }
}

TEST(LocalBudgetTest, WhatIsSavedUpAndWhatIsOwedOutlivesTheDaemon) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 86'400 * kSlotBytes;
  room.Open();
  PassSeconds(room, 241);
  const double saved = room.store().Usage().local_budget.saved_up_bytes;
  EXPECT_GT(saved, 250.0 * kSlotBytes);
  room.Close();
  room.Open();
  EXPECT_NEAR(room.store().Usage().local_budget.saved_up_bytes, saved, 2.0 * kSlotBytes);

  for (uint64_t key = 0; key < 400; ++key) {
    room.Put({key}, Level::kLocalWritten);
  }
  PassSeconds(room, 1);
  const double owed = room.store().Usage().local_budget.saved_up_bytes;
  EXPECT_LT(owed, 0);
  PassSeconds(room, 61);
  const double later = room.store().Usage().local_budget.saved_up_bytes;
  room.Close();
  room.Open();
  EXPECT_LT(room.store().Usage().local_budget.saved_up_bytes, 0);
  EXPECT_NEAR(room.store().Usage().local_budget.saved_up_bytes, later, 62.0 * kSlotBytes);
}

TEST(LocalBudgetTest, ANoteThatSaysNothingIsPassedOver) {
  for (const std::string& value :
       {std::string(), std::string("\x01short"),
        std::string("\x02"
                    "12345678"),
        std::string("\x01\0\0\0\0\0\0\xf8\x7f", 9)}) {  // the last: not a number
    LocalRoom room;
    room.Open();
    room.tier().PutNote(LocalBudget::kNoteName, value, [](WriteOutcome) {});
    room.Settle();
    room.Close();
    room.store_options.local_endurance_per_day = 86'400 * kSlotBytes;
    room.Open();
    EXPECT_NEAR(room.store().Usage().local_budget.saved_up_bytes, 60.0 * kSlotBytes, kSlotBytes);
  }
}

TEST(LocalBudgetTest, WithWritesOnCommitTheBudgetCountsToo) {
  LocalRoom room;
  room.store_options.local_writes = LocalWrites::kOnCommit;
  room.store_options.local_endurance_per_day = 1;
  room.Open();
  for (uint64_t key = 0; key < 100; ++key) {
    room.Put({key});
  }
  room.Settle();
  EXPECT_EQ(room.counters().local_writes, 0U);
}

// Two ranks store the blocks of the same prefixes.
TEST(LocalBudgetTest, RanksOfAPrefixGoDownTogether) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 86'400 * kSlotBytes;
  room.Open();
  Digest128 ranks[2];
  for (uint32_t rank = 0; rank < 2; ++rank) {
    NamespaceRecord record = LocalRoom::Record();
    record.shard_rank = rank;
    record.shard_count = 2;
    ranks[rank] = room.store().OpenNamespace(room.caller().tenant, record)->digest;
  }
  const auto part_of = [&](uint64_t key, uint32_t rank) {
    StorePart part = room.Part({key});
    part.namespace_digest = ranks[rank];
    return part;
  };
  constexpr uint64_t kKeys = 600;
  for (uint64_t key = 0; key < kKeys; ++key) {
    for (uint32_t rank = 0; rank < 2; ++rank) {
      PutCall call;
      call.part = part_of(key, rank);
      call.payload = LocalRoom::PayloadOf(key);
      call.payload_bytes = {LocalRoom::kPayload};
      call.deadline = room.clock().Now() + absl::Seconds(30);
      bool stored = false;
      room.store().Put(room.caller(), std::move(call), [&stored](const auto&) { stored = true; });
      room.RunUntil([&stored] { return stored; });
    }
    room.Tick(absl::Seconds(1));
    room.RunAll();
  }
  room.Settle();
  uint64_t whole = 0;
  uint64_t halves = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    uint32_t held = 0;
    for (uint32_t rank = 0; rank < 2; ++rank) {
      ProbeCall call;
      call.parts = {part_of(key, rank)};
      room.store().Probe(room.caller(), std::move(call),
                         [&held](const ProbeResult& result) { held += result.part_hits[0]; });
    }
    whole += held == 2 ? 1 : 0;
    halves += held == 1 ? 1 : 0;
  }
  EXPECT_GT(whole, kKeys / 4);
  EXPECT_LT(whole, kKeys) << "the budget is for half of them";
  EXPECT_LT(halves, whole / 20);
}

TEST(LocalBudgetTest, AUseMakesABlockBeJudgedAnew) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 1;
  room.Open();
  for (uint64_t key = 0; key < 70; ++key) {
    room.Put({key});
  }
  const auto judged = [&room] {
    const LocalBudgetUsage usage = room.store().Usage().local_budget;
    return std::accumulate(usage.judged.begin(), usage.judged.end(), uint64_t{0});
  };
  const uint64_t before = judged();
  EXPECT_GT(before, 0U);
  room.Evict(room.store().Usage().used_slot_bytes - kSlotBytes);
  EXPECT_LE(judged(), before + 1) << "those that come next have been judged";
  room.Tick(absl::Seconds(5));
  for (uint64_t key = 0; key < 70; ++key) {
    static_cast<void>(room.Get(key));
  }
  room.Evict(0);
  EXPECT_GE(judged(), before + 30);
}

TEST(LocalBudgetTest, AnExplanationSaysWhyABlockStaysInDram) {
  LocalRoom room;
  room.store_options.local_endurance_per_day = 1;
  room.Open();
  for (uint64_t key = 0; key < 70; ++key) {
    room.Put({key});
  }
  bool found = false;
  for (uint64_t key = 0; key < 70; ++key) {
    const absl::StatusOr<Explanation> why = room.store().Explain("a", room.Part({key}));
    ASSERT_TRUE(why.ok());
    found = found || why->text.find("not worth its price on the local tier") != std::string::npos;
  }
  EXPECT_TRUE(found);
}

TEST(LocalBudgetTest, APolicyThatDeclinesStillSendsBlocksDown) {
  LocalRoom room;
  room.store_options.policy = "phl";
  room.Open();
  for (uint64_t key = 0; key < 60; ++key) {
    room.Put({key});
    for (int use = 0; use < 3; ++use) {
      room.Tick(absl::Seconds(1));
      static_cast<void>(room.Get(key));
    }
  }
  for (uint64_t key = 1000; key < 1200; ++key) {
    EXPECT_EQ(OutcomeAt(room.Put({key}), 0), PutOutcome::kStored) << key;
  }
  for (uint64_t key = 1000; key < 1200; ++key) {
    EXPECT_NE(room.StateOf(key), KeyState::kMiss) << key;
  }
}

}  // namespace
}  // namespace terrace
