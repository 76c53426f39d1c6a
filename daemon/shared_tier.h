// A shared tier with everything that it stands on: the files of its mount, threads, the catalogue,
// and what is remembered of the pool in the data folder.
//
// Nothing here touches the mount, and nothing waits for it but Close, until its limit.
//
// Threads: Open, Close and the destructor from one thread, LogChanges from one at a time;
// everything else from any.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/config.h"
#include "daemon/log.h"
#include "tiers/shared/pool_files.h"
#include "tiers/shared/shared_tier.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"

namespace terrace {

class PoolHost {
 public:
  struct Options {
    TierConfig tier;       // of kind shared
    std::string data_dir;  // exists, and is this daemon's alone
    Digest128 node;
    uint64_t max_payload_bytes = 0;
    std::string credentials_dir = {};  // of the service manager; "": there is none
  };
  // What the files are made of; `say` is for the log, from any thread.
  struct FilesOptions {
    std::string name;
    std::string root;
    uint64_t buffer_bytes = 0;
    const Clock* clock = nullptr;
    std::function<void(const std::string& event)> say;
  };
  using MakeFiles =
      std::function<absl::StatusOr<std::unique_ptr<PoolFiles>>(const FilesOptions& options)>;
  // Borrowed objects outlive the host.
  struct Parts {
    const Clock* clock = nullptr;
    Executor* hashing = nullptr;
    Log* log = nullptr;
    MakeFiles make_files;
  };
  // Errors: those of OpenSharedTier, MakeFiles, RememberedPool, ReadSecret, MakePoolSecret and
  // MakeThreadExecutor, naming the tier. An index that cannot be used is none.
  static absl::StatusOr<std::unique_ptr<PoolHost>> Open(const Options& options, const Parts& parts);
  // Does not wait for the mount.
  virtual ~PoolHost() = default;

  virtual SharedTier& tier() = 0;

  // Logs what has changed since the last call: the tier's state, and what is wrong. About once a
  // second.
  virtual void LogChanges() = 0;

  // Publishes what was taken, as far as the mount lets it until then; nobody uses the tier any
  // more. Ticks must go on meanwhile. DEADLINE_EXCEEDED: something is lost.
  virtual absl::Status Close(absl::Duration limit) = 0;
};

}  // namespace terrace
