// A process that stores as fast as it can, as another tenant than the one that is measured.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "tools/bench/child_process.h"

namespace terrace::bench {

inline constexpr const char* kNeighbourVerb = "--be-a-neighbour";

struct Neighbour {
  std::string runtime_dir;  // of the daemon
  gid_t group = 0;          // that the process has, by which a daemon can tell tenants apart
  uint64_t bytes = 0;       // so much is stored, then it ends; 0: it does not
  uint64_t block_bytes = 0;
  uint64_t first = 0;  // number of the first block: others than those of earlier ones
};

// Returns when it has begun to store. begun_file: a path at which it says so. Errors: those of
// ChildProcess::Start; UNAVAILABLE (it ended, or is not there after half a minute); CANCELLED.
absl::StatusOr<ChildProcess> StartNeighbour(const Neighbour& neighbour,
                                            const std::string& begun_file);

// What that process runs; `arguments` are those behind kNeighbourVerb. Its exit status.
int BeNeighbour(int count, char** arguments);

}  // namespace terrace::bench
