// Regions and staging: the daemon's copies land where the geometry says, and unregistering waits
// for the last of them.
#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Regions : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    OpenConnected();
    ns_ = OpenNamespace();
    ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);  // its digest is known from here on
  }
  struct Staging {
    terrace_region region = 0;
    char* memory = nullptr;
    uint64_t stride = 0;
  };
  Staging MakeStaging(uint64_t block_bytes = kBlockBytes, uint32_t count = 4) {
    Staging staging;
    void* memory = nullptr;
    EXPECT_EQ(terrace_staging_create(client_, block_bytes, count, &staging.region, &memory,
                                     &staging.stride),
              TERRACE_OK)
        << terrace_last_error();
    staging.memory = static_cast<char*>(memory);
    return staging;
  }
  uint64_t SubmitRegionGet(const std::string& keys,
                           terrace_region region,
                           const std::vector<uint32_t>& blocks,
                           uint32_t deadline_ms = 0) {
    terrace_part part = PartOf(ns_, keys);
    part.region = region;
    part.block_indexes = blocks.data();
    const terrace_call call = CallOf(part, deadline_ms);
    const terrace_get_options options = Delivery(TERRACE_DELIVER_REGION);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_get(client_, &call, &options, &id), TERRACE_OK)
        << terrace_last_error();
    return id;
  }
  uint64_t SubmitRegionPut(const std::string& keys,
                           terrace_region region,
                           const std::vector<uint32_t>& blocks,
                           uint32_t deadline_ms = 0) {
    terrace_part part = PartOf(ns_, keys);
    part.region = region;
    part.block_indexes = blocks.data();
    const terrace_call call = CallOf(part, deadline_ms);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_put(client_, &call, nullptr, nullptr, 0, &id), TERRACE_OK)
        << terrace_last_error();
    return id;
  }
  terrace_namespace ns_ = 0;
};

TEST_F(Regions, StagingCarriesBlocksInBothDirections) {
  const Staging staging = MakeStaging();
  EXPECT_EQ(staging.stride, kBlockBytes);
  std::memset(staging.memory, 'A', kBlockBytes);
  std::memset(staging.memory + staging.stride, 'B', kBlockBytes);
  const std::string keys = Keys("k", 2);
  SubmitRegionPut(keys, staging.region, {0, 1});
  const Completed put = Next();
  ASSERT_EQ(put->status, TERRACE_OK) << put->error;
  EXPECT_EQ(put->outcomes[1], TERRACE_PUT_STORED);
  std::memset(staging.memory, 0, 4 * staging.stride);
  SubmitRegionGet(keys, staging.region, {3, 2});
  const Completed get = Next();
  ASSERT_EQ(get->status, TERRACE_OK) << get->error;
  EXPECT_EQ(get->outcomes[0], TERRACE_GET_OK);
  EXPECT_EQ(get->payload_bytes[0], kBlockBytes);
  EXPECT_EQ(get->data[0], nullptr) << "a get into a region hands out no pointers";
  EXPECT_EQ(std::string(staging.memory + 3 * staging.stride, kBlockBytes),
            std::string(kBlockBytes, 'A'));
  EXPECT_EQ(std::string(staging.memory + 2 * staging.stride, kBlockBytes),
            std::string(kBlockBytes, 'B'));
  EXPECT_EQ(std::string(staging.memory, 2 * staging.stride), std::string(2 * staging.stride, '\0'));
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(server_->live_regions(), 0U);
}

TEST_F(Regions, StagingBlocksAreAligned) {
  EXPECT_EQ(MakeStaging(100, 3).stride, 128U);
  const Staging large = MakeStaging(5000, 3);
  EXPECT_EQ(large.stride, 8192U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(large.memory) % 4096, 0U);
  v1::RegisterRegionRequest sent;
  ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  ASSERT_TRUE(sent.ParseFromString(server_->LastMessage(v1::METHOD_REGISTER_REGION)));
  constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;
  const Staging huge = MakeStaging(kHugePageBytes, 2);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(huge.memory) % kHugePageBytes, 0U);
  EXPECT_EQ(sent.geometry().block_count(), 3U);
  EXPECT_EQ(sent.geometry().planes(0).block_stride(), 8192U);
  EXPECT_EQ(sent.geometry().planes(0).segments(0).bytes(), 5000U);
  EXPECT_GE(sent.bytes(), 3U * 8192U);
}

TEST_F(Regions, AGeometryOfPlanesAndSegmentsIsHandedOver) {
  const int fd = ::memfd_create("region", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 1 << 16), 0);
  const terrace_segment first[] = {{0, 100}, {200, 50}};
  const terrace_segment second[] = {{0, 30}};
  const terrace_plane planes[] = {{0, 512, first, 2}, {8192, 64, second, 1}};
  terrace_region_spec spec{};
  spec.struct_bytes = sizeof(spec);
  spec.fd = fd;
  spec.offset = 4096;
  spec.bytes = 32768;
  spec.block_count = 5;
  spec.planes = planes;
  spec.plane_count = 2;
  spec.read_only = 1;
  terrace_region region = 0;
  ASSERT_EQ(terrace_register_region(client_, &spec, &region), TERRACE_OK) << terrace_last_error();
  ::close(fd);  // the library has its own
  ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  v1::RegisterRegionRequest sent;
  ASSERT_TRUE(sent.ParseFromString(server_->LastMessage(v1::METHOD_REGISTER_REGION)));
  EXPECT_EQ(sent.region_id(), region);
  EXPECT_EQ(sent.kind(), v1::REGION_KIND_HOST);
  EXPECT_EQ(sent.offset(), 4096U);
  EXPECT_EQ(sent.bytes(), 32768U);
  EXPECT_TRUE(sent.read_only());
  ASSERT_EQ(sent.geometry().planes_size(), 2);
  EXPECT_EQ(sent.geometry().planes(0).segments(1).offset(), 200U);
  EXPECT_EQ(sent.geometry().planes(1).offset(), 8192U);
  EXPECT_EQ(server_->live_regions(), 1U);
}

TEST_F(Regions, ARefusedRegionRefusesItsCalls) {
  server_->On(v1::METHOD_REGISTER_REGION, [](const ScriptedServer::Exchange& exchange) {
    exchange.Refuse(3, "geometry: overlaps");
  });
  const Staging staging = MakeStaging();
  ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  SubmitRegionPut(Keys("k", 1), staging.region, {0});
  const Completed put = Next();
  EXPECT_EQ(put->status, TERRACE_INVALID_ARGUMENT);
  EXPECT_STREQ(put->error, "geometry: overlaps");
  EXPECT_EQ(server_->Seen(v1::METHOD_PUT), 0U);
}

TEST_F(Regions, UnregisteringWaitsForTheDaemonsWordAndNoLonger) {
  std::vector<ScriptedServer::Exchange> kept;
  std::atomic<int> asked{0};
  server_->On(v1::METHOD_UNREGISTER_REGION, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    ++asked;
  });
  const Staging staging = MakeStaging();
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, 20), TERRACE_DEADLINE_EXCEEDED);
  staging.memory[0] = 'x';  // still there: the daemon may be copying
  const std::string keys = Keys("k", 1);
  terrace_part part = PartOf(ns_, keys);
  const uint32_t block = 0;
  part.region = staging.region;
  part.block_indexes = &block;
  const terrace_call call = CallOf(part);
  EXPECT_EQ(terrace_submit_put(client_, &call, nullptr, nullptr, 0, nullptr),
            TERRACE_INVALID_ARGUMENT)
      << "a region that is going takes no new calls";
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return asked == 1; }));
  server_->Answer(kept[0]);
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, kPatienceMs), TERRACE_NOT_FOUND);
  EXPECT_EQ(asked, 1);
}

TEST_F(Regions, UnregisteringIsAskedAgainWhenRefusedForNow) {
  std::atomic<int> asked{0};
  server_->On(v1::METHOD_UNREGISTER_REGION, [&](const ScriptedServer::Exchange& exchange) {
    if (++asked < 3) {
      exchange.Refuse(8, "later", 1);
    } else {
      server_->Answer(exchange);
    }
  });
  const Staging staging = MakeStaging();
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(asked, 3);
}

TEST_F(Regions, ADeadDaemonTouchesNothing) {
  const Staging staging = MakeStaging();
  server_->On(v1::METHOD_UNREGISTER_REGION,
              [](const ScriptedServer::Exchange& exchange) { exchange.Disconnect(); });
  EXPECT_EQ(terrace_unregister_region(client_, staging.region, kPatienceMs), TERRACE_OK);
  server_->Stop();
  const Staging second = MakeStaging();
  EXPECT_EQ(terrace_staging_destroy(client_, second.region, kPatienceMs), TERRACE_OK);
}

TEST_F(Regions, UnregisteringEndsCallsThatWereNotSent) {
  const Staging staging = MakeStaging();
  server_->On(v1::METHOD_OPEN_NAMESPACE, [](const ScriptedServer::Exchange&) {});
  ns_ = OpenNamespace("never answered");
  SubmitRegionPut(Keys("k", 1), staging.region, {0});
  EXPECT_EQ(terrace_staging_destroy(client_, staging.region, kPatienceMs), TERRACE_OK);
  const Completed put = Next();
  EXPECT_EQ(put->status, TERRACE_CANCELLED);
  EXPECT_EQ(put->outcomes[0], TERRACE_PUT_NONE);
}

TEST_F(Regions, ARegionGetThatExpiresIsCancelledAtTheDaemon) {
  const Staging staging = MakeStaging();
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange&) {});
  std::atomic<uint64_t> cancelled{0};
  server_->On(v1::METHOD_CANCEL, [&](const ScriptedServer::Exchange& exchange) {
    cancelled = exchange.As<v1::CancelRequest>().call_id();
  });
  const uint64_t id = SubmitRegionGet(Keys("k", 1), staging.region, {0}, 20);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  EXPECT_TRUE(ScriptedServer::Eventually([&] { return cancelled == id; }));
}

TEST_F(Regions, ACallIsCancelledByItsId) {
  const Staging staging = MakeStaging();
  std::vector<ScriptedServer::Exchange> gets;
  server_->On(v1::METHOD_GET,
              [&](const ScriptedServer::Exchange& exchange) { gets.push_back(exchange); });
  server_->On(v1::METHOD_CANCEL, [&](const ScriptedServer::Exchange& exchange) {
    v1::CancelReply reply;
    reply.set_found(!gets.empty());
    if (!gets.empty()) {
      v1::GetReply get;
      get.set_outcomes(std::string(1, static_cast<char>(v1::GET_OUTCOME_CANCELLED)));
      gets.back().Reply(get);
      gets.pop_back();
    }
    exchange.Reply(reply);
  });
  const uint64_t id = SubmitRegionGet(Keys("k", 1), staging.region, {0});
  ASSERT_EQ(terrace_submit_cancel(client_, id, 0, 5, nullptr), TERRACE_OK);
  const Completed get = Next();
  EXPECT_EQ(get->call_id, id);
  EXPECT_EQ(get->outcomes[0], TERRACE_GET_CANCELLED);
  const Completed cancel = Next();
  EXPECT_EQ(cancel->verb, TERRACE_VERB_CANCEL);
  EXPECT_EQ(cancel->count, 1U);
  ASSERT_EQ(terrace_submit_cancel(client_, id, 0, 6, nullptr), TERRACE_OK);
  EXPECT_EQ(Next()->count, 0U) << "it has ended";
}

TEST_F(Regions, ACancelOfAnExpiredGetWaitsUntilTheDaemonLetsGo) {
  const Staging staging = MakeStaging();
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange&) {});
  std::vector<ScriptedServer::Exchange> cancels;
  std::atomic<int> asked{0};
  server_->On(v1::METHOD_CANCEL, [&](const ScriptedServer::Exchange& exchange) {
    cancels.push_back(exchange);
    ++asked;
  });
  const uint64_t id = SubmitRegionGet(Keys("k", 1), staging.region, {0}, 20);
  ASSERT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  ASSERT_EQ(terrace_submit_cancel(client_, id, 0, 5, nullptr), TERRACE_OK);
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return asked == 2; })) << "the library's and ours";
  EXPECT_EQ(Peek(), nullptr) << "the daemon may still be copying";
  v1::CancelReply reply;
  reply.set_found(true);
  cancels[0].Reply(reply);
  cancels[1].Reply(reply);
  const Completed cancel = Next();
  EXPECT_EQ(cancel->verb, TERRACE_VERB_CANCEL);
  EXPECT_EQ(cancel->count, 1U);
}

TEST_F(Regions, ACallThatWasNotSentIsCancelledHere) {
  server_->On(v1::METHOD_OPEN_NAMESPACE, [](const ScriptedServer::Exchange&) {});
  const uint64_t id = SubmitProbe(OpenNamespace("never answered"), Keys("k", 1));
  ASSERT_EQ(terrace_submit_cancel(client_, id, 0, 5, nullptr), TERRACE_OK);
  const Completed probe = Next();
  EXPECT_EQ(probe->call_id, id);
  EXPECT_EQ(probe->status, TERRACE_CANCELLED);
  EXPECT_EQ(Next()->count, 1U);
  EXPECT_EQ(server_->Seen(v1::METHOD_CANCEL), 0U);
}

}  // namespace
}  // namespace terrace::testing
