// Time as an injected thing: leases, holds, deadlines and ages are on this clock and never on wall
// time.
#pragma once

#include "absl/time/time.h"

namespace terrace {

// Monotonic time since an arbitrary start; thread-safe. Deadlines are absolute values of Now().
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual absl::Duration Now() const = 0;
};

// CLOCK_BOOTTIME, so that a suspended machine does not extend holds. Immutable, lives for ever.
const Clock& BootClock();

}  // namespace terrace
