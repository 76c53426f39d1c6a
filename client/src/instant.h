// Time as the library counts it: nanoseconds of CLOCK_MONOTONIC.
#pragma once

#include <cstdint>

#include <time.h>

namespace terrace::client {

using Instant = int64_t;

inline constexpr Instant kNever = INT64_MAX;
inline constexpr int64_t kNsPerUs = 1'000;
inline constexpr int64_t kNsPerMs = 1'000'000;

inline Instant Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Milliseconds until `instant`, rounded up, at least 0 and at most an int.
inline int MillisecondsUntil(Instant instant, Instant now) {
  if (instant <= now) {
    return 0;
  }
  const int64_t ms = (instant - now) / kNsPerMs + ((instant - now) % kNsPerMs == 0 ? 0 : 1);
  return static_cast<int>(ms < INT32_MAX ? ms : INT32_MAX);
}

}  // namespace terrace::client
