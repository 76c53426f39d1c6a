// The local tier with everything that it stands on: for each drive its folder, transfers, index and
// threads. A drive that is not there takes nothing down, and is taken when it comes.
//
// Threads: Open, Close and the destructor from one thread, LogDrives from one at a time; everything
// else from any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/log.h"
#include "tiers/dram/arena.h"
#include "tiers/os/async_io.h"
#include "tiers/segment/tier_set.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"

namespace terrace {

struct LocalDrive {
  std::string folder;        // made if absent, its parent is not
  std::string index_folder;  // likewise
  uint64_t capacity_bytes = 0;
};

class LocalTier {
 public:
  struct Options {
    std::string name = "g3";
    std::vector<LocalDrive> drives;  // at least one
    uint64_t max_payload_bytes = 0;
    uint64_t free_reserve_bytes = 0;
    uint64_t scrub_bytes_per_second = 0;  // 0: no scrubs by itself
  };
  // Borrowed objects outlive the tier. Blocks for as long as OpenTierSet does. Errors: those of its
  // that time does not heal (INVALID_ARGUMENT, FAILED_PRECONDITION). A drive that cannot be opened
  // for now and an index that cannot be used are none: they are logged, and tried again.
  struct Parts {
    const Clock* clock = nullptr;
    Executor* hashing = nullptr;
    Log* log = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<LocalTier>> Open(const Options& options,
                                                         const Parts& parts);
  // Waits for what is in flight.
  virtual ~LocalTier() = default;

  virtual SegmentTier& tier() = 0;
  // Of all rings together.
  [[nodiscard]] virtual IoFacts io_facts() const = 0;

  // Logs which drives went or came since the last call. About once a second.
  virtual void LogDrives() = 0;

  // A source whose slabs transfers know as registered memory, as far as the host lets them. Lives
  // no longer than the tier; its slabs may.
  virtual std::unique_ptr<SlabSource> Registering(std::unique_ptr<SlabSource> source) = 0;

  // Seals what is open, so that the next start finds everything at once; nobody uses the tier any
  // more. DEADLINE_EXCEEDED after `limit`: the next start has more to read.
  virtual absl::Status Close(absl::Duration limit) = 0;
};

}  // namespace terrace
