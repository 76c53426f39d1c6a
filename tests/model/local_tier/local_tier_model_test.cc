// Random calls on a store over two tiers against what may be there, through deaths of the process,
// losses of power and faults of the medium. TERRACE_MODEL_SEEDS asks for more histories,
// TERRACE_MODEL_SEED for one.
//
// What is checked: a get delivers a payload that one put committed and that was not deleted or
// cleared since, or nothing; what was reported written is there after a death, what was reported
// synced after a loss of power too (where the medium is sound); what was deleted or cleared stays
// away; every call ends.
#include <map>
#include <set>

#include "tests/doubles/from_environment.h"
#include "tests/doubles/local_room.h"

namespace terrace {
namespace {

using doubles::FileCall;
using doubles::LocalRoom;
using doubles::Seeded;

constexpr uint64_t kKeys = 150;  // twice as many as fit into DRAM
constexpr uint64_t kCallsALife = 250;

// How a key stands, as far as answers tell.
struct Known {
  std::set<uint64_t> possible;  // versions that a get may deliver
  bool is_written = false;      // one of them outlives the process
  bool is_synced = false;       // and a loss of power
};

class History {
 public:
  History(uint64_t seed, bool is_faulty)
      : room_(seed), random_(seed * 7 + 1), is_faulty_(is_faulty) {
    room_.store_options.local_writes =
        seed % 3 == 0 ? LocalWrites::kOnCommit : LocalWrites::kOnEviction;
  }

  void Run(int lives) {
    for (int life = 0; life < lives && !::testing::Test::HasFatalFailure(); ++life) {
      room_.Open();
      Begin();
      if (random_.OneIn(2)) {
        room_.RunAll();  // else it serves while it recovers
      }
      for (uint64_t i = 0; i < kCallsALife; ++i) {
        Call();
        for (uint64_t steps = random_.Below(40); steps > 0 && room_.Step(); --steps) {
        }
        if (random_.OneIn(4)) {
          room_.Tick(absl::Milliseconds(static_cast<int64_t>(random_.Below(60))));
        }
      }
      End();
    }
  }

 private:
  // What was under way in an earlier life is over, one way or the other.
  void Begin() {
    dying_ = std::make_shared<bool>(false);
    under_way_.clear();
    for (auto& [key, removals] : removals_) {
      removals.pending = 0;
    }
  }
  static uint32_t BytesOf(uint64_t key) { return static_cast<uint32_t>(700000 + key * 1000); }
  static std::string Payload(uint64_t key, uint64_t version) {
    return LocalRoom::PayloadOf(key * 1000003 + version, BytesOf(key));
  }

  void Call() {
    const uint64_t key = random_.Below(kKeys);
    switch (random_.Below(20)) {
      case 0:
        return Delete(key);
      case 1:
        return random_.OneIn(10) ? Clear() : Evict();
      case 2:
        return Prefetch(key);
      case 3:
        return MaybeFault();
      case 4:
      case 5:
      case 6:
      case 7:
      case 8:
        return Get(key);
      default:
        return Put(key);
    }
  }

  void Put(uint64_t key) {
    const uint64_t version = ++last_version_;
    PutCall call;
    call.part = room_.Part({key});
    call.payload = Payload(key, version);
    call.payload_bytes = {BytesOf(key)};
    call.wait_for = static_cast<Level>(2 + random_.Below(3));
    call.deadline = room_.clock().Now() + absl::Seconds(static_cast<int64_t>(random_.Below(20)));
    known_[key].possible.insert(version);
    under_way_[key].insert(version);
    const Removals began = removals_[key];
    room_.store().Put(
        room_.caller(), std::move(call),
        [this, dying = dying_, key, version, began](const absl::StatusOr<PutResult>& result) {
          if (*dying) {
            return;
          }
          ASSERT_TRUE(result.ok());
          under_way_[key].erase(version);
          Known& known = known_[key];
          const auto outcome = static_cast<PutOutcome>(result->outcomes[0]);
          if (outcome != PutOutcome::kStored) {
            known.possible.erase(version);
          }
          // A removal at the same time may be ordered behind it.
          if (began.pending == 0 && removals_[key].begun == began.begun) {
            const auto level = static_cast<Level>(result->levels[0]);
            known.is_written = known.is_written || level >= Level::kLocalWritten;
            known.is_synced = known.is_synced || level >= Level::kLocalSynced;
          }
        });
  }

  void Get(uint64_t key) {
    GetCall call;
    call.parts.push_back(room_.Part({key}));
    call.wait_pending = true;
    call.deadline = room_.clock().Now() + absl::Seconds(static_cast<int64_t>(random_.Below(20)));
    // What was possible at the call or is at its end.
    room_.store().Get(room_.caller(), std::move(call),
                      [this, key, before = known_[key].possible](const auto& result) {
                        CheckGet(key, before, result);
                      });
  }
  void CheckGet(uint64_t key,
                const std::set<uint64_t>& before,
                const absl::StatusOr<GetResult>& result) {
    if (!result.ok() || static_cast<GetOutcome>(result->outcomes[0]) != GetOutcome::kOk) {
      return;
    }
    std::set<uint64_t> possible = known_[key].possible;
    possible.insert(before.begin(), before.end());
    bool found = false;
    for (const uint64_t version : possible) {
      found = found || result->payload == Payload(key, version);
    }
    ASSERT_TRUE(found) << "WRONG BYTES of key " << key << ", " << possible.size() << " possible";
  }

  void Delete(uint64_t key) {
    ++removals_[key].begun;
    ++removals_[key].pending;
    known_[key].is_written = false;
    known_[key].is_synced = false;
    // Versions of puts that are still under way may come behind it.
    room_.store().Delete(room_.caller(), room_.Part({key}),
                         [this, dying = dying_, key, until = last_version_](const auto& result) {
                           if (!*dying) {
                             --removals_[key].pending;
                           }
                           // What a clear hid and did not record may be back, with what was deleted
                           // behind it.
                           if (!*dying && result.ok() && !clear_is_uncertain_) {
                             Forget(key, until);
                           }
                         });
  }
  void Forget(uint64_t key, uint64_t until) {
    std::set<uint64_t>& possible = known_[key].possible;
    // A put that began before the deletion and has not been answered may be ordered behind it.
    possible.erase(possible.begin(), possible.upper_bound(until));
    for (const uint64_t version : under_way_[key]) {
      possible.insert(version);
    }
  }

  void Clear() {
    for (uint64_t key = 0; key < kKeys; ++key) {
      ++removals_[key].begun;
      ++removals_[key].pending;
      known_[key].is_written = false;
      known_[key].is_synced = false;
    }
    room_.store().ClearNamespace(room_.caller().tenant, room_.Part({}).namespace_digest,
                                 [this, dying = dying_, until = last_version_](const auto& result) {
                                   clear_is_uncertain_ = !*dying ? !result.ok() : true;
                                   for (uint64_t key = 0; key < kKeys && !*dying; ++key) {
                                     --removals_[key].pending;
                                     if (result.ok()) {
                                       Forget(key, until);
                                     }
                                   }
                                 });
  }
  void Evict() {
    room_.store().Evict("", random_.Below(LocalRoom::kDram), [](const auto&) {});
  }
  void Prefetch(uint64_t key) {
    PrefetchCall call{{room_.Part({key})},
                      Priority::kNormal,
                      room_.clock().Now() + absl::Seconds(5),
                      absl::ZeroDuration()};
    room_.store().Prefetch(room_.caller(), std::move(call), [](const auto&) {});
  }
  void MaybeFault() {
    if (!is_faulty_) {
      return;
    }
    const FileCall call = doubles::kAllFileCalls[random_.Below(std::size(doubles::kAllFileCalls))];
    room_.faults().Fail(call, 1 + random_.Below(5), absl::DataLossError("the medium failed"),
                        1 + random_.Below(3));
  }

  void End() {
    room_.faults().Heal();
    switch (random_.Below(4)) {
      case 0:
        Check();
        return room_.Close();
      case 1:
        Check();
        *dying_ = true;
        return room_.Kill();
      case 2:
        *dying_ = true;
        room_.Kill();
        break;
      default:
        *dying_ = true;
        room_.LosePower(random_.Next());
        for (auto& [key, known] : known_) {
          known.is_written = known.is_synced;
        }
    }
    room_.Open();
    Begin();
    room_.Settle();
    Check();
    *dying_ = true;
    room_.Kill();
  }

  // Every key, when nothing is under way.
  void Check() {
    room_.Settle();
    for (uint64_t key = 0; key < kKeys; ++key) {
      const Known& known = known_[key];
      const bool is_held = room_.StateOf(key) != KeyState::kMiss;
      if (known.possible.empty()) {
        ASSERT_FALSE(is_held) << "key " << key << " is back";
      }
      if (known.is_written && !is_faulty_) {
        ASSERT_TRUE(is_held) << "key " << key << " was reported written";
      }
      Get(key);
      room_.Settle();
    }
  }

  LocalRoom room_;
  Seeded random_;
  const bool is_faulty_;
  uint64_t last_version_ = 0;
  std::map<uint64_t, Known> known_;
  struct Removals {
    uint64_t begun = 0;
    uint64_t pending = 0;
  };
  std::map<uint64_t, Removals> removals_;  // deletes and clears
  std::map<uint64_t, std::set<uint64_t>> under_way_;
  bool clear_is_uncertain_ = false;
  std::shared_ptr<bool> dying_;
};

void RunHistories(bool is_faulty) {
  const uint64_t one = doubles::FromEnvironment("TERRACE_MODEL_SEED", 0);
  const uint64_t seeds = doubles::FromEnvironment("TERRACE_MODEL_SEEDS", 6);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    if (one != 0 && seed != one) {
      continue;
    }
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    History(seed, is_faulty).Run(2);
    if (::testing::Test::HasFatalFailure()) {
      return;
    }
  }
}

TEST(LocalTierModelTest, NothingWrongIsDeliveredAndNothingReportedIsLost) {
  RunHistories(false);
}

TEST(LocalTierModelTest, AFaultyMediumLosesBlocksAndNeverLies) {
  RunHistories(true);
}

}  // namespace
}  // namespace terrace
