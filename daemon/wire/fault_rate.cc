#include "daemon/wire/fault_rate.h"

namespace terrace {

void FaultRate::Refused(absl::Duration now) {
  if (now - window_began_ >= absl::Seconds(1)) {
    window_began_ = now;
    refused_ = 0;
  }
  if (++refused_ < kRefusedPerSecond) {
    return;
  }
  // A pause that follows close on another belongs to the same flood.
  pauses_ = now - pause_until_ < kPause ? pauses_ + 1 : 1;
  pause_until_ = now + kPause;
  window_began_ = pause_until_;
  refused_ = 0;
  exhausted_ = exhausted_ || pauses_ > kPausesInARow;
}

void FaultRate::Undecodable(absl::Duration now) {
  if (now - undecodable_began_ >= kUndecodableWindow) {
    undecodable_began_ = now;
    undecodable_ = 0;
  }
  exhausted_ = exhausted_ || ++undecodable_ >= kUndecodable;
}

}  // namespace terrace
