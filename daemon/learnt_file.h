// The file in the data folder by which what policies have learnt outlives the process, and who
// writes it now and then.
//
// Losing it costs hits until everything is learnt again, so nothing that is wrong with it is more
// than a line in the log and a count.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

#include "daemon/learnt_policy.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "tiers/os/file_system.h"

namespace terrace {

inline constexpr absl::Duration kLearntInterval = absl::Minutes(5);

// Thread-safe.
class LearntFile {
 public:
  static constexpr absl::string_view kName = "learnt";

  struct Options {
    FileSystem* files = nullptr;  // outlives this, like the log
    std::string folder;
    std::string policy;  // whose it is; see MakeEvictionPolicy
    Log* log = nullptr;
  };
  explicit LearntFile(Options options) : options_(std::move(options)) {}

  // What is there and sound. Blocks.
  std::vector<LearntPolicy> Read();
  // In place of what was there, durably and all of it or nothing. Blocks.
  void Write(const std::vector<LearntPolicy>& policies);

  [[nodiscard]] LearntFigures figures() const;

 private:
  absl::StatusOr<std::vector<LearntPolicy>> ReadAll();
  absl::Status WriteAll(absl::string_view bytes);
  void Count(uint64_t LearntFigures::*figure);

  const Options options_;
  mutable absl::Mutex mutex_;
  LearntFigures figures_ ABSL_GUARDED_BY(mutex_);
};

// Writes the file once in an interval, and a last time when it is stopped. Has a thread of its own,
// because it waits for lessons and for the drive. Confined to one thread.
class LearntKeeper {
 public:
  LearntKeeper(LearntFile& file,
               std::function<std::vector<LearntPolicy>()> save,
               absl::Duration interval);
  LearntKeeper(const LearntKeeper&) = delete;
  LearntKeeper& operator=(const LearntKeeper&) = delete;
  ~LearntKeeper() { Stop(); }

  void Stop();

 private:
  LearntFile& file_;
  const std::function<std::vector<LearntPolicy>()> save_;
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace terrace
