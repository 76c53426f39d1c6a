// Time that stands still until a test moves it.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/vocab/clock.h"

namespace terrace::doubles {

// Thread-safe. Starts at an arbitrary time that is not zero, so that "zero: none" can be told from
// "now".
class ManualClock final : public Clock {
 public:
  [[nodiscard]] absl::Duration Now() const override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mutex_);
    now_ += by;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Duration now_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1000);
};

}  // namespace terrace::doubles
