// A tier on the simulated disk loses power, or its process, at any step of any life: whatever is
// delivered afterwards is right, nothing that was reported is lost, nothing deleted comes back.
//
// TERRACE_CRASH_SEEDS says how many random histories are run (default: a few hundred). A failure
// names its seed, which TERRACE_CRASH_FIRST_SEED replays.
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/from_environment.h"
#include "tests/doubles/memory_block_index.h"
#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

enum class Ending : uint8_t { kPowerLoss, kKill };

// What has been promised about a block.
struct Promise {
  bool written = false;         // reported, and not asked to be deleted since
  bool written_synced = false;  // and a later Sync was reported
  bool deleted = false;         // reported, and not written again since
  bool deleted_synced = false;
  bool pending = false;    // an operation is under way
  uint64_t operation = 0;  // the last one; what covers an earlier one says nothing of it
};

// Keeps everything that it may, so that reclaim moves records without dropping promised ones.
class KeepPinned final : public ReclaimJudge {
 public:
  explicit KeepPinned(std::set<std::string> keys) : keys_(std::move(keys)) {}
  size_t ChooseVictim(absl::Span<const SegmentView> sealed) override {
    size_t oldest = 0;
    for (size_t i = 0; i < sealed.size(); ++i) {
      oldest = sealed[i].epoch < sealed[oldest].epoch ? i : oldest;
    }
    return oldest;
  }
  bool Keep(const JudgedRecord& record) override {
    return keys_.count(std::string(record.identity.key)) > 0;
  }

 private:
  const std::set<std::string> keys_;
};

class History {
 public:
  // small: the tier is full all the time, and only pinned blocks are promised to stay.
  History(uint64_t seed, bool small, bool indexed)
      : seeded_(seed), small_(small), judge_(PinnedKeys()), room_(seed) {
    room_.options().capacity_bytes = (small ? 7 : 64) * kTestSegmentBytes;
    room_.SetJudge(&judge_);
    if (indexed) {
      room_.SetIndex(&index_);
      index_.DieWhen([this] { return room_.disk().power_is_off(); });
    }
  }

  // Lives in which reclaim found no room for what the judge wanted to keep, or did not ask it
  // because a segment's share was used up (by tombstones, which count in it): nothing is promised
  // then.
  [[nodiscard]] int lives_without_room() const { return lives_without_room_; }

  // One life: opens, checks, works until power is cut after `steps` changes of the disk (-1: until
  // the work is done), and ends. Returns the changes it took.
  int64_t Live(int64_t steps, int operations, Ending ending, uint64_t loss_seed) {
    const int64_t before = room_.disk().changes();
    room_.disk().CutPowerAfter(steps);
    if (room_.TryOpen().ok()) {
      if (seeded_.OneIn(2)) {
        room_.RunAll();
        if (!room_.disk().power_is_off()) {
          Check(false);
        }
      }
      for (int i = 0; i < operations && !room_.disk().power_is_off(); ++i) {
        Operate();
        for (uint64_t step = seeded_.Below(8); step > 0; --step) {
          room_.Step();
        }
      }
      if (steps < 0) {
        room_.RunAll();
      }
    }
    const int64_t took = room_.disk().changes() - before;
    if (room_.is_open() && (room_.tier().figures().rewrites_without_room > 0 ||
                            room_.tier().figures().records_over_share > 0)) {
      ++lives_without_room_;
      for (auto& [number, promise] : promises_) {
        promise.written = false;
        promise.written_synced = false;
      }
    }
    ending == Ending::kKill ? room_.Kill() : room_.LosePower(loss_seed);
    for (auto& [number, promise] : promises_) {
      promise.pending = false;
    }
    kills_only_ = kills_only_ && ending == Ending::kKill;
    Recover(ending);
    return took;
  }

 private:
  static constexpr uint64_t kBlocks = 40;
  static constexpr uint64_t kPinned = 6;

  static TestBlock BlockOf(uint64_t number) {
    return TestBlock(number, static_cast<uint32_t>(1 + number * 997 % 30000));
  }
  static std::set<std::string> PinnedKeys() {
    std::set<std::string> keys;
    for (uint64_t number = 0; number < kPinned; ++number) {
      keys.insert(BlockOf(number).key);
    }
    return keys;
  }
  [[nodiscard]] bool Promised(uint64_t number) const { return !small_ || number < kPinned; }

  void Operate() {
    const uint64_t choice = seeded_.Below(20);
    const uint64_t number = seeded_.Below(kBlocks);
    if (choice < 12) {
      StartWrite(number);
    } else if (choice < 14) {
      StartDelete(number);
    } else if (choice < 16) {
      StartSync();
    } else if (choice < 18) {
      room_.clock().Advance(absl::Milliseconds(100 * (1 + seeded_.Below(8))));
      room_.tier().Tick();
    } else {
      const std::string name = "note" + std::to_string(seeded_.Below(3));
      const uint64_t value = ++last_note_;
      room_.tier().PutNote(name, std::to_string(value), [this, name, value](WriteOutcome outcome) {
        if (outcome == WriteOutcome::kWritten && !room_.disk().power_is_off()) {
          notes_[name] = value;
        }
      });
    }
  }

  void StartWrite(uint64_t number) {
    Promise& promise = promises_[number];
    if (promise.pending) {
      return;
    }
    promise.pending = true;
    promise.operation = ++last_operation_;
    promise.deleted = false;
    promise.deleted_synced = false;
    const TestBlock block = BlockOf(number);
    const std::string payload = block.payload();
    WriteRequest request;
    request.identity = block.identity();
    request.slot = room_.SlotOf(block);
    request.payload_bytes = block.payload_bytes;
    request.checksum = PayloadChecksum({payload.data(), payload.size()});
    request.heat = static_cast<Heat>(number % 3);
    const std::string metadata(number % 4 == 0 ? 5000 : 10, 'm');
    request.metadata = metadata;
    room_.tier().Write(request, [this, number](WriteOutcome outcome, const LowerBlock&) {
      Promise& reported = promises_[number];
      reported.pending = false;
      // A process that lives on without its disk reports nothing that counts.
      if (outcome == WriteOutcome::kWritten && !room_.disk().power_is_off()) {
        reported.written = true;
        reported.written_synced = false;
      }
    });
  }

  void StartDelete(uint64_t number) {
    Promise& promise = promises_[number];
    if (promise.pending) {
      return;
    }
    promise = Promise();
    promise.pending = true;
    promise.operation = ++last_operation_;
    const TestBlock block = BlockOf(number);
    const BlockIdentity identities[] = {block.identity()};
    room_.tier().Delete(identities, [this, number](WriteOutcome outcome, uint32_t) {
      Promise& reported = promises_[number];
      reported.pending = false;
      reported.deleted = outcome == WriteOutcome::kWritten && !room_.disk().power_is_off();
    });
  }

  void StartSync() {
    auto covered = std::make_shared<std::map<uint64_t, Promise>>();
    for (const auto& [number, promise] : promises_) {
      if (!promise.pending && (promise.written || promise.deleted)) {
        (*covered)[number] = promise;
      }
    }
    room_.tier().Sync([this, covered](const absl::Status& status) {
      if (!status.ok() || room_.disk().power_is_off()) {
        return;
      }
      for (const auto& [number, promise] : *covered) {
        Promise& now = promises_[number];
        if (now.operation != promise.operation) {
          continue;
        }
        now.written_synced = now.written_synced || (promise.written && now.written);
        now.deleted_synced = now.deleted_synced || (promise.deleted && now.deleted);
      }
    });
  }

  // Opens undisturbed and compares with what was promised.
  void Recover(Ending ending) {
    const absl::Status opened = room_.TryOpen();
    ASSERT_TRUE(opened.ok()) << opened;
    room_.RunAll();
    ASSERT_EQ(room_.tier().figures().segments_to_recover, 0U);
    Check(ending == Ending::kPowerLoss);
    for (const SegmentTier::Note& note : room_.tier().Notes()) {
      const uint64_t value = std::stoull(note.value);
      EXPECT_LE(value, last_note_);
      // A note that was reported may have been replaced by a later one that was not.
      if (kills_only_) {
        EXPECT_GE(value, notes_[note.name]) << note.name;
      }
    }
    room_.Kill();
  }

  void Check(bool power_was_lost) {
    for (uint64_t number = 0; number < kBlocks; ++number) {
      const TestBlock block = BlockOf(number);
      Promise& promise = promises_[number];
      if (promise.pending) {
        continue;
      }
      if (power_was_lost ? promise.deleted_synced : promise.deleted) {
        EXPECT_FALSE(room_.Holds(block)) << "a deleted block is back: " << number;
      }
      const ReadOutcome outcome = room_.Read(block);
      EXPECT_NE(outcome, ReadOutcome::kFault);
      if (Promised(number) && (power_was_lost ? promise.written_synced : promise.written)) {
        EXPECT_EQ(outcome, ReadOutcome::kVerified) << "a promised block is lost: " << number;
      }
      if (power_was_lost) {
        // What is there now is on the medium; what is not was never promised.
        const bool there = outcome == ReadOutcome::kVerified;
        promise.written = promise.written && there;
        promise.written_synced = promise.written;
        promise.deleted = promise.deleted_synced;
      }
    }
  }

  doubles::Seeded seeded_;
  const bool small_;
  KeepPinned judge_;
  doubles::MemoryBlockIndex index_;
  std::map<uint64_t, Promise> promises_;
  std::map<std::string, uint64_t> notes_;
  uint64_t last_note_ = 0;
  uint64_t last_operation_ = 0;
  bool kills_only_ = true;
  int lives_without_room_ = 0;
  TierRoom room_;  // last: its end still reports to the members above
};

class CrashTest : public testing::TestWithParam<std::tuple<Ending, bool, bool>> {
 protected:
  [[nodiscard]] Ending ending() const { return std::get<0>(GetParam()); }
  [[nodiscard]] bool small() const { return std::get<1>(GetParam()); }
  [[nodiscard]] bool indexed() const { return std::get<2>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(All,
                         CrashTest,
                         testing::Combine(testing::Values(Ending::kPowerLoss, Ending::kKill),
                                          testing::Bool(),
                                          testing::Bool()),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param) == Ending::kKill
                                                  ? "Kill"
                                                  : "PowerLoss") +
                                  (std::get<1>(instance.param) ? "WhileFull" : "") +
                                  (std::get<2>(instance.param) ? "WithIndex" : "");
                         });

TEST_P(CrashTest, AtEveryStepOfALife) {
  int64_t total = 0;
  for (int64_t step = 0; total == 0 || step <= total; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    History history(1, small(), indexed());
    const int64_t first = history.Live(-1, 40, ending(), 1);
    if (total == 0) {
      total = History(2, small(), indexed()).Live(-1, 60, ending(), 1);
      ASSERT_GT(total, 50);
    }
    ASSERT_GT(first, 0);
    history.Live(step, 60, ending(), static_cast<uint64_t>(step) + 7);
    if (HasFailure()) {
      return;
    }
  }
}

TEST_P(CrashTest, InRandomHistoriesOfSeveralLives) {
  uint64_t lives = 0;
  uint64_t without_room = 0;
  const uint64_t first = doubles::FromEnvironment("TERRACE_CRASH_FIRST_SEED", 0);
  const uint64_t end = first + doubles::FromEnvironment("TERRACE_CRASH_SEEDS", 60);
  for (uint64_t seed = first; seed < end; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    doubles::Seeded seeded(seed + 1000);
    History history(seed + 1, small(), indexed());
    for (int life = 0; life < 4; ++life) {
      history.Live(static_cast<int64_t>(seeded.Below(400)), 80, ending(), seeded.Next());
      ++lives;
    }
    without_room += static_cast<uint64_t>(history.lives_without_room());
    if (HasFailure()) {
      return;
    }
  }
  EXPECT_LT(without_room * 20, lives + 20);  // else the promises of this suite would be empty
}

}  // namespace
}  // namespace terrace
