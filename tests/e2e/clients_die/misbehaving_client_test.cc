// A client that truncates its region, scribbles during a put, stops reading its socket, or floods:
// contained. The daemon lives, others are undisturbed, nothing stays behind.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "absl/time/clock.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/frame_client.h"
#include "tests/e2e/clients_die/engine.h"
#include "tests/e2e/clients_die/witness.h"
#include "tests/e2e/daemon/started_daemon.h"

namespace terrace {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);
constexpr uint32_t kDeadlineMs = 20'000;
constexpr uint32_t kBlocks = 16;

class MisbehavingClient : public testing::Test {
 protected:
  void SetUp() override {
    StartedDaemon::Options options;
    options.dram = "192MiB";
    options.more_config = "[limits]\nwrite_stall_timeout = \"500ms\"\nreply_backlog = \"4MiB\"\n";
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start(options);
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
    Witness::Options witness;
    witness.runtime_dir = daemon_->runtime_dir();
    witness.name = "witness";
    witness.seed = 11;
    witness.key_count = 200;
    witness_ = std::make_unique<Witness>(witness);
    ASSERT_TRUE(witness_->WaitUntil([](const Witness::Account& a) { return a.hits >= 50; }, kLimit))
        << witness_->account().first_fault;
    boot_id_ = witness_->account().boot_id;
  }

  // The witness goes on, has seen nothing, and the daemon is the same process.
  void ExpectUndisturbed() {
    const uint64_t hits = witness_->account().hits;
    EXPECT_TRUE(witness_->WaitUntil([&](const Witness::Account& a) { return a.hits >= hits + 20; },
                                    kLimit));
    const Witness::Account account = witness_->account();
    EXPECT_EQ(account.wrong_bytes, 0U) << account.first_fault;
    EXPECT_EQ(account.faults, 0U) << account.first_fault;
    EXPECT_EQ(account.reconnects, 0U);
    EXPECT_EQ(account.boot_id, boot_id_);
    EXPECT_TRUE(daemon_->Running()) << daemon_->Log();
  }

  // Status with `sessions` sessions, or nothing within the limit.
  bool SessionsBecome(uint64_t sessions) {
    const absl::Time until = absl::Now() + kLimit;
    while (absl::Now() < until) {
      const absl::StatusOr<v1::StatusReply> status = daemon_->Status();
      if (status.ok() && status->sessions() == sessions) {
        return true;
      }
      absl::SleepFor(absl::Milliseconds(10));  // between two polls
    }
    return false;
  }

  std::unique_ptr<Engine> OpenEngine() {
    std::unique_ptr<Engine> engine =
        Engine::Open(daemon_->runtime_dir(), "misbehaving", kDeadlineMs);
    EXPECT_TRUE(engine != nullptr && engine->WaitConnected(kDeadlineMs));
    return engine;
  }

  absl::StatusOr<std::unique_ptr<doubles::FrameClient>> Connect() {
    return doubles::FrameClient::Connect(daemon_->runtime_dir() + "/session.sock");
  }

  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<Witness> witness_;
  uint64_t boot_id_ = 0;
};

// A region that can be truncated, because nobody can seal what a client owns. Its blocks are full
// of 'x'.
struct OwnRegion {
  Descriptor memory;
  terrace_region region = 0;

  // True when the daemon has mapped it. The library sends a registration and does not wait; the
  // answer to what is sent after it says that it was seen to.
  bool Register(Engine& engine) {
    memory = Descriptor(memfd_create("own-region", MFD_CLOEXEC));
    terrace_region_spec spec{};
    spec.struct_bytes = sizeof(spec);
    spec.fd = memory.get();
    spec.bytes = uint64_t{kBlocks} * kBlockBytes;
    spec.block_count = kBlocks;
    spec.block_bytes = kBlockBytes;
    return memory.valid() && Fill() &&
           terrace_register_region(engine.client(), &spec, &region) == TERRACE_OK &&
           engine.Probe({0}, 0).status == TERRACE_OK;
  }
  [[nodiscard]] bool Fill() const {
    const std::string block(kBlockBytes, 'x');
    for (uint32_t k = 0; k < kBlocks; ++k) {
      if (pwrite(memory.get(), block.data(), block.size(), static_cast<off_t>(k) * kBlockBytes) !=
          static_cast<ssize_t>(block.size())) {
        return false;
      }
    }
    return true;
  }
};

std::vector<uint32_t> Ids(uint32_t first, uint32_t count) {
  std::vector<uint32_t> ids(count);
  for (uint32_t k = 0; k < count; ++k) {
    ids[k] = first + k;
  }
  return ids;
}

TEST_F(MisbehavingClient, ThatTruncatesItsRegionHurtsItselfAlone) {
  uint64_t failed = 0;
  for (uint32_t round = 0; round < 30; ++round) {
    const std::unique_ptr<Engine> engine = OpenEngine();
    OwnRegion own;
    ASSERT_TRUE(own.Register(*engine));
    const std::vector<uint32_t> ids = Ids(10'000 + round * 100, kBlocks);
    // While the daemon copies from it: now and then before the first byte, now and then in the
    // middle.
    std::thread cutter([&] {
      for (uint32_t spin = 0; spin < round * 2000; ++spin) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
      }
      (void)!ftruncate(own.memory.get(), 0);
    });
    const Engine::Reply put = engine->PutFrom(own.region, ids, kBlockBytes);
    cutter.join();
    ASSERT_NE(put.status, Engine::kNever);
    for (size_t k = 0; put.status == TERRACE_OK && k < ids.size(); ++k) {
      if (put.outcomes[k] == TERRACE_PUT_FAILED) {
        EXPECT_EQ(put.reasons[k], TERRACE_REASON_REGION_FAILED);
        ++failed;
      }
    }
    // What was stored is what was there before the cut, never the zeros that replaced it.
    const Engine::Reply lease = engine->Lease(ids);
    ASSERT_EQ(lease.status, TERRACE_OK) << lease.error;
    for (size_t k = 0; k < ids.size(); ++k) {
      if (lease.outcomes[k] == TERRACE_GET_OK) {
        const std::string bytes(static_cast<const char*>(lease.payload[k]), lease.payload_bytes[k]);
        EXPECT_EQ(bytes.find_first_not_of('x'), std::string::npos);
        EXPECT_EQ(bytes.size(), kBlockBytes);
      }
    }
  }
  EXPECT_GT(failed, 0U) << "no cut ever met a copy";
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatReadsIntoATruncatedRegionIsToldSo) {
  const std::unique_ptr<Engine> engine = OpenEngine();
  ASSERT_EQ(engine->Put({1}).status, TERRACE_OK);
  OwnRegion own;
  ASSERT_TRUE(own.Register(*engine));
  ASSERT_EQ(ftruncate(own.memory.get(), 0), 0);
  const Engine::Reply load = engine->LoadInto(own.region, {1});
  ASSERT_EQ(load.status, TERRACE_OK) << load.error;
  EXPECT_EQ(load.outcomes, std::vector<uint8_t>(1, TERRACE_GET_REGION_FAILED));
  EXPECT_EQ(engine->Load({1}).outcomes, std::vector<uint8_t>(1, TERRACE_GET_OK))
      << "its other region works on";
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatScribblesDuringAPutStoresConsistentBytes) {
  const std::unique_ptr<Engine> engine = OpenEngine();
  OwnRegion own;
  ASSERT_TRUE(own.Register(*engine));
  const absl::StatusOr<Mapping> memory =
      Mapping::Map(own.memory.get(), 0, uint64_t{kBlocks} * kBlockBytes, MapAccess::kReadWrite);
  ASSERT_TRUE(memory.ok());
  std::atomic<bool> stop{false};
  std::thread scribbler([&] {
    Dice dice(3);
    while (!stop.load()) {
      const size_t at = dice.Next() % memory->size() & ~size_t{63};
      std::memset(memory->data() + at, static_cast<int>(dice.Below(256)), 64);
    }
  });
  for (uint32_t round = 0; round < 20; ++round) {
    const std::vector<uint32_t> ids = Ids(50'000 + round * 100, kBlocks);
    const Engine::Reply put = engine->PutFrom(own.region, ids, kBlockBytes);
    EXPECT_EQ(put.status, TERRACE_OK) << put.error;
    const Engine::Reply once = engine->Lease(ids);
    const Engine::Reply again = engine->Lease(ids);
    EXPECT_EQ(once.status, TERRACE_OK) << once.error;
    for (size_t k = 0; k < once.outcomes.size(); ++k) {
      EXPECT_NE(once.outcomes[k], TERRACE_GET_CORRUPT) << "the checksum is of what was stored";
      if (once.outcomes[k] == TERRACE_GET_OK && again.outcomes[k] == TERRACE_GET_OK) {
        EXPECT_EQ(std::memcmp(once.payload[k], again.payload[k], kBlockBytes), 0);
      }
    }
    (void)engine->Release({once.lease, again.lease}, {});
  }
  stop = true;
  scribbler.join();
  const std::unique_ptr<v1::Admin::Stub> admin = v1::Admin::NewStub(daemon_->AdminChannel());
  grpc::ClientContext context;
  v1::VerifyReply verified;
  ASSERT_TRUE(admin->Verify(&context, v1::VerifyRequest(), &verified).ok());
  EXPECT_EQ(verified.corrupt(), 0U);
  EXPECT_GT(verified.blocks(), 0U);
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatStopsReadingIsClosed) {
  absl::StatusOr<std::unique_ptr<doubles::FrameClient>> deaf = Connect();
  ASSERT_TRUE(deaf.ok()) << deaf.status();
  ASSERT_TRUE((*deaf)->Hello().ok());
  ASSERT_TRUE(SessionsBecome(2));
  const absl::StatusOr<v1::StatusReply> before = daemon_->Status();
  ASSERT_TRUE(before.ok());
  // Large answers that nobody reads: 16,384 keys a probe. Sending ends when the daemon reads no
  // more and closes.
  v1::ProbeRequest probe;
  v1::Part* part = probe.add_parts();
  part->set_namespace_digest(std::string(16, '\1'));
  part->set_rule(v1::RULE_INDEPENDENT);
  part->set_key_bytes(16);
  part->set_keys(std::string(size_t{16} * 16384, 'k'));
  doubles::ClientFrame frame;
  frame.method = v1::METHOD_PROBE;
  frame.payload = probe.SerializeAsString();
  frame.payload_bytes = static_cast<uint32_t>(frame.payload.size());
  constexpr uint64_t kMany = 20'000;  // 5 GiB of requests, 320 MiB of answers
  uint64_t sent = 0;
  for (frame.call_id = 1'000; sent < kMany; ++frame.call_id, ++sent) {
    if (!(*deaf)->SendBytes(frame.Header() + frame.payload, {}, kLimit)) {
      break;
    }
  }
  EXPECT_LT(sent, kMany) << "the daemon read on and on";
  EXPECT_TRUE(SessionsBecome(1)) << "the session is still there";
  const absl::StatusOr<v1::StatusReply> after = daemon_->Status();
  ASSERT_TRUE(after.ok());
  EXPECT_LT(after->resident_bytes(), before->resident_bytes() + (uint64_t{64} << 20))
      << "its replies were hoarded";
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatSendsNoHelloIsClosed) {
  absl::StatusOr<std::unique_ptr<doubles::FrameClient>> mute = Connect();
  ASSERT_TRUE(mute.ok()) << mute.status();
  EXPECT_TRUE((*mute)->SeesEnd(kLimit));
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatTakesAllConnectionsOfItsUserIsRefusedMore) {
  std::vector<std::unique_ptr<doubles::FrameClient>> flood;
  uint32_t refused = 0;
  for (uint32_t i = 0; i < 100; ++i) {
    absl::StatusOr<std::unique_ptr<doubles::FrameClient>> client = Connect();
    if (client.ok() && (*client)->Hello().ok()) {
      flood.push_back(*std::move(client));
    } else {
      ++refused;
    }
  }
  EXPECT_GE(refused, 100U - 64U) << "64 connections a user";
  EXPECT_GT(flood.size(), 0U);
  flood.clear();
  EXPECT_TRUE(SessionsBecome(1));
  ExpectUndisturbed();
}

TEST_F(MisbehavingClient, ThatFloodsWithCallsIsAnsweredAndOthersGoOn) {
  absl::StatusOr<std::unique_ptr<doubles::FrameClient>> client = Connect();
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->Hello().ok());
  uint64_t answered = 0;
  uint64_t sent = 0;
  doubles::ClientFrame ping;
  ping.method = v1::METHOD_PING;
  for (uint32_t burst = 0; burst < 50; ++burst) {
    std::string bytes;
    for (uint32_t i = 0; i < 1000; ++i) {
      ping.call_id = 1'000 + sent++;
      bytes += ping.Header();
    }
    if (!(*client)->SendBytes(bytes, {}, kLimit)) {
      break;
    }
    for (uint32_t i = 0; i < 1000 && (*client)->Receive(kLimit).has_value(); ++i) {
      ++answered;
    }
  }
  EXPECT_EQ(answered, sent) << "every call has an answer, be it a refusal";
  client->reset();
  EXPECT_TRUE(SessionsBecome(1));
  ExpectUndisturbed();
}

}  // namespace
}  // namespace terrace
