// How long an engine takes to compute the KV of a span of tokens at its position: declared, or
// learnt from how long engines took. Pure: durations in, a model out.
//
// The model is that of a transformer's prefill: a constant a token, and attention, which looks back
// at all tokens before. Of [from, to) the seconds are
//   seconds_per_token x (to - from) + seconds_per_square x (to^2 - from^2)
// so that the seconds a token of a span are a straight line over from + to, which is what is
// fitted.
//
// What is seen of an engine is never shorter than its computing and often longer: requests wait
// their turn, share a batch, decode in between. So of the samples of like position a low quantile
// counts, and not their mean. The cost of a single step of an engine is not modelled; spans below
// kLeastTokens, in which it would dominate, are refused.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace terrace {

// Immutable values.
struct RecomputeModel {
  double seconds_per_token = 0;
  double seconds_per_square = 0;

  // 0 where `to` is not beyond `from`.
  [[nodiscard]] double Seconds(uint64_t from, uint64_t to) const;
  friend bool operator==(const RecomputeModel&, const RecomputeModel&) = default;
};

// That a prompt of so many tokens takes so long, with nothing of it cached.
struct PrefillTime {
  uint64_t tokens = 0;
  absl::Duration took;
  friend bool operator==(const PrefillTime&, const PrefillTime&) = default;
};

inline constexpr uint64_t kMostPromptTokens = uint64_t{1} << 32;

// The model through one point (no attention) or two. INVALID_ARGUMENT: another number of them, one
// out of 1 to kMostPromptTokens tokens and above 0 to one hour, two of one length, or two that no
// such model passes through: the longer prompt may take no less a token than the shorter one, and
// no more a square of a token.
absl::StatusOr<RecomputeModel> ModelThrough(absl::Span<const PrefillTime> points);

// Thread-compatible. At most kClasses x kKeptSamples samples are kept, the newest.
class RecomputeCurve {
 public:
  static constexpr uint64_t kLeastTokens = 256;
  static constexpr size_t kLeastSamples = 4;  // of a class, before it counts
  static constexpr size_t kKeptSamples = 16;
  static constexpr size_t kClasses = 12;
  static constexpr double kQuantile = 0.2;

  // That [first_token, first_token + tokens) was computed within `took`. False: refused, because it
  // is too short, took no time or over ten minutes, was faster than a nanosecond a token or slower
  // than a second, or lies beyond kMostPromptTokens.
  bool Learn(uint64_t first_token, uint64_t tokens, absl::Duration took);

  // nullopt: too little has been seen. Where all of it was of like position, attention is not known
  // and taken for nothing: longer prompts then read cheaper than they are.
  [[nodiscard]] std::optional<RecomputeModel> Model() const { return model_; }
  [[nodiscard]] uint64_t samples() const { return samples_; }

 private:
  struct Sample {
    double position = 0;  // from + to
    double seconds_per_token = 0;
  };
  // Samples whose positions are within a factor of two.
  struct Class {
    std::vector<Sample> samples;  // a ring once it is full
    size_t next = 0;
    Sample typical;  // of the low quantile
  };
  void Fit();

  std::array<Class, kClasses> classes_;
  std::optional<RecomputeModel> model_;
  uint64_t samples_ = 0;
};

}  // namespace terrace
