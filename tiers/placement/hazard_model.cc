#include "tiers/placement/hazard_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

namespace terrace {
namespace {

constexpr double kFirstBucketEnd = 0.25;
constexpr float kPriorLogit = -2.9178F;  // 5.13 % a half-octave: 10 % an octave
constexpr float kRate = 0.3F;
constexpr float kFirstSquares = 10;
constexpr float kDecay = 1e-4F;
constexpr float kLeastChance = 1e-6F;
constexpr float kLeastWorth = 1e-30F;    // uses per second held; below it none are told apart
constexpr double kMostUses = 2'000;      // that the constant rate is made of
constexpr uint64_t kNumbering = 0x91A2B3C55E68U;  // which rows meet: chance, see ARCHITECTURE.md
constexpr double kMostSquares = 65'536;  // that skill is made of: some 50,000 observations

// Four numbers in one register.
constexpr uint32_t kLanes = 4;
using Lanes __attribute__((vector_size(16))) = float;
using IntLanes __attribute__((vector_size(16))) = int32_t;
template <typename Float>
using IntOf = std::conditional_t<std::is_same_v<Float, Lanes>, IntLanes, int32_t>;

inline int32_t Truncated(float x) {
  return static_cast<int32_t>(x);
}
inline IntLanes Truncated(Lanes x) {
  return __builtin_convertvector(x, IntLanes);
}
inline float Widened(int32_t x) {
  return static_cast<float>(x);
}
inline Lanes Widened(IntLanes x) {
  return __builtin_convertvector(x, Lanes);
}

// exp(x) to seven digits, without a branch; of one number or of four.
template <typename Float>
inline Float Exp(Float x) {
  const Float least = Float{} - 80;
  const Float most = Float{} + 80;
  const Float above = x < least ? least : x;
  const Float scaled = (above > most ? most : above) * 1.44269504F;
  const IntOf<Float> whole = Truncated(scaled + 128) - 128;  // down, of what is above -128
  const Float rest = (scaled - Widened(whole)) * 0.69314718F;
  Float sum = Float{} + 1.0F / 5040;
  sum = sum * rest + 1.0F / 720;
  sum = sum * rest + 1.0F / 120;
  sum = sum * rest + 1.0F / 24;
  sum = sum * rest + 1.0F / 6;
  sum = sum * rest + 1.0F / 2;
  sum = sum * rest + 1;
  sum = sum * rest + 1;
  return sum * std::bit_cast<Float>((whole + 127) << 23);
}

// 1 / sqrt(x) to 0.2 %, by the well-known first guess and one step of Newton's method. The
// divisions and roots of AdaGrad would be half of the cost of learning.
template <typename Float>
inline Float InverseRoot(Float x) {
  const auto guess = std::bit_cast<Float>(0x5F3759DF - (std::bit_cast<IntOf<Float>>(x) >> 1));
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

struct Buckets {
  static constexpr uint32_t kRoom = kLanes - 1;  // to read four at a time
  std::array<double, HazardModel::kBuckets + 1> begin{};
  std::array<float, HazardModel::kBuckets + kRoom> length{};
  // Of the shortest of three buckets in a row, the even ones in the middle.
  std::array<float, HazardModel::kBuckets / 2 + 1> log_least_length{};
  Buckets() {
    for (uint32_t b = 1; b <= HazardModel::kBuckets; ++b) {
      const double octave = static_cast<double>(uint64_t{1} << (b - 1) / 2);
      begin[b] = kFirstBucketEnd * octave * ((b - 1) % 2 == 0 ? 1.0 : 1.4142135623730951);
      length[b - 1] = static_cast<float>(begin[b] - begin[b - 1]);
    }
    for (uint32_t i = 0; i < log_least_length.size(); ++i) {
      const uint32_t first = i == 0 ? 0 : 2 * i - 1;
      const uint32_t end = std::min(2 * i + 2, HazardModel::kBuckets);
      log_least_length[i] = Log(*std::min_element(&length[first], &length[end]));
    }
  }
};
const Buckets kBucketTable;

// A step of AdaGrad, with a number or with four, but for the power: 3/4 instead of 1/2. The sum of
// squares is about what has been learnt of the weight, so that what is known well moves less, and
// what is met for the first time moves more.
template <typename Float>
inline void Descend(Float error, Float& weight, Float& squares) {
  const Float gradient = error + kDecay * weight;
  squares += gradient * gradient;
  const Float root = InverseRoot(squares);
  weight -= kRate * gradient * root * root * InverseRoot(root);
}

template <typename Float>
inline Float Sigmoid(Float logit) {
  return 1 / (1 + Exp(-logit));
}

inline Lanes LanesAt(const float* first) {
  Lanes lanes;
  std::memcpy(&lanes, first, sizeof(lanes));
  return lanes;
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
  uint64_t mixed =
      ((value ^ kNumbering) + 0x9E3779B97F4A7C15U * (feature + 1)) * 0xD6E8FEB86659FD93U;
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
  const uint32_t knot = bucket / kStep;
  float here = 0;
  float next = 0;  // means nothing at the last knot, and is not used there
  float shared = 0;
  const Weights* const table = weights_->data();
  for (const Row row : rows) {
    const float* const weights = table[row].data();
    here += weights[knot];
    next += weights[knot + 1];
    shared += weights[kShared];
  }
  return Sigmoid(kPriorLogit + shared + (bucket % kStep == 0 ? here : (here + next) / 2));
}

void HazardModel::Survived(absl::Span<const Row> rows, uint32_t first, uint32_t end, float weight) {
  if (end == first + 1) {
    LearnOneBucket(rows, first, false, weight);
    return;
  }
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
  if (bucket == first) {
    LearnOneBucket(rows, bucket, true, weight);
    return;
  }
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

void HazardModel::LearnOneBucket(absl::Span<const Row> rows,
                                 uint32_t bucket,
                                 bool used,
                                 float weight) {
  Hazards hazards;
  hazards[bucket] = Hazard(rows, bucket);
  Score(hazards, bucket, used ? bucket : bucket + 1, used, weight);
  BeginToLearn();
  for (const Row row : rows) {
    NoteChange(row);
  }
  const float error = (used ? hazards[bucket] - 1 : hazards[bucket]) * weight;
  const uint32_t knot = bucket / kStep;
  const bool between = bucket % kStep != 0;
  // One lane for each weight: the knot before, the knot behind, the shared one.
  const Lanes errors = {between ? error / 2 : error, error / 2, error, 0};
  Weights* const weights = weights_->data();
  Weights* const squares = squares_->data();
  for (const Row row : rows) {
    float* const weights_of = weights[row].data();
    float* const squares_of = squares[row].data();
    Lanes weight_of = {weights_of[knot], weights_of[knot + 1], weights_of[kShared], 0};
    Lanes square_of = {squares_of[knot], squares_of[knot + 1], squares_of[kShared], 1};
    Descend(errors, weight_of, square_of);
    weights_of[knot] = weight_of[0];
    squares_of[knot] = square_of[0];
    if (between) {
      weights_of[knot + 1] = weight_of[1];
      squares_of[knot + 1] = square_of[1];
    }
    weights_of[kShared] = weight_of[2];
    squares_of[kShared] = square_of[2];
  }
}

double HazardModel::ChanceOfUse(absl::Span<const Row> rows, double age_s, double within_s) const {
  constexpr double kLongestAge = 1e12;  // beyond all buckets, and far from overflowing
  age_s = std::min(age_s, kLongestAge);
  within_s = std::min(within_s, kLongestAge);
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

// On the knots named and the shared weight.
void HazardModel::Step(absl::Span<const Row> rows,
                       const Weights& error,
                       uint32_t first_knot,
                       uint32_t knots) {
  const uint32_t end = std::min(first_knot + knots, kShared);
  BeginToLearn();
  for (const Row row : rows) {
    NoteChange(row);
    Weights& weights = (*weights_)[row];
    Weights& squares = (*squares_)[row];
    for (uint32_t i = first_knot; i < end; ++i) {
      if (error[i] != 0) {
        Descend(error[i], weights[i], squares[i]);
      }
    }
    Descend(error[kShared], weights[kShared], squares[kShared]);
  }
}

void HazardModel::Prefetch(absl::Span<const Row> rows, uint32_t first, uint32_t end) const {
  const uint32_t begin = first / kStep;
  const uint32_t last = std::min(end / kStep + 1, kShared);
  for (const Table* table : {weights_.get(), squares_.get()}) {
    for (const Row row : table == nullptr ? rows.first(0) : rows) {
      const float* const weights = table->data()[row].data();
      __builtin_prefetch(weights + begin, 1);
      __builtin_prefetch(weights + last, 1);
      __builtin_prefetch(weights + kShared, 1);
    }
  }
}

HazardModel::Sums HazardModel::SumOf(absl::Span<const Row> rows,
                                     uint32_t first,
                                     uint32_t end) const {
  constexpr uint32_t kLast = kStride / kLanes - 1;
  static_assert(kShared / kLanes == kLast);
  std::array<Lanes, kLast + 1> sums{};
  const Weights* const table = weights_->data();
  const size_t begin = first / kLanes;
  const size_t behind = std::min((end + kLanes - 1) / kLanes, kLast);
  for (const Row row : rows) {
    const float* const weights = table[row].data();
    for (size_t i = begin; i < behind; ++i) {
      sums[i] += LanesAt(weights + i * kLanes);
    }
    sums[kLast] += LanesAt(weights + size_t{kLast} * kLanes);
  }
  Sums out{};
  std::memcpy(out.data(), sums.data(), sizeof(sums));
  return out;
}

void HazardModel::LookAhead(const Sums& sums, uint32_t first, uint32_t end, Outlook& out) {
  static_assert(kStep == 2);
  const float level = kPriorLogit + sums[kShared];
  for (uint32_t at = first; at < end; at += kLanes) {
    // A lane for each bucket: on a knot, behind it, on the next one, behind that.
    const Lanes knots = LanesAt(&sums[at / kStep]);
    const Lanes logits = level + (__builtin_shufflevector(knots, knots, 0, 0, 1, 1) +
                                  __builtin_shufflevector(knots, knots, 0, 1, 1, 2)) /
                                     2;
    const Lanes hazard = Sigmoid(logits);
    const Lanes alone = hazard / ((1 - hazard / 2) * LanesAt(&kBucketTable.length[at]));
    std::memcpy(&out.hazards[at], &hazard, sizeof(hazard));
    std::memcpy(&out.alone[at], &alone, sizeof(alone));
  }
}

// A bucket alone is worth less than e^logit over its length, and its logit is not above those of
// the knots around it.
uint32_t HazardModel::Reach(const Sums& sums, float worth) {
  constexpr float kRounding = 0.01F;
  const float bound = Log(std::max(kLeastWorth, worth)) - kPriorLogit - sums[kShared] - kRounding;
  uint32_t knot = kShared;
  while (knot > 0 && sums[knot - 1] <= bound + kBucketTable.log_least_length[knot - 1]) {
    --knot;
  }
  return std::min(knot * kStep, kBuckets);
}

void HazardModel::Price(absl::Span<const Row> rows, Asked asked, Worth& worth) const {
  Outlook outlook;
  const uint32_t begin = asked.first / kLanes * kLanes;
  const uint32_t looked = (asked.end + kLanes - 1) / kLanes * kLanes;
  const Sums sums = SumOf(rows, begin / kStep, kShared);
  LookAhead(sums, begin, looked, outlook);
  float worst = outlook.alone[asked.first];
  for (uint32_t b = asked.rest; b < asked.end; ++b) {
    worst = std::min(worst, outlook.alone[b]);
  }
  // What is reached at a later bucket can raise an index only where a bucket on the way is better
  // than what came before.
  const uint32_t reach = std::max(asked.end, Reach(sums, worst));
  LookAhead(sums, looked, reach, outlook);

  struct Stretch {
    double used;
    double held;
  };
  std::array<Stretch, kBuckets> stretches;
  double alive = 1;
  for (uint32_t b = asked.first; b < reach; ++b) {
    const double hazard = outlook.hazards[b];
    const double length_s = kBucketTable.begin[b + 1] - kBucketTable.begin[b];
    stretches[b] = {alive * hazard, alive * (1 - hazard / 2) * length_s};
    alive = std::max(alive * (1 - hazard), 1e-9);  // what hardly any live to see has an index too
  }
  // From behind, each bucket joins the stretches that make it better: those from `top` on, each
  // better than the next one.
  uint32_t top = reach;
  for (uint32_t b = reach; b-- > asked.first;) {
    Stretch best = stretches[b];
    for (; top < reach && stretches[top].used * best.held > best.used * stretches[top].held;
         ++top) {
      best.used += stretches[top].used;
      best.held += stretches[top].held;
    }
    stretches[--top] = best;
    if (b < asked.end) {
      worth[b] = static_cast<float>(best.used / best.held);
    }
  }
}

void HazardModel::PriceAtLeast(absl::Span<const Row> rows, Asked asked, Worth& worth) const {
  Outlook outlook;
  const uint32_t begin = asked.first / kLanes * kLanes;
  const uint32_t looked = (asked.end + kLanes - 1) / kLanes * kLanes;
  // A bucket is made of the knots before and behind it.
  const Sums sums = SumOf(rows, begin / kStep, looked / kStep + 1);
  LookAhead(sums, begin, begin + kLanes, outlook);
  LookAhead(sums, std::max(begin + kLanes, asked.rest / kLanes * kLanes), looked, outlook);
  for (uint32_t b = asked.rest; b < asked.end; ++b) {
    worth[b] = outlook.alone[b];
  }
  // Or given up behind `rest`: with a chance of use of what it alone has, at least, within all of
  // the time until then, at most.
  const double held_s = kBucketTable.begin[asked.rest + 1] - kBucketTable.begin[asked.first];
  worth[asked.first] = std::max(outlook.alone[asked.first],
                                outlook.hazards[asked.rest] / static_cast<float>(held_s));
}

uint64_t HazardModel::memory_bytes() const {
  return sizeof(*this) + sizeof(Table) * (squares_ == nullptr ? 1 : 2) +
         changed_.capacity() * sizeof(Row) + is_changed_.capacity() / 8;
}

}  // namespace terrace
