// Decides whether LRU should rule instead of PHL: it does for a while when PHL's hits have trailed
// those that LRU would have had by more than a small share of all blocks, net of what PHL gained
// before, up to a limit. A minute the first time; each relapse lasts twice as long, up to an hour.
//
// Thread-compatible.
#pragma once

#include <algorithm>
#include <cstdint>

namespace terrace {

class LruGuard {
 public:
  [[nodiscard]] bool lru_rules() const { return lru_rules_; }

  // A request for `blocks` blocks hit `hits` of them, where LRU would have hit `lru_hits`. True:
  // who rules has changed.
  bool Count(double now_s, uint64_t blocks, uint64_t hits, uint64_t lru_hits) {
    blocks_ += static_cast<double>(blocks);
    if (lru_rules_) {
      if (now_s < until_s_) {
        return false;
      }
      lru_rules_ = false;
      trailing_ = 0;
      calm_since_s_ = now_s;
      return true;
    }
    trailing_ = std::max(-kCreditShare * blocks_,
                         trailing_ + static_cast<double>(lru_hits) - static_cast<double>(hits));
    if (trailing_ <= std::max(kLeastTrail, kTrailShare * blocks_)) {
      return false;
    }
    if (now_s - calm_since_s_ > kCalm * pause_s_) {
      pause_s_ = kFirstPause;
    }
    lru_rules_ = true;
    until_s_ = now_s + pause_s_;
    pause_s_ = std::min(2 * pause_s_, kLongestPause);
    return true;
  }

 private:
  static constexpr double kLeastTrail = 128;     // blocks
  static constexpr double kTrailShare = 0.0005;  // of all blocks asked for so far
  static constexpr double kCreditShare = 0.01;   // of them, that may count for PHL
  static constexpr double kFirstPause = 60;
  static constexpr double kLongestPause = 3600;
  static constexpr double kCalm = 4;

  bool lru_rules_ = false;
  double blocks_ = 0;
  double trailing_ = 0;
  double until_s_ = 0;
  double pause_s_ = kFirstPause;
  double calm_since_s_ = 0;
};

}  // namespace terrace
