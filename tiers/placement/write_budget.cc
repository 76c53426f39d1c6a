#include "tiers/placement/write_budget.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace terrace {
namespace {

constexpr double kSecondsADay = 86'400;
constexpr uint32_t kFadesAHalfLife = 32;
constexpr double kFade = 0.97857206208770009;  // to the 32nd: a half
constexpr double kFadeStepSeconds = 240.0 / kFadesAHalfLife;
static_assert(WriteBudget::kHalfLife == absl::Seconds(240));
constexpr double kMostFades = 4096;  // after which nothing of the memory is left
constexpr uint32_t kMantissaBits = 52;
constexpr uint32_t kStepBits = 3;
constexpr int64_t kLowestExponent = -60;  // of the worth of a byte, in seconds

double Seconds(absl::Duration time) {
  return absl::ToDoubleSeconds(time);
}

}  // namespace

WriteBudget::WriteBudget(const Options& options)
    : rate_(static_cast<double>(options.bytes_per_day) / kSecondsADay),
      reserve_(rate_ * Seconds(kReserve)),
      most_saved_(rate_ * Seconds(std::max(options.burst, kReserve))),
      saved_up_(reserve_),
      memory_s_(Seconds(kReserve)) {}

// Steps of an eighth of an octave, told from the bits of the number.
uint32_t WriteBudget::PlaceOf(const WriteOffer& offer) {
  if (offer.completes) {
    return kPlaces - 1;
  }
  const double worth = offer.bytes == 0 ? 0
                                        : offer.reuse_chance * offer.seconds_saved /
                                              static_cast<double>(offer.bytes);
  if (!(worth > 0)) {
    return 0;
  }
  const auto step =
      static_cast<int64_t>(std::bit_cast<uint64_t>(worth) >> (kMantissaBits - kStepBits));
  const int64_t place = step - (1023 + kLowestExponent) * kStepsAnOctave;
  return static_cast<uint32_t>(std::clamp<int64_t>(place, 1, kPlaces - 2));
}

double WriteBudget::WorthOf(uint32_t place) {
  const auto step =
      static_cast<uint64_t>(int64_t{place} + (1023 + kLowestExponent) * kStepsAnOctave);
  return std::bit_cast<double>(step << (kMantissaBits - kStepBits));
}

void WriteBudget::Pass(absl::Duration now) {
  if (!began_) {
    began_ = true;
    now_ = now;
  }
  if (now <= now_) {
    return;
  }
  const double passed_s = Seconds(now - now_);
  now_ = now;
  saved_up_ = std::max(saved_up_, std::min(most_saved_, saved_up_ + passed_s * rate_));
  unfaded_s_ += passed_s;
  const double fades = std::min(kMostFades, unfaded_s_ / kFadeStepSeconds);
  if (fades < 1) {
    return;
  }
  double kept = 1;
  for (auto i = static_cast<uint32_t>(fades); i > 0; --i) {
    kept *= kFade;
    memory_s_ = memory_s_ * kFade + kFadeStepSeconds;
  }
  unfaded_s_ = std::max(0.0, std::min(unfaded_s_, kMostFades * kFadeStepSeconds) -
                                 static_cast<uint32_t>(fades) * kFadeStepSeconds);
  for (double& bytes : offered_) {
    bytes *= kept;
  }
}

WriteBudget::Cut WriteBudget::PriceNow() const {
  const double may = saved_up_ <= 0 ? 0 : rate_ * saved_up_ / reserve_;
  double room = may * (memory_s_ + unfaded_s_);
  for (uint32_t place = kPlaces; place > 0; --place) {
    const double bytes = offered_[place - 1];
    if (bytes > room) {
      return {place - 1, std::max(0.0, room / bytes), false};
    }
    room -= bytes;
  }
  return {};
}

Admission WriteBudget::Admit(absl::Duration now, const WriteOffer& offer) {
  if (!limited()) {
    return Admission::kSlack;
  }
  Pass(now);
  const uint32_t place = PlaceOf(offer);
  const auto bytes = static_cast<double>(offer.bytes);
  offered_[place] += bytes;
  const Cut cut = PriceNow();
  price_ = cut.slack ? 0 : WorthOf(std::max(cut.place, 1U));
  Admission admission = cut.slack ? Admission::kSlack : Admission::kWorth;
  if (offer.completes) {
    admission = saved_up_ > -reserve_ ? Admission::kCompletes : Admission::kSpent;
  } else if (saved_up_ <= 0) {
    admission = Admission::kSpent;
  } else if (!cut.slack && place < cut.place) {
    admission = Admission::kPriced;
  } else if (!cut.slack && place == cut.place) {
    turn_ = std::min(turn_ + cut.share * bytes, bytes);
    admission = turn_ >= bytes / 2 ? Admission::kWorth : Admission::kPriced;
    turn_ -= admission == Admission::kWorth ? bytes : 0;
  }
  saved_up_ -= IsLetIn(admission) ? bytes : 0;
  return admission;
}

void WriteBudget::Charge(absl::Duration now, double bytes) {
  if (limited()) {
    Pass(now);
    saved_up_ = std::min(most_saved_, saved_up_ - bytes);
  }
}

void WriteBudget::Resume(double saved_up) {
  if (limited() && std::isfinite(saved_up)) {
    saved_up_ = std::clamp(saved_up, -most_saved_, most_saved_);
  }
}

}  // namespace terrace
