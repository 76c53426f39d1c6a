// When a peer's bad requests stop being answered one by one: 100 refused in a second earn a pause of a second, ten such
// pauses in a row the end of the connection, and so does the third message in ten seconds that cannot be decoded.
// Pure: time comes in. Thread-compatible.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace terrace {

class FaultRate {
 public:
  static constexpr uint32_t kRefusedPerSecond = 100;
  static constexpr uint32_t kPausesInARow = 10;
  static constexpr uint32_t kUndecodable = 3;
  static constexpr absl::Duration kPause = absl::Seconds(1);
  static constexpr absl::Duration kUndecodableWindow = absl::Seconds(10);

  void Refused(absl::Duration now);
  void Undecodable(absl::Duration now);

  // Requests are not looked at until then.
  [[nodiscard]] bool Paused(absl::Duration now) const { return now < pause_until_; }
  // The connection has used up its patience.
  [[nodiscard]] bool Exhausted() const { return exhausted_; }

 private:
  absl::Duration window_began_ = -absl::InfiniteDuration();
  uint32_t refused_ = 0;
  absl::Duration pause_until_ = -absl::InfiniteDuration();
  uint32_t pauses_ = 0;
  absl::Duration undecodable_began_ = -absl::InfiniteDuration();
  uint32_t undecodable_ = 0;
  bool exhausted_ = false;
};

}  // namespace terrace
