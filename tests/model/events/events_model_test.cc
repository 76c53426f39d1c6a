// A mirror that hears events alone, against what the store says of every key: blocks are stored,
// read, evicted, deleted, cleared, reclaimed and found again at random, while the watcher leaves,
// comes back, falls behind and begins anew. With every third seed the namespace is private, and its
// engine ends and comes back, in time or not.
//
// TERRACE_MODEL_STEPS sets the steps of each seed, TERRACE_MODEL_SEED the first seed.
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/event_mirror.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/local_room.h"
#include "tests/doubles/shared_pool_double.h"

namespace terrace {
namespace {

using doubles::EventMirror;
using doubles::LocalRoom;
using doubles::Seeded;

constexpr uint64_t kKeys = 1200;
constexpr uint32_t kPayload = 100'000;

class Model {
 public:
  explicit Model(uint64_t seed) : choice_(seed), room_(seed) {
    room_.tier_options.capacity_bytes =
        LeastTierCapacity(room_.tier_options) + 3 * LocalRoom::kSegment;
    if (seed % 2 == 1) {
      shared_ = pool_.Join();
      room_.shared = {shared_.get()};
      // Not all, so that some blocks are lost and some lie in the pool alone.
      room_.store_options.shared = {{.publish = PublishWhen::kOnReuse}};
    }
    if (seed % 3 == 0) {
      record_.labels[std::string(kPrivateLabel)] = "engine";
    }
    Open();
    mirror_.Watch(room_.store(), room_.caller().tenant, true);
  }
  ~Model() { mirror_.Leave(); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  void Step() {
    switch (choice_.Below(16)) {
      case 0:
        static_cast<void>(room_.Delete(Some()));
        break;
      case 1:
        room_.Evict(choice_.Below(4) * (LocalRoom::kDram / 8));
        break;
      case 2:
        ASSERT_TRUE(room_.Flush(Level::kLocalWritten).ok());
        break;
      case 3:
        LeaveAndComeBack();
        break;
      case 4:
        if (choice_.Below(12) == 0) {
          ASSERT_TRUE(room_.Clear().ok());
        }
        break;
      case 5:
        if (choice_.Below(12) == 0) {
          Restart();
        } else if (choice_.Below(3) == 0) {
          RestartEngine();
        }
        break;
      case 6:
      case 7:
      case 8:
        room_.Get(choice_.Below(kKeys), kPayload);
        break;
      case 9:
        if (choice_.Below(4) == 0) {
          mirror_.Watch(room_.store(), room_.caller().tenant, true);
        }
        break;
      case 10:
        room_.Tick(absl::Milliseconds(50));
        break;
      default:
        room_.Put(Some(), Level::kDram, kPayload);
        break;
    }
    for (uint64_t i = choice_.Below(3); i > 0; --i) {
      mirror_.Step();
    }
  }

  // Once nothing moves, each key is where the events say.
  void Check() {
    Drain();
    if (mirror_.gapped()) {
      ++gaps_;
      mirror_.Watch(room_.store(), room_.caller().tenant, true);
      Drain();
      ASSERT_FALSE(mirror_.gapped());
    }
    const Digest128 ns = room_.Part({}).namespace_digest;
    const uint64_t generation = room_.store().OpenNamespace(room_.caller(), record_)->generation;
    size_t held = 0;
    for (uint64_t key = 0; key < kKeys; ++key) {
      const std::string name = LocalRoom::KeyOf(key);
      LowerBlock lower;
      const std::string tier = room_.StateOf(key) == KeyState::kReady                    ? "g2"
                               : room_.tier().Lookup({ns, generation, "", name}, &lower) ? "g3"
                                                                                         : "";
      ASSERT_EQ(mirror_.TierOf(EventMirror::NameOf(ns, name)), tier) << "key " << key;
      held += tier.empty() ? 0 : 1;
    }
    EXPECT_EQ(mirror_.blocks(), held);
  }
  [[nodiscard]] uint64_t reclaimed() { return room_.tier().figures().records_reclaimed; }
  [[nodiscard]] uint64_t gaps() const { return gaps_; }

 private:
  void Open() {
    room_.Open();
    BeginEngine();
  }
  void BeginEngine() {
    room_.Use(record_, room_.store().OpenSession(room_.caller().tenant,
                                                 BlockStore::LeaseRight::kProvenByPidfd));
  }
  // A put of its last moments is under way.
  void RestartEngine() {
    const LocalRoom::PutAnswer last = room_.StartPut(
        Some(), choice_.Below(2) == 0 ? Level::kDram : Level::kLocalWritten, kPayload);
    for (uint64_t i = choice_.Below(6); i > 0; --i) {
      room_.Step();
    }
    room_.store().ProcessGone(room_.caller().session);
    for (uint64_t i = choice_.Below(3); i > 0; --i) {
      choice_.Below(2) == 0 ? room_.Settle() : room_.Tick(absl::Milliseconds(10));
      mirror_.Step();
    }
    BeginEngine();
    room_.RunUntil([&] { return last->has_value(); });
  }
  std::vector<uint64_t> Some() {
    std::vector<uint64_t> keys(choice_.Below(12) + 1);
    std::iota(keys.begin(), keys.end(), choice_.Below(kKeys - keys.size()));
    return keys;
  }
  void Drain() {
    room_.Settle();
    mirror_.Drain([this] { room_.Settle(); });
  }
  void LeaveAndComeBack() {
    if (mirror_.InSnapshot()) {
      return;  // what was told so far is worth nothing without the rest
    }
    mirror_.Leave();
    if (choice_.Below(3) == 0) {
      room_.Tick(absl::Seconds(61));
      room_.Tick(absl::Milliseconds(10));
    }
    for (uint64_t i = choice_.Below(4); i > 0; --i) {
      room_.Put(Some(), Level::kDram, kPayload);
    }
    const bool gapped = mirror_.gapped();
    mirror_.Watch(room_.store(), room_.caller().tenant, gapped);
  }
  void Restart() {
    const bool gapped = mirror_.gapped() || mirror_.InSnapshot();
    mirror_.Leave();
    if (choice_.Below(2) == 0) {
      room_.Close();
    } else {
      room_.Kill();
    }
    Open();
    mirror_.Watch(room_.store(), room_.caller().tenant, gapped);
  }

  Seeded choice_;
  NamespaceRecord record_ = LocalRoom::Record();
  doubles::SharedPoolDouble pool_;
  std::unique_ptr<SharedTier> shared_;
  LocalRoom room_;
  EventMirror mirror_;
  uint64_t gaps_ = 0;
};

TEST(EventsModel, AMirrorThatHearsEventsAloneKnowsWhereEveryBlockIs) {
  const uint64_t first = doubles::FromEnvironment("TERRACE_MODEL_SEED", 1);
  const uint64_t steps = doubles::FromEnvironment("TERRACE_MODEL_STEPS", 300);
  uint64_t reclaimed = 0;
  uint64_t gaps = 0;
  for (uint64_t seed = first; seed < first + 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model model(seed);
    for (uint64_t step = 0; step < steps; ++step) {
      ASSERT_NO_FATAL_FAILURE(model.Step()) << "step " << step;
      if (step % 25 == 24) {
        ASSERT_NO_FATAL_FAILURE(model.Check()) << "step " << step;
      }
      reclaimed = std::max(reclaimed, model.reclaimed());
    }
    gaps += model.gaps();
  }
  EXPECT_GT(reclaimed, 0U);
  EXPECT_GT(gaps, 0U);
}

}  // namespace
}  // namespace terrace
