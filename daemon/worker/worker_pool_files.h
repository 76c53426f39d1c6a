// PoolFiles over a worker process: the core's side. Nothing in this process touches the mount, not
// even its path, so that no thread of it can hang there.
//
// A call that passes its deadline costs the worker its place: it is killed, its memory is never
// used again, and another one is started, 0.1 s later and then ever more rarely, at most every
// 30 s. The calls that it was making end too, as UNAVAILABLE; like the one that was late they may
// still happen. A worker that hangs outlives its signal; as long as max_stuck of them do, none is
// started. A worker that dies, that meets faults_in_a_row faults, or whose root is not the folder
// under its path any more, loses its place in the same way.
//
// While nobody serves, calls end at once as UNAVAILABLE; only before the first worker is ready do
// they wait. A worker serves once it has opened the root and asked the file system how much space
// there is. Once a call has changed something, only a root of the same inode number is served: an
// empty folder in the place of a mount that is absent is not written to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/shared/pool_files.h"
#include "tiers/vocab/clock.h"

namespace terrace {

// Calls that wait for a worker, beyond which they are UNAVAILABLE.
inline constexpr uint32_t kMaxWaitingCalls = 4096;

struct WorkerPoolFilesOptions {
  std::string name;  // of the tier: 1 to 32 letters, digits, '.', '-' and '_'
  std::string root;  // an absolute path, for the worker alone
  std::string program = "/proc/self/exe";
  uint64_t buffer_bytes = uint64_t{64} << 20;  // 1 MiB to 16 GiB
  uint32_t max_calls = 32;                     // that a worker makes at a time, 1 to 256
  uint32_t max_stuck = 8;                      // from 1
  uint32_t faults_in_a_row = 8;                // from 1
  absl::Duration start_deadline = absl::Seconds(10);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(30);
};

struct WorkerPoolFilesParts {
  const Clock* clock = nullptr;  // borrowed, outlives the files
  // Nullable: told, on the thread of the files, when a worker serves, and when one loses its place
  // and why; must not block.
  std::function<void(const std::string& event)> say;
};

// Its end does not wait for a worker that hangs. INVALID_ARGUMENT: an option, naming it;
// RESOURCE_EXHAUSTED: no memory or descriptors.
absl::StatusOr<std::unique_ptr<PoolFiles>> MakeWorkerPoolFiles(
    const WorkerPoolFilesOptions& options, const WorkerPoolFilesParts& parts);

}  // namespace terrace
