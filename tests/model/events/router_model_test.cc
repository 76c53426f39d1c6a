// A router that hears KV events by ZeroMQ alone, against what the store says of every key: blocks
// are stored, read, evicted, deleted, cleared, reclaimed and found again at random, in two groups,
// while the router's queue overflows and the publisher begins anew.
//
// TERRACE_MODEL_STEPS sets the steps of each seed, TERRACE_MODEL_SEED the first seed.
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/events/event_publisher.h"
#include "tests/doubles/eventually.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/local_room.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/router_double.h"

namespace terrace {
namespace {

using doubles::LocalRoom;
using doubles::RouterDouble;
using doubles::Seeded;

constexpr uint64_t kKeys = 600;
constexpr uint32_t kPayload = 100'000;

class Model {
 public:
  explicit Model(uint64_t seed) : choice_(seed), room_(seed) {
    room_.tier_options.capacity_bytes =
        LeastTierCapacity(room_.tier_options) + 3 * LocalRoom::kSegment;
    options_.tenant = "a";
    options_.zmq_endpoint = "ipc://" + folder_.path() + "/events";
    options_.zmq_replay_endpoint = "ipc://" + folder_.path() + "/replay";
    options_.format = seed % 2 == 0 ? EventFormat::kMap : EventFormat::kArray;
    options_.high_water_mark = 2;
    options_.buffer_steps = 1'000'000;
    OpenRoom();
    router_ = std::make_unique<RouterDouble>(RouterDouble::Options{
        options_.zmq_endpoint, options_.zmq_replay_endpoint, "", seed % 3 == 0 ? 1 : 0});
  }
  ~Model() { publisher_.reset(); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  void Step() {
    switch (choice_.Below(14)) {
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
        if (choice_.Below(8) == 0) {
          ASSERT_TRUE(room_.Clear().ok());
        }
        break;
      case 4:
        if (choice_.Below(12) == 0) {
          Restart();
        }
        break;
      case 5:
        PutBeside();
        break;
      case 6:
      case 7:
        room_.Get(choice_.Below(kKeys), kPayload);
        break;
      case 8:
        router_->Hear(absl::ZeroDuration());
        break;
      case 9:
        room_.Tick(absl::Milliseconds(500));
        break;
      default:
        room_.Put(Some(), Level::kDram, kPayload);
        break;
    }
  }

  // Once nothing moves, the router knows each key, and nothing else.
  void Check() {
    room_.Settle();
    const RouterDouble::Blocks held = Held();
    const bool knows = doubles::Eventually([&] {
      while (router_->Hear(absl::ZeroDuration())) {
      }
      EXPECT_TRUE(router_->CatchUp());
      room_.Tick(absl::Milliseconds(100));  // what waits for a snapshot's turn, or a tier's list
      room_.RunAll();
      return Agrees(held);
    });
    ASSERT_TRUE(knows) << "router " << router_->blocks().size() << ", held " << held.size();
    EXPECT_EQ(router_->lost(), 0U);
  }
  [[nodiscard]] uint64_t snapshots() const { return snapshots_ + publisher_->figures().snapshots; }

 private:
  static std::string NameOf(uint64_t key) { return doubles::LowBitsOf(LocalRoom::KeyOf(key)); }

  // A block in DRAM may still be said to be on the drive, too.
  bool Agrees(const RouterDouble::Blocks& held) const {
    if (router_->blocks().size() != held.size()) {
      return false;
    }
    for (const auto& [name, media] : held) {
      std::set<std::string> known = router_->MediaOf(name.second, name.first);
      if (media.contains("CPU") && known.contains("CPU")) {
        known.erase("STORAGE");
      }
      if (known != media) {
        return false;
      }
    }
    return true;
  }
  RouterDouble::Blocks Held() {
    RouterDouble::Blocks held;
    const Digest128 first = room_.Part({}).namespace_digest;
    for (const Digest128& ns : {first, second_}) {
      const uint64_t generation = ns == first ? room_.OpenAgain().generation : OpenSecond();
      for (uint64_t key = 0; key < kKeys; ++key) {
        ProbeCall call;
        call.parts = {room_.Part({key})};
        call.parts[0].namespace_digest = ns;
        KeyState state = KeyState::kMiss;
        room_.store().Probe(room_.caller(), std::move(call), [&](const ProbeResult& result) {
          state = static_cast<KeyState>(static_cast<uint8_t>(result.states[0]) & 0xfU);
        });
        LowerBlock lower;
        const bool is_below =
            room_.tier().Lookup({ns, generation, "", LocalRoom::KeyOf(key)}, &lower);
        if (state == KeyState::kReady || is_below) {
          held[{ns == first ? 0 : 1, NameOf(key)}] = {state == KeyState::kReady ? "CPU"
                                                                                : "STORAGE"};
        }
      }
    }
    return held;
  }

  std::vector<uint64_t> Some() {
    std::vector<uint64_t> keys(choice_.Below(12) + 1);
    std::iota(keys.begin(), keys.end(), choice_.Below(kKeys - keys.size()));
    return keys;
  }
  uint64_t OpenSecond() {
    NamespaceRecord record = LocalRoom::Record();
    record.group = 1;
    record.group_kind = "sliding_window";
    const auto opened = room_.store().OpenNamespace(room_.caller().tenant, record);
    EXPECT_TRUE(opened.ok()) << opened.status();
    second_ = opened->digest;
    return opened->generation;
  }
  // Into the other group, under keys that the first has too, now and then with tokens.
  void PutBeside() {
    const std::vector<uint64_t> keys = Some();
    PutCall call;
    call.part = room_.Part(keys);
    call.part.namespace_digest = second_;
    for (const uint64_t key : keys) {
      call.payload += LocalRoom::PayloadOf(key, kPayload);
      call.payload_bytes.push_back(kPayload);
      if (choice_.Below(2) == 0 || !call.metadata.empty()) {
        call.metadata.resize(call.payload_bytes.size());
        call.metadata.back().token_ids.assign(16, static_cast<uint32_t>(key));
      }
    }
    call.metadata.resize(call.metadata.empty() ? 0 : keys.size());
    call.deadline = room_.clock().Now() + absl::Seconds(30);
    call.call_id = next_call_++;
    bool answered = false;
    room_.store().Put(room_.caller(), std::move(call),
                      [&](const auto& /*result*/) { answered = true; });
    room_.RunUntil([&] { return answered; });
  }

  void OpenRoom() {
    room_.Open();
    OpenSecond();
    absl::StatusOr<std::unique_ptr<EventPublisher>> publisher =
        EventPublisher::Start(options_, {&room_.store(), &room_.clock()});
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
  }
  void Restart() {
    snapshots_ += publisher_->figures().snapshots;
    publisher_.reset();
    if (choice_.Below(2) == 0) {
      room_.Close();
    } else {
      room_.Kill();
    }
    OpenRoom();
  }

  Seeded choice_;
  const doubles::PrivateFolder folder_;
  LocalRoom room_;
  EventPublisherOptions options_;
  Digest128 second_;
  uint64_t next_call_ = 1'000'000;
  uint64_t snapshots_ = 0;
  std::unique_ptr<EventPublisher> publisher_;
  std::unique_ptr<RouterDouble> router_;
};

TEST(RouterModel, ARouterThatHearsEventsAloneKnowsWhereEveryBlockIs) {
  const uint64_t first = doubles::FromEnvironment("TERRACE_MODEL_SEED", 1);
  const uint64_t steps = doubles::FromEnvironment("TERRACE_MODEL_STEPS", 200);
  uint64_t snapshots = 0;
  for (uint64_t seed = first; seed < first + 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model model(seed);
    for (uint64_t step = 0; step < steps; ++step) {
      ASSERT_NO_FATAL_FAILURE(model.Step()) << "step " << step;
      if (step % 25 == 24) {
        ASSERT_NO_FATAL_FAILURE(model.Check()) << "step " << step;
      }
    }
    snapshots += model.snapshots();
  }
  EXPECT_GT(snapshots, 4U) << "nothing ever had to be told anew";
}

}  // namespace
}  // namespace terrace
