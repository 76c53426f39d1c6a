// Which requests have just been seen: a table of fixed size, in which two that fall on one place
// forget each other.
//
// Thread-compatible.
#pragma once

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace terrace {

class RecentRequests {
 public:
  // Whether a request of this hash has come within the last minute; if not, one has now.
  bool IsRepeat(uint64_t hash, absl::Duration now) {
    Request& recent = requests_[hash % requests_.size()];
    const bool repeat = recent.hash == hash && now - recent.at < kSameRequest;
    if (!repeat) {
      recent = {hash, now};
    }
    return repeat;
  }

 private:
  static constexpr absl::Duration kSameRequest = absl::Seconds(60);
  struct Request {
    uint64_t hash = 0;
    absl::Duration at = -absl::InfiniteDuration();
  };
  std::array<Request, 4096> requests_;
};

}  // namespace terrace
