// Spreads what many clients would otherwise do at the same time.
#pragma once

#include <cstdint>

namespace terrace::client {

// Thread-compatible.
class Jitter {
 public:
  explicit Jitter(uint64_t seed) : state_(seed | 1) {}

  // Between 80 and 120 percent of it, so that a node's engines don't come back in step.
  int64_t Around(int64_t value) {
    // xorshift64 (Marsaglia 2003)
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return value / 100 * (80 + static_cast<int64_t>(state_ % 41));
  }

 private:
  uint64_t state_;
};

}  // namespace terrace::client
