// The clock that runs on through suspend.
#include "tiers/vocab/clock.h"

#include <ctime>

#include "absl/time/time.h"

namespace terrace {
namespace {

class BootTimeClock final : public Clock {
 public:
  [[nodiscard]] absl::Duration Now() const override {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);  // cannot fail: the clock exists since Linux 2.6.39
    return absl::DurationFromTimespec(now);
  }
};

}  // namespace

const Clock& BootClock() {
  static const BootTimeClock* const kClock = new BootTimeClock;  // lives for ever
  return *kClock;
}

}  // namespace terrace
