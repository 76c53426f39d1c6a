// A daemon of a pool, a session with it, and one set of blocks, which is the same on every node.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/e2e/daemon/started_daemon.h"
#include "tools/bench/block_set.h"

namespace terrace {

inline constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
inline constexpr uint32_t kBlocks = 8;
// Five times the two seconds within which others find what is published; a start of a worker on a
// busy machine comes on top.
inline constexpr absl::Duration kPatience = absl::Seconds(30);

inline bool Eventually(const std::function<bool()>& holds, absl::Duration limit = kPatience) {
  const absl::Time until = absl::Now() + limit;
  while (!holds()) {
    if (absl::Now() > until) {
      return false;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

inline std::string PoolText(const std::string& path, const std::string& local) {
  return absl::StrCat("[local]\nfree_reserve = 0\ncapacity = \"", local, "\"\n",
                      "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"", path,
                      "\"\ncapacity = \"4GiB\"\nfree_reserve = 0\nsegment_size = \"32MiB\"\n");
}

class Node {
 public:
  enum class Local : uint8_t { kSmall, kNone };
  // `protection`: lines of the tier's section.
  explicit Node(const std::string& pool,
                Local local = Local::kSmall,
                const std::string& protection = "") {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start(
        {.dram = "128MiB",
         .more_config = PoolText(pool, local == Local::kSmall ? "1300MiB" : "0B") + protection});
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
    absl::StatusOr<std::unique_ptr<bench::ClientSession>> session =
        bench::ClientSession::Connect(daemon_->runtime_dir());
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    auto set = bench::BlockSet::Create(*session_, {"nodes", 1, 0, kBlocks, kBlockBytes});
    ASSERT_TRUE(set.ok()) << set.status();
    set_ = *std::move(set);
  }
  // A pool that has only just been found may not take blocks yet.
  bool Publish() {
    return Eventually([&] { return set_->Put(0, kBlocks, TERRACE_LEVEL_POOL).ok(); });
  }
  absl::Status PutOne(uint32_t block, terrace_level level) { return set_->Put(block, 1, level); }
  // Blocks that are delivered, each of them right in every byte.
  uint32_t Hits(bench::ClientSession::Pending pending = bench::ClientSession::Pending::kWait) {
    uint32_t hits = 0;
    for (uint32_t i = 0; i < kBlocks; ++i) {
      hits += Hit(i, pending) ? 1 : 0;
    }
    return hits;
  }
  bool Hit(uint32_t i,
           bench::ClientSession::Pending pending = bench::ClientSession::Pending::kWait) {
    absl::StatusOr<bench::Completion> got = session_->GetLease(set_->Chain(i, 1), {}, pending);
    EXPECT_TRUE(got.ok()) << got.status();
    if (!got.ok() || (*got)->outcomes[0] != TERRACE_GET_OK) {
      return false;
    }
    const absl::Span<const char> payload(static_cast<const char*>((*got)->data[0]),
                                         (*got)->payload_bytes[0]);
    EXPECT_EQ(set_->WrongBytes(i, payload), 0U) << "WRONG BYTES in block " << i;
    EXPECT_TRUE(session_->Release((*got)->lease, {}).ok());
    return true;
  }
  [[nodiscard]] std::string KeyOf(uint32_t i) const { return std::string(set_->Key(i)); }
  // From the midst of the block.
  [[nodiscard]] std::string SomeOf(uint32_t i) const {
    return std::string(set_->Place(i).data() + kBlockBytes / 2, 64);
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
  std::unique_ptr<bench::ClientSession> session_;
  std::unique_ptr<bench::BlockSet> set_;
};

}  // namespace terrace
