// A trace of real requests, split over four daemons of one pool that are killed while they serve:
// no wrong byte, and what one node computed others find. TERRACE_TRACE names another trace than the
// one in its command, TERRACE_FLEET_KILLS asks for more kills.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/e2e/shared_tier/pool_client.h"
#include "tests/e2e/shared_tier/pool_node.h"
#include "tools/trace/request_trace.h"

namespace terrace {
namespace {

constexpr size_t kNodes = 4;

uint64_t NumberOf(const char* variable, uint64_t otherwise) {
  const char* wanted = std::getenv(variable);
  return wanted == nullptr ? otherwise : std::strtoull(wanted, nullptr, 10);
}

struct ReplayNode {
  explicit ReplayNode(const std::string& pool)
      : node(pool, Node::Local::kNone), client(node.daemon().runtime_dir()) {}

  // Gets the prefix that is there and puts the rest, as an engine does that computes it. A call
  // that fails is one of a daemon that has just been killed, and ends the request.
  void Serve(const std::vector<uint64_t>& names) {
    const bench::PayloadSource source(7);
    uint64_t there = 0;
    std::string parent;
    for (size_t at = 0; at < names.size(); at += PoolClient::kMost) {
      const std::string keys = PoolClient::KeysOf(absl::MakeConstSpan(names).subspan(
          at, std::min<size_t>(PoolClient::kMost, names.size() - at)));
      const uint64_t count = keys.size() / PoolClient::kKeyBytes;
      uint64_t delivered = 0;
      if (there == at) {
        const absl::StatusOr<uint32_t> got =
            client.Get(keys, [&source](std::string_view key, absl::Span<const char> payload) {
              EXPECT_EQ(payload.size(), PoolClient::kBytes);
              EXPECT_EQ(source.WrongBytes(key, payload), 0U) << "WRONG BYTES";
            });
        if (!got.ok()) {
          return;
        }
        delivered = *got;
        there += delivered;
      }
      if (delivered < count) {
        const std::string_view rest =
            std::string_view(keys).substr(delivered * PoolClient::kKeyBytes);
        if (delivered > 0) {
          parent = keys.substr((delivered - 1) * PoolClient::kKeyBytes, PoolClient::kKeyBytes);
        }
        if (!client.Put(source, rest, parent, TERRACE_LEVEL_DRAM).ok()) {
          return;
        }
      }
      parent = keys.substr(keys.size() - PoolClient::kKeyBytes);
    }
    hits += there;
  }

  Node node;
  PoolClient client;
  uint64_t hits = 0;
};

TEST(FleetReplay, ATraceOverFourDaemonsThatAreKilledHasNoWrongByte) {
  const char* path = std::getenv("TERRACE_TRACE");
  ASSERT_NE(path, nullptr) << "the command of the test names one";
  const absl::StatusOr<RequestTrace> trace = ReadRequestTrace(path, {});
  ASSERT_TRUE(trace.ok()) << trace.status();
  const doubles::PrivateFolder folder;
  const std::string pool = folder.path() + "/pool";
  std::filesystem::create_directory(pool);
  std::vector<std::unique_ptr<ReplayNode>> nodes;
  for (size_t i = 0; i < kNodes; ++i) {
    nodes.push_back(std::make_unique<ReplayNode>(pool));
    ASSERT_TRUE(nodes.back()->node.Becomes("ready")) << nodes.back()->node.daemon().Log();
  }
  const uint64_t requests = trace->requests.size();
  const uint64_t kills = std::min(NumberOf("TERRACE_FLEET_KILLS", 25), requests);
  doubles::Seeded random(1);
  uint64_t killed = 0;
  uint64_t pool_hits = 0;
  for (uint64_t i = 0; i < requests && !testing::Test::HasFailure(); ++i) {
    ReplayNode& server = *nodes[random.Below(kNodes)];
    const bool kill = (i + 1) * kills / requests > killed;
    std::thread killer;
    if (kill) {
      pool_hits += server.node.Pool().hits();  // which end with the daemon
      killer = std::thread([&server, delay = absl::Microseconds(random.Below(20000))] {
        absl::SleepFor(delay);  // somewhere in the request, or behind it
        server.node.daemon().Kill();
      });
    }
    server.Serve(trace->requests[i].block_ids);
    if (kill) {
      killer.join();
      ++killed;
      ASSERT_TRUE(server.node.daemon().StartAgain().ok()) << server.node.daemon().Log();
      server.client.Connect();
    }
  }
  EXPECT_EQ(killed, kills);
  uint64_t hits = 0;
  for (const std::unique_ptr<ReplayNode>& server : nodes) {
    ASSERT_TRUE(server->node.Becomes("ready")) << server->node.daemon().Log();
    hits += server->hits;
    pool_hits += server->node.Pool().hits();
  }
  RecordProperty("requests", std::to_string(requests));
  RecordProperty("blocks", std::to_string(trace->total_blocks));
  RecordProperty("hits", std::to_string(hits));
  RecordProperty("pool_hits", std::to_string(pool_hits));
  EXPECT_GT(hits, trace->total_blocks / 10);
  EXPECT_GT(pool_hits, 0U) << "nothing came by way of the pool: the test would prove nothing";
}

}  // namespace
}  // namespace terrace
