// Garbage at the sockets of an event publisher: messages of any frames by ZeroMQ, and bytes that
// are not ZeroMQ at all. Whatever comes, a router that behaves is served, and what is no request is
// answered by nothing. TERRACE_FUZZ_SEED repeats a run, TERRACE_FUZZ_ITERATIONS asks for more.
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <zmq.h>

#include "daemon/events/event_publisher.h"
#include "tests/doubles/from_environment.h"
#include "tests/doubles/heap_slab_source.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/router_double.h"
#include "tests/doubles/seeded.h"
#include "tests/doubles/step_executor.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

using doubles::RouterDouble;
using doubles::Seeded;

class ReplayFuzz : public ::testing::Test {
 protected:
  void SetUp() override {
    BlockStoreOptions options;
    options.dram_bytes = uint64_t{64} << 20;
    BlockStore::Parts parts;
    parts.clock = &clock_;
    parts.executor = &executor_;
    parts.slabs = &slabs_;
    store_ = *BlockStore::Create(options, parts);
    EventPublisherOptions events;
    events.tenant = "a";
    events.zmq_endpoint = "ipc://" + folder_.path() + "/events";
    events.zmq_replay_endpoint = "ipc://" + folder_.path() + "/replay";
    auto publisher = EventPublisher::Start(events, {store_.get(), &clock_});
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
  }

  // What a router that behaves gets all the while.
  void Serves() {
    RouterDouble router({publisher_->endpoint(), publisher_->replay_endpoint(), "", 0});
    ASSERT_TRUE(router.CatchUp());
    ASSERT_EQ(router.events().size(), 1U);
    EXPECT_EQ(router.events()[0].type, "AllBlocksCleared");
  }
  // Up to six frames, some of them such as a request has, some longer than a frame may be.
  static void SendFrames(Seeded& random, void* socket) {
    const uint64_t count = random.Below(6) + 1;
    for (uint64_t i = 0; i < count; ++i) {
      std::string frame;
      switch (random.Below(6)) {
        case 0:
        case 1:
          break;
        case 2:
          frame = random.Bytes(8);
          break;
        case 3:
          frame = std::string(8, random.OneIn(2) ? '\0' : '\xff');
          break;
        case 4:
          frame = random.Bytes(random.Below(64));
          break;
        default:
          frame = random.Bytes(random.Below(2048));
          break;
      }
      zmq_send(socket, frame.data(), frame.size(),
               ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0));
    }
  }
  void ByZmq(Seeded& random) {
    constexpr int kTypes[] = {ZMQ_DEALER, ZMQ_DEALER, ZMQ_REQ, ZMQ_SUB, ZMQ_PUB, ZMQ_PAIR};
    void* context = zmq_ctx_new();
    void* socket = zmq_socket(context, kTypes[random.Below(std::size(kTypes))]);
    const int linger = 20;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    if (random.OneIn(4)) {
      const std::string name = random.Bytes(random.Below(20) + 1);
      zmq_setsockopt(socket, ZMQ_ROUTING_ID, name.data(), name.size());
    }
    const bool at_replay = !random.OneIn(4);
    zmq_connect(socket,
                (at_replay ? publisher_->replay_endpoint() : publisher_->endpoint()).c_str());
    for (uint64_t i = random.Below(8); i > 0; --i) {
      SendFrames(random, socket);
    }
    zmq_close(socket);
    zmq_ctx_term(context);
  }
  void ByBytes(Seeded& random) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = folder_.path() + (random.OneIn(3) ? "/events" : "/replay");
    std::memcpy(address.sun_path, path.data(), path.size());
    const Descriptor peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(peer.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      return;  // its backlog is full
    }
    // Of ZMTP 3: the greeting, now and then right, and then anything.
    std::string bytes("\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL", 16);
    bytes.resize(64);
    if (random.OneIn(2)) {
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Next());
    }
    bytes += random.Bytes(random.Below(512));
    static_cast<void>(send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }

  const doubles::PrivateFolder folder_;
  doubles::ManualClock clock_;
  doubles::StepExecutor executor_;
  HeapSlabSource slabs_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<EventPublisher> publisher_;
};

TEST_F(ReplayFuzz, GarbageHoldsUpNobody) {
  const uint64_t seed = doubles::FromEnvironment("TERRACE_FUZZ_SEED", std::random_device()());
  std::printf("TERRACE_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  const uint64_t connections = doubles::FromEnvironment("TERRACE_FUZZ_ITERATIONS", 20'000) / 40;
  Seeded random(seed);
  for (uint64_t i = 0; i < connections; ++i) {
    random.OneIn(3) ? ByBytes(random) : ByZmq(random);
    if (i % 50 == 49) {
      ASSERT_NO_FATAL_FAILURE(Serves()) << i;
    }
  }
  EXPECT_GT(publisher_->figures().bad_requests, 0U);
  EXPECT_EQ(publisher_->figures().batches, 1U);
}

}  // namespace
}  // namespace terrace
