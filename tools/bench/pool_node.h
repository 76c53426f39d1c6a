// Daemons of the bench's own that share a pool: what the scenarios over shared tiers start and wait
// for. Confined to the main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/block_set.h"
#include "tools/bench/client_session.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/operator_calls.h"

namespace terrace::bench {

struct PoolNodeOptions {
  std::string pool;  // its folder, empty or a pool's
  uint64_t pool_bytes = 0;
  std::string publish;     // when blocks go there, as [[tier]] has it
  std::string protection;  // further lines of the [[tier]]; "": none
  uint64_t dram_bytes = 0;
  uint64_t local_bytes = 0;  // 0: no local tier
};

// A daemon with the pool as tier g4. Errors: as DaemonProcess::Start.
absl::StatusOr<std::unique_ptr<DaemonProcess>> StartPoolNode(const BenchOptions& options,
                                                             const PoolNodeOptions& node);
// Returns when the nearest pool can be read and written. Errors: DEADLINE_EXCEEDED, after a minute.
absl::Status AwaitPoolReady(OperatorCalls& calls);
// Returns when the last block of the set, which another node published, is found. Errors: the same.
absl::Status AwaitVisible(ClientSession& session, const BlockSet& set);

}  // namespace terrace::bench
