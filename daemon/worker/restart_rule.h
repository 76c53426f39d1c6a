// When the next worker is started, and whether a pool is given up for a while. Pure: it is told
// what happened and what time it is.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace terrace {

// Thread-compatible.
class RestartRule {
 public:
  RestartRule(absl::Duration first_backoff, absl::Duration max_backoff)
      : first_backoff_(first_backoff), max_backoff_(max_backoff), backoff_(first_backoff) {}

  // A worker lost its place.
  void Failed(absl::Duration now) {
    next_start_ = now + backoff_;
    backoff_ = std::min(2 * backoff_, max_backoff_);
    suspended_ = suspended_ || ++failures_in_a_row_ >= kFailuresToSuspend;
  }
  // As long as a worker that serves says otherwise.
  void Suspend() { suspended_ = true; }
  // A worker is ready and its probe has succeeded.
  void Serves() { suspended_ = false; }
  // A call of somebody succeeded: being ready alone is what a mount that hangs in reads is, too.
  void Works() {
    backoff_ = first_backoff_;
    failures_in_a_row_ = 0;
  }
  // One that was stuck for long is gone: the mount may be back.
  void Stirs(absl::Duration now) {
    next_start_ = std::min(next_start_, now + first_backoff_);
    backoff_ = first_backoff_;
  }

  [[nodiscard]] bool ever_failed() const { return next_start_ != -absl::InfiniteDuration(); }
  [[nodiscard]] absl::Duration next_start() const { return next_start_; }
  [[nodiscard]] bool suspended() const { return suspended_; }

 private:
  static constexpr uint32_t kFailuresToSuspend = 3;

  const absl::Duration first_backoff_;
  const absl::Duration max_backoff_;
  absl::Duration backoff_;
  absl::Duration next_start_ = -absl::InfiniteDuration();
  uint32_t failures_in_a_row_ = 0;
  bool suspended_ = false;
};

}  // namespace terrace
