#include "tools/bench/pool_node.h"

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"

namespace terrace::bench {
namespace {

constexpr std::chrono::seconds kPatience{60};

}  // namespace

absl::StatusOr<std::unique_ptr<DaemonProcess>> StartPoolNode(const BenchOptions& options,
                                                             const PoolNodeOptions& node) {
  const std::string tier = absl::StrCat("[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"",
                                        node.pool, "\"\ncapacity = \"", node.pool_bytes,
                                        "B\"\npublish = \"", node.publish, "\"\n", node.protection);
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = DaemonProcess::Prepare(
      options, node.dram_bytes, node.local_bytes,
      {"metrics.listen=off", absl::StrCat("local.max_block=", kOwnLocalMaxBlock, "B")}, tier);
  if (!daemon.ok()) {
    return daemon;
  }
  if (absl::Status status = (*daemon)->StartAgain(); !status.ok()) {
    return status;
  }
  return daemon;
}

absl::Status AwaitPoolReady(OperatorCalls& calls) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < until) {
    const absl::StatusOr<OperatorCalls::PoolState> pool = calls.Pool();
    if (!pool.ok() || pool->state == "ready") {
      return pool.status();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::DeadlineExceededError("the pool is not ready after a minute");
}

absl::Status AwaitVisible(ClientSession& session, const BlockSet& set) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < until) {
    absl::StatusOr<Completion> probed =
        session.Probe(set.Chain(set.count() - 1, 1), std::chrono::milliseconds(0));
    if (!probed.ok()) {
      return probed.status();
    }
    if ((static_cast<uint8_t>((*probed)->states[0]) & 0xfU) != TERRACE_KEY_MISS) {
      return absl::OkStatus();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return absl::DeadlineExceededError("what was published is not seen after a minute");
}

}  // namespace terrace::bench
