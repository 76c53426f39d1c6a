// Waiting for what another thread or process is about to bring about, with a limit.
#pragma once

#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace terrace::doubles {

// Whether it holds within the limit: five times what is promised, or long.
inline bool Eventually(const std::function<bool()>& holds,
                       absl::Duration limit = absl::Seconds(60)) {
  const absl::Time end = absl::Now() + limit;
  while (!holds()) {
    if (absl::Now() > end) {
      return holds();
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace terrace::doubles
