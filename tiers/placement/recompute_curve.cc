#include "tiers/placement/recompute_curve.h"

#include <algorithm>
#include <bit>

#include "absl/status/status.h"

namespace terrace {
namespace {

constexpr absl::Duration kLongestSample = absl::Minutes(10);
constexpr absl::Duration kLongestPrompt = absl::Hours(1);
constexpr double kFastestToken = 1e-9;
constexpr double kSlowestToken = 1.0;

size_t ClassOf(uint64_t position) {
  const auto width = static_cast<size_t>(std::bit_width(position));
  const auto least = static_cast<size_t>(std::bit_width(RecomputeCurve::kLeastTokens));
  return std::min(width - std::min(width, least), RecomputeCurve::kClasses - 1);
}

bool IsPoint(const PrefillTime& point) {
  return point.tokens > 0 && point.tokens <= kMostPromptTokens &&
         point.took > absl::ZeroDuration() && point.took <= kLongestPrompt;
}

}  // namespace

double RecomputeModel::Seconds(uint64_t from, uint64_t to) const {
  if (to <= from) {
    return 0;
  }
  const auto tokens = static_cast<double>(to - from);
  const double position = static_cast<double>(from) + static_cast<double>(to);
  return tokens * (seconds_per_token + seconds_per_square * position);
}

absl::StatusOr<RecomputeModel> ModelThrough(absl::Span<const PrefillTime> points) {
  if (points.empty() || points.size() > 2) {
    return absl::InvalidArgumentError("one or two points are needed");
  }
  if (!std::all_of(points.begin(), points.end(), IsPoint)) {
    return absl::InvalidArgumentError(
        "a point has 1 to 4294967296 tokens and takes more than 0 and at most 1h");
  }
  PrefillTime shorter = points.front();
  PrefillTime longer = points.back();
  if (longer.tokens < shorter.tokens) {
    std::swap(shorter, longer);
  }
  const auto near = static_cast<double>(shorter.tokens);
  const auto far = static_cast<double>(longer.tokens);
  const double near_rate = absl::ToDoubleSeconds(shorter.took) / near;
  const double far_rate = absl::ToDoubleSeconds(longer.took) / far;
  if (points.size() == 1) {
    return RecomputeModel{near_rate, 0};
  }
  if (shorter.tokens == longer.tokens) {
    return absl::InvalidArgumentError("two points of one length");
  }
  RecomputeModel model{(near_rate * far - far_rate * near) / (far - near),
                       (far_rate - near_rate) / (far - near)};
  // Two points of a model that has one term alone miss it by a rounding.
  const double least = -1e-9 * near_rate;
  if (model.seconds_per_token < least || model.seconds_per_square * far < least) {
    return absl::InvalidArgumentError(
        "the longer prompt must take as much a token as the shorter one or more, and as much a "
        "squared token or less");
  }
  model.seconds_per_token = std::max(0.0, model.seconds_per_token);
  model.seconds_per_square = std::max(0.0, model.seconds_per_square);
  return model;
}

bool RecomputeCurve::Learn(uint64_t first_token, uint64_t tokens, absl::Duration took) {
  if (tokens < kLeastTokens || tokens > kMostPromptTokens || first_token > kMostPromptTokens ||
      took <= absl::ZeroDuration() || took > kLongestSample) {
    return false;
  }
  const double rate = absl::ToDoubleSeconds(took) / static_cast<double>(tokens);
  if (rate < kFastestToken || rate > kSlowestToken) {
    return false;
  }
  const uint64_t position = 2 * first_token + tokens;
  Class& like = classes_[ClassOf(position)];
  const Sample sample{static_cast<double>(position), rate};
  if (like.samples.size() < kKeptSamples) {
    like.samples.push_back(sample);
  } else {
    like.samples[like.next] = sample;
    like.next = (like.next + 1) % kKeptSamples;
  }
  ++samples_;
  if (like.samples.size() < kLeastSamples) {
    return true;
  }
  std::vector<Sample> sorted = like.samples;
  const auto typical = sorted.begin() + static_cast<std::ptrdiff_t>(
                                            kQuantile * static_cast<double>(sorted.size() - 1));
  std::nth_element(sorted.begin(), typical, sorted.end(), [](const Sample& a, const Sample& b) {
    return a.seconds_per_token < b.seconds_per_token;
  });
  like.typical = *typical;
  Fit();
  return true;
}

// Least squares through one sample a class, weighted by how many it stands for. Neither term can be
// negative: where the line would have it so, the other one alone is fitted.
void RecomputeCurve::Fit() {
  double weights = 0;
  double x = 0;
  double y = 0;
  double xx = 0;
  double xy = 0;
  for (const Class& like : classes_) {
    if (like.samples.size() < kLeastSamples) {
      continue;
    }
    const auto weight = static_cast<double>(like.samples.size());
    const Sample& at = like.typical;
    weights += weight;
    x += weight * at.position;
    y += weight * at.seconds_per_token;
    xx += weight * at.position * at.position;
    xy += weight * at.position * at.seconds_per_token;
  }
  const double spread = weights * xx - x * x;
  // Of one class the spread is what rounding leaves.
  const double slope = spread > 1e-6 * weights * xx ? (weights * xy - x * y) / spread : 0;
  const double intercept = (y - slope * x) / weights;
  if (slope <= 0) {
    model_ = RecomputeModel{y / weights, 0};
  } else if (intercept < 0) {
    model_ = RecomputeModel{0, xy / xx};
  } else {
    model_ = RecomputeModel{intercept, slope};
  }
}

}  // namespace terrace
