// Slabs that say in the log, and to the service manager, how far they are while the arena is made.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "daemon/concat.h"
#include "daemon/log.h"
#include "daemon/service_notify.h"
#include "daemon/settings.h"
#include "tiers/dram/arena.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr absl::Duration kProgressInterval = absl::Seconds(1);

// Thread-safe.
class ReportingSlabSource final : public SlabSource {
 public:
  ReportingSlabSource(std::unique_ptr<SlabSource> source,
                      uint64_t total_bytes,
                      Log& log,
                      const ServiceNotify& notify)
      : source_(std::move(source)), total_bytes_(total_bytes), log_(log), notify_(notify) {}

  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    absl::StatusOr<std::unique_ptr<SlabMemory>> made = source_->Make(bytes);
    if (made.ok() && !started_.load()) {
      Report(made_bytes_.fetch_add(bytes) + bytes);
    }
    return made;
  }

  // Later slabs replace retired ones, which is no progress.
  void Started() { started_.store(true); }

 private:
  void Report(uint64_t made_bytes) {
    const absl::Duration now = BootClock().Now();
    {
      absl::MutexLock lock(&mutex_);
      if (now - last_report_ < kProgressInterval) {
        return;
      }
      last_report_ = now;
    }
    const std::string percent = Concat(made_bytes * 100 / std::max<uint64_t>(total_bytes_, 1), "%");
    log_.Info("preparing memory", {{"done", percent}, {"of", SizeText(total_bytes_)}});
    notify_.Status(Concat("preparing memory: ", percent, " of ", SizeText(total_bytes_)));
    notify_.ExtendStart(absl::Seconds(60));
  }

  const std::unique_ptr<SlabSource> source_;
  const uint64_t total_bytes_;
  Log& log_;
  const ServiceNotify& notify_;
  std::atomic<bool> started_{false};
  std::atomic<uint64_t> made_bytes_{0};
  absl::Mutex mutex_;
  absl::Duration last_report_ ABSL_GUARDED_BY(mutex_) = BootClock().Now();
};

}  // namespace terrace
