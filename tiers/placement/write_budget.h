// What may be written to a drive that wears out: a budget of bytes a day, spent on what is worth
// most. Pure: the time and the offers come in, decisions go out.
//
// An offer is let in where chance of use x seconds that a use saves >= price x bytes. The price is
// steered: offers of late are remembered by what they are worth a byte, and the price is where as
// many of their bytes lie above it as may be written. While all of them may, it is 0: slack.
//
// As many bytes may be written as the budget gives, times what is saved up over what is meant to
// be: kReserve of the budget. So what was not written is made up for, as far as `burst` goes back;
// what was written beyond the budget (others write without asking, a burst came) is paid back; and
// from any moment on no more is written than the budget gives plus what is saved up then, plus one
// offer. Offers that complete what lies there already may go kReserve beyond that: without them
// what was written earlier would have been written in vain.
//
// Offers that are worth the same are let in by turns at the price, so that a flood of equals is
// thinned out and not let in or kept out as one.
//
// Thread-compatible. O(1), 4 KiB. No libm function is used, so decisions are the same everywhere.
#pragma once

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace terrace {

struct WriteOffer {
  double reuse_chance = 0;   // that the block is asked for again, 0 to 1
  double seconds_saved = 0;  // then
  uint64_t bytes = 0;
  bool completes = false;  // what lies there already is of no use without it
};

enum class Admission : uint8_t {
  kSlack = 0,      // the price is 0
  kWorth = 1,      // it is worth the price
  kCompletes = 2,  // what the offer says
  kPriced = 3,     // not let in: worth less than the price
  kSpent = 4,      // not let in: nothing is saved up
};
inline constexpr size_t kAdmissions = 5;

constexpr bool IsLetIn(Admission admission) {
  return admission < Admission::kPriced;
}

class WriteBudget {
 public:
  // Of the budget, meant to be saved up at any time; also what there is at the start.
  static constexpr absl::Duration kReserve = absl::Minutes(1);
  // Offers count by half after so long.
  static constexpr absl::Duration kHalfLife = absl::Minutes(4);

  struct Options {
    uint64_t bytes_per_day = 0;  // 0: no limit, all is slack
    // What is not written is saved up for so long; at least kReserve.
    absl::Duration burst = absl::Hours(24);
  };
  explicit WriteBudget(const Options& options);

  [[nodiscard]] bool limited() const { return rate_ > 0; }

  // Decides, and takes what is let in off the budget. Time that goes back stands still.
  Admission Admit(absl::Duration now, const WriteOffer& offer);
  // That so much was written without asking; below 0: that so much of what was let in was not.
  void Charge(absl::Duration now, double bytes);

  // What an earlier life had saved up, or owed; as far as this budget goes.
  void Resume(double saved_up);

  // Seconds a byte, as of the last offer; 0: slack.
  [[nodiscard]] double price() const { return price_; }
  // Bytes; below 0: to be paid back before anything is let in.
  [[nodiscard]] double saved_up() const { return saved_up_; }
  [[nodiscard]] double bytes_per_second() const { return rate_; }

 private:
  static constexpr uint32_t kStepsAnOctave = 8;
  static constexpr uint32_t kOctaves = 64;
  static constexpr uint32_t kPlaces = kStepsAnOctave * kOctaves;

  // By worth a byte; the last place is that of offers that complete.
  static uint32_t PlaceOf(const WriteOffer& offer);
  static double WorthOf(uint32_t place);
  void Pass(absl::Duration now);
  // Of all that is offered, the place of the price, and which share of the offers at that place is
  // let in.
  struct Cut {
    uint32_t place = 0;
    double share = 1;
    bool slack = true;
  };
  [[nodiscard]] Cut PriceNow() const;

  const double rate_;        // bytes a second
  const double reserve_;     // bytes
  const double most_saved_;  // likewise
  double saved_up_;
  double price_ = 0;
  double turn_ = 0;  // bytes that equals at the price have coming
  absl::Duration now_ = absl::ZeroDuration();
  bool began_ = false;
  double unfaded_s_ = 0;                   // since the memory was last faded
  double memory_s_;                        // the time that `offered_` stands for
  std::array<double, kPlaces> offered_{};  // bytes
};

}  // namespace terrace
