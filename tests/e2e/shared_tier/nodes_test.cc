// Daemons of one pool: what one publishes another delivers, and a pool that is not there stops
// nobody.
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/private_folder.h"
#include "tests/e2e/daemon/started_daemon.h"
#include "tools/bench/block_set.h"

namespace terrace {
namespace {

namespace fs = std::filesystem;
using bench::BlockSet;
using bench::ClientSession;
using bench::Completion;

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
constexpr uint32_t kBlocks = 8;
// Five times the two seconds within which others find what is published; a start of a worker on a
// busy machine comes on top.
constexpr absl::Duration kPatience = absl::Seconds(30);

bool Eventually(const std::function<bool()>& holds) {
  const absl::Time until = absl::Now() + kPatience;
  while (!holds()) {
    if (absl::Now() > until) {
      return false;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

std::string PoolText(const std::string& path) {
  return absl::StrCat("[local]\nfree_reserve = 0\ncapacity = \"1300MiB\"\n",
                      "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"", path,
                      "\"\ncapacity = \"4GiB\"\nfree_reserve = 0\nsegment_size = \"32MiB\"\n");
}

// A daemon, a session with it, and one set of blocks, which is the same on every node.
class Node {
 public:
  explicit Node(const std::string& pool) {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon =
        StartedDaemon::Start({.dram = "128MiB", .more_config = PoolText(pool)});
    EXPECT_TRUE(daemon.ok()) << daemon.status();
    if (daemon.ok()) {
      daemon_ = *std::move(daemon);
      Connect();
    }
  }

  StartedDaemon& daemon() { return *daemon_; }
  void Connect() {
    set_.reset();
    session_.reset();
    absl::StatusOr<std::unique_ptr<ClientSession>> session =
        ClientSession::Connect(daemon_->runtime_dir());
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    auto set = BlockSet::Create(*session_, {"nodes", 1, 0, kBlocks, kBlockBytes});
    ASSERT_TRUE(set.ok()) << set.status();
    set_ = *std::move(set);
  }
  absl::Status Put(terrace_level level) { return set_->Put(0, kBlocks, level); }
  // Blocks that are delivered, each of them right in every byte.
  uint32_t Hits() {
    uint32_t hits = 0;
    for (uint32_t i = 0; i < kBlocks; ++i) {
      absl::StatusOr<Completion> got =
          session_->GetLease(set_->Chain(i, 1), {}, ClientSession::Pending::kWait);
      EXPECT_TRUE(got.ok()) << got.status();
      if (!got.ok() || (*got)->outcomes[0] != TERRACE_GET_OK) {
        continue;
      }
      const absl::Span<const char> payload(static_cast<const char*>((*got)->data[0]),
                                           (*got)->payload_bytes[0]);
      EXPECT_EQ(set_->WrongBytes(i, payload), 0U) << "block " << i;
      EXPECT_TRUE(session_->Release((*got)->lease, {}).ok());
      ++hits;
    }
    return hits;
  }
  absl::Status Clear() { return session_->ClearNamespace(set_->Chain(0, 1).ns); }
  v1::PoolStatus Pool() {
    v1::PoolReply reply;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::Admin::NewStub(daemon_->AdminChannel())->Pool(&context, {}, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.pools_size() == 1 ? reply.pools(0) : v1::PoolStatus();
  }
  bool Becomes(const std::string& state) {
    return Eventually([&] { return Pool().state() == state; });
  }

 private:
  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
};

class Nodes : public testing::Test {
 protected:
  Nodes() { fs::create_directory(pool()); }
  [[nodiscard]] std::string pool() const { return folder_.path() + "/pool"; }

  const doubles::PrivateFolder folder_;
};

TEST_F(Nodes, WhatOnePublishesTheOtherDelivers) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  Node b(pool());
  ASSERT_TRUE(b.Becomes("ready")) << b.daemon().Log();
  EXPECT_EQ(b.Hits(), 0U);
  ASSERT_TRUE(a.Put(TERRACE_LEVEL_POOL).ok());
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  EXPECT_GE(b.Pool().hits(), kBlocks);
  EXPECT_TRUE(Eventually([&] { return a.Pool().nodes_size() == 2; }));
  EXPECT_EQ(a.Pool().published(), kBlocks);
  EXPECT_GT(a.Pool().worker().calls(), 0U);

  ASSERT_TRUE(a.Clear().ok());
  EXPECT_EQ(a.Hits(), 0U);
  EXPECT_TRUE(Eventually([&] { return b.Hits() == 0; })) << "cleared on the other";
}

TEST_F(Nodes, ANodeThatWasKilledKnowsItsPoolAndItsPoolKnowsItsBlocks) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready"));
  const std::string uuid = a.Pool().pool_uuid();
  ASSERT_TRUE(a.Put(TERRACE_LEVEL_POOL).ok());
  const std::string node = a.Pool().nodes(0).node();
  a.daemon().Kill();
  Node b(pool());
  EXPECT_TRUE(Eventually([&] { return b.Hits() == kBlocks; })) << b.daemon().Log();
  fs::remove_all(a.daemon().dir() + "/data/local");
  ASSERT_TRUE(a.daemon().StartAgain().ok());
  a.Connect();
  ASSERT_TRUE(a.Becomes("ready"));
  EXPECT_EQ(a.Pool().pool_uuid(), uuid);
  EXPECT_EQ(a.Pool().nodes(0).node(), node);
  EXPECT_TRUE(Eventually([&] { return a.Hits() == kBlocks; })) << a.daemon().Log();
}

TEST_F(Nodes, APoolThatIsNotThereStopsNobody) {
  Node a(pool());
  ASSERT_TRUE(a.Becomes("ready"));
  ASSERT_TRUE(a.Put(TERRACE_LEVEL_POOL).ok());
  ASSERT_EQ(a.daemon().Stop(), 0) << a.daemon().Log();
  fs::rename(pool(), pool() + ".away");
  ASSERT_TRUE(a.daemon().StartAgain().ok()) << a.daemon().Log();
  a.Connect();
  EXPECT_TRUE(Eventually([&] { return a.Hits() == kBlocks; })) << "they lie on the local tier, too";
  EXPECT_NE(a.Pool().state(), "ready");
  EXPECT_FALSE(fs::exists(pool())) << "nothing is made where the mount should be";
  // Another folder in its place is not the pool, and stays as it is.
  fs::create_directory(pool());
  const uint64_t starts = a.Pool().worker().starts();
  EXPECT_TRUE(Eventually([&] {
    return a.Pool().state() == "foreign" || a.Pool().worker().starts() > starts + 1;
  })) << a.daemon().Log();
  EXPECT_TRUE(fs::is_empty(pool()));
  fs::remove(pool());
  fs::rename(pool() + ".away", pool());
  EXPECT_TRUE(a.Becomes("ready")) << a.daemon().Log();
  EXPECT_EQ(a.daemon().Stop(), 0) << a.daemon().Log();
}

}  // namespace
}  // namespace terrace
