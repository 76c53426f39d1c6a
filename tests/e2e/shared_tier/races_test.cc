// Eight daemons on one folder are given the same keys at once, each with bytes of its own: whoever
// reads gets one writer's whole block, or a miss. TERRACE_RACE_PUTS asks for more puts.
#include <algorithm>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/e2e/shared_tier/pool_client.h"
#include "tests/e2e/shared_tier/pool_node.h"

namespace terrace {
namespace {

constexpr uint64_t kWriters = 8;
constexpr uint32_t kAtOnce = 50;  // keys of one put

uint64_t Puts() {
  const char* wanted = std::getenv("TERRACE_RACE_PUTS");
  return wanted == nullptr ? 4000 : std::strtoull(wanted, nullptr, 10);
}

std::string KeysOfRound(uint64_t round) {
  std::vector<uint64_t> names(kAtOnce);
  std::iota(names.begin(), names.end(), round * kAtOnce);
  return PoolClient::KeysOf(names);
}

// What this writer's blocks hold.
bench::PayloadSource BytesOf(uint64_t writer) {
  return bench::PayloadSource(1000 + writer);
}

struct Racer {
  explicit Racer(const std::string& pool)
      : node(pool, Node::Local::kNone), client(node.daemon().runtime_dir()) {}

  // Blocks that are delivered; each has to be one writer's.
  uint32_t Get(uint64_t round) {
    const auto delivered = client.Get(KeysOfRound(round), [](auto key, auto payload) {
      EXPECT_EQ(payload.size(), PoolClient::kBytes);
      bool whole = false;
      for (uint64_t writer = 0; writer < kWriters; ++writer) {
        whole = whole || BytesOf(writer).WrongBytes(key, payload) == 0;
      }
      EXPECT_TRUE(whole) << "WRONG BYTES";
    });
    EXPECT_TRUE(delivered.ok()) << delivered.status();
    return delivered.value_or(0);
  }

  Node node;
  PoolClient client;
};

TEST(Races, OfTheSameKeysOnEightDaemonsAReaderGetsOneWritersWholeBlocks) {
  const doubles::PrivateFolder folder;
  const std::string pool = folder.path() + "/pool";
  std::filesystem::create_directory(pool);
  std::vector<std::unique_ptr<Racer>> writers;
  for (uint64_t i = 0; i < kWriters; ++i) {
    writers.push_back(std::make_unique<Racer>(pool));
  }
  Racer reader(pool);  // has put nothing, so all comes from the pool
  for (const std::unique_ptr<Racer>& writer : writers) {
    ASSERT_TRUE(writer->node.Becomes("ready")) << writer->node.daemon().Log();
  }
  ASSERT_TRUE(reader.node.Becomes("ready")) << reader.node.daemon().Log();

  const uint64_t rounds = std::max<uint64_t>(Puts() / kWriters / kAtOnce, 1);
  std::vector<uint64_t> published(kWriters, 0);
  std::barrier together(kWriters);
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      for (uint64_t round = 0; round < rounds; ++round) {
        together.arrive_and_wait();
        const absl::StatusOr<uint32_t> put = writers[writer]->client.Put(
            BytesOf(writer), KeysOfRound(round), "", TERRACE_LEVEL_POOL);
        EXPECT_TRUE(put.ok()) << put.status();
        published[writer] += put.value_or(0);
        writers[writer]->Get(round);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    EXPECT_EQ(published[writer], rounds * kAtOnce) << writers[writer]->node.daemon().Log();
  }
  for (uint64_t round = 0; round < rounds; ++round) {
    EXPECT_TRUE(Eventually([&] { return reader.Get(round) == kAtOnce; })) << round;
  }
  EXPECT_GE(reader.node.Pool().hits(), rounds * kAtOnce);
}

}  // namespace
}  // namespace terrace
