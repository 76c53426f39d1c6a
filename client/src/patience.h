// Whether a wait is worth polling for before the thread sleeps.
//
// An answer often comes sooner than a sleeping thread is back on its core: waking an idle core
// costs 5 to 60 us, most of all on virtual machines. So a wait polls for a short time first. Where
// answers take longer than that, polling is wasted: after each wait that outlasts it the next ones
// sleep at once, twice as many every time, at most kMostSkipped; one that pays sets that back.
// Where another thread wants the core, a poller loses it for a time slice, of milliseconds, while a
// sleeper would get it back at once: then nobody polls for kContendedNs.
//
// Pure; confined to the client's lock.
#pragma once

#include <algorithm>
#include <cstdint>

namespace terrace::client {

class Patience {
 public:
  static constexpr uint32_t kMostSkipped = 64;

  static constexpr int64_t kContendedNs = 50'000'000;

  // Whether this wait polls first; then Ended says how that went. now: monotonic, nanoseconds.
  bool PollsNow(int64_t now) {
    if (now < contended_until_) {
      return false;
    }
    if (to_skip_ > 0) {
      --to_skip_;
      return false;
    }
    return true;
  }
  enum class End { kPaid, kWasted, kContended };
  void Ended(End end, int64_t now) {
    if (end == End::kContended) {
      contended_until_ = now + kContendedNs;
      return;
    }
    skipped_ = end == End::kPaid ? 0 : std::min(std::max(1U, 2 * skipped_), kMostSkipped);
    to_skip_ = skipped_;
  }

 private:
  uint32_t skipped_ = 0;  // waits that the last one that was wasted made sleep at once
  uint32_t to_skip_ = 0;
  int64_t contended_until_ = 0;
};

}  // namespace terrace::client
