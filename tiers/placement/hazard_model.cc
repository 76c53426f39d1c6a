#include "tiers/placement/hazard_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace terrace {
namespace {

constexpr double kFirstBucketEnd = 0.25;
constexpr float kPriorLogit = -2.9178F;  // 5.13 % a half-octave: 10 % an octave
constexpr float kRate = 0.08F;
constexpr float kFirstSquares = 1;
constexpr float kDecay = 1e-4F;
constexpr float kLeastChance = 1e-6F;
constexpr double kMostUses = 2'000;      // that the constant rate is made of
constexpr double kMostSquares = 65'536;  // that skill is made of: some 50,000 observations

struct Buckets {
  std::array<double, HazardModel::kBuckets + 1> begin{};
  Buckets() {
    for (uint32_t b = 1; b <= HazardModel::kBuckets; ++b) {
      const double octave = static_cast<double>(uint64_t{1} << (b - 1) / 2);
      begin[b] = kFirstBucketEnd * octave * ((b - 1) % 2 == 0 ? 1.0 : 1.4142135623730951);
    }
  }
};
const Buckets kBucketTable;

// exp(x) to seven digits, without a branch: loops over it become vectors.
inline float Exp(float x) {
  const float above = x < -80 ? -80 : x;
  const float scaled = (above > 80 ? 80 : above) * 1.44269504F;
  const int32_t whole = static_cast<int32_t>(scaled + 128) - 128;  // down, of what is above -128
  const float rest = (scaled - static_cast<float>(whole)) * 0.69314718F;
  float sum = 1.0F / 5040;
  sum = sum * rest + 1.0F / 720;
  sum = sum * rest + 1.0F / 120;
  sum = sum * rest + 1.0F / 24;
  sum = sum * rest + 1.0F / 6;
  sum = sum * rest + 1.0F / 2;
  sum = sum * rest + 1;
  sum = sum * rest + 1;
  return sum * std::bit_cast<float>((whole + 127) << 23);
}

// 1 / sqrt(x) to 0.2 %, by the well-known first guess and one step of Newton's method. The
// divisions and roots of AdaGrad would be half of the cost of learning.
float InverseRoot(float x) {
  const float guess = std::bit_cast<float>(0x5F3759DF - (std::bit_cast<int32_t>(x) >> 1));
  return guess * (1.5F - 0.5F * x * guess * guess);
}

// log(x) to seven digits, for x above 0.
float Log(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t shift = (bits - std::bit_cast<uint32_t>(0.70710678F)) & 0xFF800000U;
  const float mantissa = std::bit_cast<float>(bits - shift);
  const auto exponent = static_cast<float>(static_cast<int32_t>(shift) >> 23);
  const float s = (mantissa - 1) / (mantissa + 1);
  const float square = s * s;
  const float odd = 2 * s * (1 + square * (1.0F / 3 + square * (1.0F / 5 + square / 7)));
  return exponent * 0.69314718F + odd;
}

inline float Sigmoid(float logit) {
  return 1 / (1 + Exp(-logit));
}

}  // namespace

HazardModel::HazardModel() : weights_(std::make_unique<Table>()) {}

void HazardModel::BeginToLearn() {
  if (squares_ == nullptr) {
    squares_ = std::make_unique<Table>();
    for (Weights& squares : *squares_) {
      squares.fill(kFirstSquares);
    }
    is_changed_.resize(kRows);
  }
}

void HazardModel::Teach(HazardModel& other) {
  std::swap(weights_, other.weights_);
  other.figures_ = figures_;
  behind_ = true;
}

void HazardModel::CatchUp(const HazardModel& other) {
  if (!std::exchange(behind_, false)) {
    return;
  }
  for (const Row row : changed_) {
    (*weights_)[row] = (*other.weights_)[row];
    is_changed_[row] = false;
  }
  changed_.clear();
}

HazardState HazardModel::State() const {
  HazardState state;
  state.uses = figures_.uses;
  state.lived_s = figures_.lived_s;
  state.gain = figures_.gain;
  state.gain_squares = figures_.gain_squares;
  for (uint32_t row = 0; squares_ != nullptr && row < kRows; ++row) {
    const Weights& squares = (*squares_)[row];
    // The shared weight is learnt with every other one.
    if (squares[kShared] != kFirstSquares) {
      state.rows.push_back({static_cast<Row>(row), (*weights_)[row], squares});
    }
  }
  return state;
}

void HazardModel::Restore(const HazardState& state) {
  BeginToLearn();
  behind_ = false;
  figures_ = {state.uses, state.lived_s, state.gain, state.gain_squares};
  changed_.clear();
  for (uint32_t row = 0; row < kRows; ++row) {
    (*weights_)[row].fill(0);
    (*squares_)[row].fill(kFirstSquares);
    changed_.push_back(static_cast<Row>(row));
    is_changed_[row] = true;
  }
  for (const HazardState::Row& row : state.rows) {
    (*weights_)[row.number] = row.weights;
    (*squares_)[row.number] = row.squares;
  }
}

double HazardModel::BucketBegin(uint32_t bucket) {
  return kBucketTable.begin[bucket];
}

uint32_t HazardModel::BucketOf(double age_s) {
  const auto& begin = kBucketTable.begin;
  const auto* const above = std::upper_bound(begin.begin(), begin.begin() + kBuckets, age_s);
  return static_cast<uint32_t>(std::max<std::ptrdiff_t>(0, above - begin.begin() - 1));
}

HazardModel::Row HazardModel::RowOf(uint32_t feature, uint64_t value) {
  uint64_t mixed = (value + 0x9E3779B97F4A7C15U * (feature + 1)) * 0xD6E8FEB86659FD93U;
  mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93U;
  mixed ^= mixed >> 32U;
  return static_cast<Row>((mixed & 0xFFFFFFFFU) * kRows >> 32U);
}

void HazardModel::HazardsOf(absl::Span<const Row> rows,
                            uint32_t first,
                            uint32_t end,
                            Hazards& out) const {
  const uint32_t first_knot = first / kStep;
  const uint32_t last_knot = std::min((end - 1) / kStep + 1, kShared - 1);
  Weights sum{};
  for (const Row row : rows) {
    const Weights& weight = (*weights_)[row];
    for (uint32_t k = first_knot; k <= last_knot; ++k) {
      sum[k] += weight[k];
    }
    sum[kShared] += weight[kShared];
  }
  for (uint32_t b = first; b < end; ++b) {
    const uint32_t knot = b / kStep;
    const float knots = b % kStep == 0 ? sum[knot] : (sum[knot] + sum[knot + 1]) / 2;
    out[b] = Sigmoid(kPriorLogit + sum[kShared] + knots);
  }
}

float HazardModel::Hazard(absl::Span<const Row> rows, uint32_t bucket) const {
  Hazards hazards;
  HazardsOf(rows, bucket, bucket + 1, hazards);
  return hazards[bucket];
}

void HazardModel::Survived(absl::Span<const Row> rows, uint32_t first, uint32_t end, float weight) {
  Hazards hazards;
  HazardsOf(rows, first, end, hazards);
  Score(hazards, first, end, false, weight);
  Weights error{};
  for (uint32_t b = first; b < end; ++b) {
    Blame(b, hazards[b] * weight, error);
  }
  Step(rows, error, first / kStep, (end - 1) / kStep + 2 - first / kStep);
}

void HazardModel::Used(absl::Span<const Row> rows, uint32_t first, uint32_t bucket, float weight) {
  Hazards hazards;
  HazardsOf(rows, first, bucket + 1, hazards);
  Score(hazards, first, bucket, true, weight);
  Weights error{};
  for (uint32_t b = first; b < bucket; ++b) {
    Blame(b, hazards[b] * weight, error);
  }
  Blame(bucket, (hazards[bucket] - 1) * weight, error);
  Step(rows, error, first / kStep, bucket / kStep + 2 - first / kStep);
}

double HazardModel::ChanceOfUse(absl::Span<const Row> rows, double age_s, double within_s) const {
  constexpr double kMost_s = 1e12;  // beyond all buckets, and far from overflowing
  age_s = std::min(age_s, kMost_s);
  within_s = std::min(within_s, kMost_s);
  const uint32_t first = BucketOf(age_s);
  const uint32_t end = BucketOf(age_s + within_s) + 1;
  Hazards hazards;
  HazardsOf(rows, first, end, hazards);
  double unused = 1;
  for (uint32_t b = first; b < end; ++b) {
    const double begins_s = std::max(age_s, BucketBegin(b));
    const double ends_s = b + 1 == kBuckets ? age_s + within_s : BucketBegin(b + 1);
    const double all_s = ends_s - BucketBegin(b);
    const double lived_s = std::min(age_s + within_s, ends_s) - begins_s;
    unused *= 1 - hazards[b] * (all_s > 0 ? std::clamp(lived_s / all_s, 0.0, 1.0) : 0);
  }
  return 1 - unused;
}

void HazardModel::Score(
    const Hazards& hazards, uint32_t first, uint32_t end, bool used, float weight) {
  const auto rate = static_cast<float>((figures_.uses + 1e-3) / (figures_.lived_s + 1));
  float gain = 0;
  for (uint32_t b = first; b < end; ++b) {
    const auto length_s = static_cast<float>(kBucketTable.begin[b + 1] - kBucketTable.begin[b]);
    gain += Log(std::max(kLeastChance, 1 - hazards[b])) + rate * length_s;
    figures_.lived_s += static_cast<double>(length_s) * weight;
  }
  if (used) {
    const auto length_s = static_cast<float>(kBucketTable.begin[end + 1] - kBucketTable.begin[end]);
    gain += Log(std::max(kLeastChance, hazards[end])) -
            Log(std::max(kLeastChance, 1 - Exp(-rate * length_s)));
    figures_.lived_s += static_cast<double>(length_s) * weight / 2;
    figures_.uses += weight;
  }
  if (figures_.uses > kMostUses) {
    figures_.uses /= 2;
    figures_.lived_s /= 2;
  }
  gain *= weight;
  figures_.gain += gain;
  figures_.gain_squares += static_cast<double>(gain) * gain;
  if (figures_.gain_squares > kMostSquares) {
    figures_.gain /= 2;
    figures_.gain_squares /= 2;
  }
}

double HazardModel::skill() const {
  return figures_.gain / std::sqrt(figures_.gain_squares + 1);
}

void HazardModel::Blame(uint32_t bucket, float error, Weights& out) {
  const uint32_t knot = bucket / kStep;
  if (bucket % kStep == 0) {
    out[knot] += error;
  } else {
    out[knot] += error / 2;
    out[knot + 1] += error / 2;
  }
  out[kShared] += error;
}

// AdaGrad, on the knots named and the shared weight.
void HazardModel::Step(absl::Span<const Row> rows,
                       const Weights& error,
                       uint32_t first_knot,
                       uint32_t knots) {
  const uint32_t end = std::min(first_knot + knots, kShared);
  BeginToLearn();
  for (const Row row : rows) {
    if (!is_changed_[row]) {
      is_changed_[row] = true;
      changed_.push_back(row);
    }
    Weights& weights = (*weights_)[row];
    Weights& squares = (*squares_)[row];
    const auto step = [&](uint32_t i) {
      const float gradient = error[i] + kDecay * weights[i];
      squares[i] += gradient * gradient;
      weights[i] -= kRate * gradient * InverseRoot(squares[i]);
    };
    for (uint32_t i = first_knot; i < end; ++i) {
      if (error[i] != 0) {
        step(i);
      }
    }
    step(kShared);
  }
}

HazardModel::Weights HazardModel::SumOf(absl::Span<const Row> rows) const {
  Weights sum{};
  for (const Row row : rows) {
    const Weights& weights = (*weights_)[row];
    for (uint32_t i = 0; i < kStride; ++i) {
      sum[i] += weights[i];
    }
  }
  return sum;
}

void HazardModel::Price(absl::Span<const Row> rows, AgeRange ages, Worth& worth) const {
  constexpr uint32_t kKnots = kBuckets / kStep + 1;
  const Weights sum = SumOf(rows);
  std::array<float, kKnots * kStep> hazards;
  const float level = kPriorLogit + sum[kShared];
  for (uint32_t knot = 0; knot < kKnots; ++knot) {  // what is behind the last bucket isn't used
    const float next = sum[std::min(knot + 1, kShared - 1)];
    hazards[2 * knot] = level + sum[knot];
    hazards[2 * knot + 1] = level + (sum[knot] + next) / 2;
  }
  for (float& each : hazards) {
    each = Sigmoid(each);
  }
  // Points of cumulated use over cumulated time held; the index at b is the steepest slope from
  // point b to a later one, found on the upper hull of the points from b on.
  const std::array<double, kBuckets + 1>& begin = kBucketTable.begin;
  std::array<double, kBuckets + 1> held;
  std::array<double, kBuckets + 1> used;
  held[ages.first] = 0;
  used[ages.first] = 0;
  double alive = 1;
  for (uint32_t b = ages.first; b < kBuckets; ++b) {
    const double hazard = hazards[b];
    held[b + 1] = held[b] + alive * (1 - hazard / 2) * (begin[b + 1] - begin[b]);
    used[b + 1] = used[b] + alive * hazard;
    alive = std::max(alive * (1 - hazard), 1e-9);  // or differences drown in rounding
  }
  std::array<uint32_t, kBuckets + 1> hull;
  uint32_t top = 0;
  hull[0] = kBuckets;
  for (uint32_t at = kBuckets; at-- > ages.first;) {
    double rise = used[hull[top]] - used[at];
    double way = held[hull[top]] - held[at];
    while (top > 0) {
      const double farther_rise = used[hull[top - 1]] - used[at];
      const double farther_way = held[hull[top - 1]] - held[at];
      if (farther_rise * way < rise * farther_way) {
        break;
      }
      rise = farther_rise;
      way = farther_way;
      --top;
    }
    if (at < ages.end) {
      worth[at] = static_cast<float>(rise / way);
    }
    hull[++top] = at;
  }
}

uint64_t HazardModel::memory_bytes() const {
  return sizeof(*this) + sizeof(Table) * (squares_ == nullptr ? 1 : 2) +
         changed_.capacity() * sizeof(Row) + is_changed_.capacity() / 8;
}

}  // namespace terrace
