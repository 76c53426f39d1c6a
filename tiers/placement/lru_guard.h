// Decides whether LRU should rule instead of PHL. PHL has to show two things: that its forecasts
// are of use at all, and that what it hits is more than what LRU would hit: where the two do the
// same, PHL's contents are a stake that is lost when the requests change.
//
// LRU rules
//   - while the forecasts do worse than those of one rate for everything (HazardModel::skill);
//   - when PHL has fallen too far behind its best lead over LRU: by half of that lead, by a share
//     of all blocks at most, and a small allowance; by a larger one where the fall is no more than
//     chance would make, as one long prompt does;
//   - when request after request hits less than with LRU, before PHL is far ahead;
//   - when enough requests were a difference, and they add up to no more than chance would; the
//     more of them, the more LRU misses, for the more there is to win.
// After the latter three it rules until a shadow of PHL has won against LRU by several times the
// allowance, and by more than chance would; by twice as much after each loss, and by less more
// where there was nothing to show.
//
// What is counted is halved now and then, so that old merit does not pay for new losses for ever.
//
// Thread-compatible.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace terrace {

class LruGuard {
 public:
  [[nodiscard]] bool lru_rules() const { return lru_rules_; }

  // Of one request, in blocks.
  struct Hits {
    uint64_t blocks = 0;  // asked for
    uint64_t own = 0;     // hit, whoever rules
    uint64_t lru = 0;     // that LRU would have hit
    uint64_t phl = 0;     // that PHL would have hit; looked at while LRU rules
  };

  // skill: in standard deviations. True: who rules has changed.
  bool Count(const Hits& hits, double skill) {
    Add(hits);
    skilled_ = skilled_ ? skill >= kNoSkill : skill > 0;
    const bool ruled = lru_rules_;
    const double allowance = std::max(kLeastAllowance, kAllowanceShare * blocks_);
    if (lru_rules_) {
      if (skilled_ && HasWonBack(allowance)) {
        LetPhlRule();
      }
    } else if (const bool fell = HasFallen(allowance); fell || HasNothingToShow()) {
      relapses_ = std::max(1.0, (fell ? kAfterLoss : kAfterNothing) * relapses_);
      LetLruRule();
    } else if (!skilled_) {
      LetLruRule();
    }
    return ruled != lru_rules_;
  }

 private:
  static constexpr double kNoSkill = -2;
  static constexpr double kLeastAllowance = 32;      // blocks
  static constexpr double kAllowanceShare = 0.0003;  // of all blocks asked for so far
  static constexpr double kLeadShare = 0.5;          // of the best lead, that may be lost
  static constexpr double kMostLost = 0.01;          // of all blocks, that may be lost of it
  static constexpr double kFallen = 2;               // standard deviations of what chance does
  static constexpr double kByChance = 6;             // allowances, where it may be chance
  static constexpr double kLosses = 8;               // requests, net of those that hit more
  static constexpr double kLossDecay = 0.995;        // a request
  static constexpr double kFarAhead = 0.005;         // of all blocks
  static constexpr double kTrial = 24;               // requests, if all made the same difference
  static constexpr double kLeastTrial = 5;           // where LRU misses little
  static constexpr double kShown = 1;                // standard deviations of what chance does
  static constexpr double kWinBack = 3;              // allowances
  static constexpr double kWonBack = 1.5;            // standard deviations
  static constexpr double kAfterLoss = 2;            // times as much has to be won back
  static constexpr double kAfterNothing = 1.41421;   // two of them are as one loss
  static constexpr double kMostBlocks = 16e6;        // then everything is halved

  void Add(const Hits& hits) {
    const auto own = static_cast<double>(hits.own);
    const auto lru = static_cast<double>(hits.lru);
    blocks_ += static_cast<double>(hits.blocks);
    lru_hits_ += lru;
    lead_ += own - lru;
    best_lead_ = std::max(best_lead_, lead_);
    fall_squares_ = lead_ >= best_lead_ ? 0 : fall_squares_ + (own - lru) * (own - lru);
    const double loss = own < lru ? 1 : own > lru ? -1 : 0;
    losses_ = std::max(0.0, kLossDecay * losses_ + loss);
    differences_ += std::abs(own - lru);
    squares_ += (own - lru) * (own - lru);
    const double won = static_cast<double>(hits.phl) - lru;
    won_back_ = std::max(0.0, won_back_ + won);
    won_squares_ = won_back_ > 0 ? won_squares_ + won * won : 0;
    if (blocks_ > kMostBlocks) {
      blocks_ /= 2;
      lru_hits_ /= 2;
      lead_ /= 2;
      best_lead_ /= 2;
      first_lead_ /= 2;
      differences_ /= std::sqrt(2.0);  // as their squares
      squares_ /= 2;
      fall_squares_ /= 2;
    }
  }
  [[nodiscard]] bool HasFallen(double allowance) const {
    const double fall = best_lead_ - lead_;
    const double may_lose = std::clamp(kLeadShare * best_lead_, 0.0, kMostLost * blocks_);
    if (fall < kFallen * std::sqrt(fall_squares_)) {
      return fall > may_lose + kByChance * allowance;
    }
    return fall > may_lose + allowance ||
           (fall > allowance && losses_ >= kLosses && lead_ < kFarAhead * blocks_);
  }
  // A few long prompts among many short ones say as little as those few alone.
  [[nodiscard]] bool HasNothingToShow() const {
    const double missed = blocks_ > 0 ? 1 - lru_hits_ / blocks_ : 1;
    const double trial = std::max(kLeastTrial, kTrial * missed * missed);
    const bool tried = squares_ > 0 && differences_ * differences_ >= trial * squares_;
    return tried && lead_ - first_lead_ < kShown * std::sqrt(squares_);
  }
  [[nodiscard]] bool HasWonBack(double allowance) const {
    return won_back_ >= kWinBack * relapses_ * allowance &&
           won_back_ >= kWonBack * std::sqrt(won_squares_);
  }
  void LetLruRule() {
    lru_rules_ = true;
    won_back_ = 0;
    won_squares_ = 0;
  }
  // What was lost before is not held against it again.
  void LetPhlRule() {
    lru_rules_ = false;
    first_lead_ = std::min(lead_, 0.0);
    best_lead_ = lead_;
    fall_squares_ = 0;
    losses_ = 0;
    differences_ = 0;
    squares_ = 0;
  }

  bool lru_rules_ = false;
  bool skilled_ = true;
  double blocks_ = 0;
  double lru_hits_ = 0;  // of them
  double lead_ = 0;  // of what was hit over what LRU would have hit
  double best_lead_ = 0;     // since PHL's rule began
  double first_lead_ = 0;    // when PHL's rule began, where it was below 0
  double fall_squares_ = 0;  // of what requests gained or lost since the best lead
  double losses_ = 0;
  double differences_ = 0;  // blocks that requests gained or lost, since PHL's rule began
  double squares_ = 0;      // of them
  double won_squares_ = 0;  // of what is in won_back_
  double won_back_ = 0;     // PHL's shadow over LRU, since it last lost everything
  double relapses_ = 0;     // grows each time; 0: none yet
};

}  // namespace terrace
