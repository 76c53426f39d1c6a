#include "tiers/placement/hazard_format.h"

#include <bit>
#include <cmath>

#include "tiers/placement/hazard_model.h"
#include "tiers/placement/phl_features.h"

namespace terrace {
namespace {

constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = 52;
constexpr size_t kRowBytes = 2 + 2 * sizeof(float) * HazardState::kStride;
constexpr float kMostWeight = 1e4F;
constexpr double kMostOfAFigure = 1e18;
// Far more than is ever seen; what claims still more skill would be believed for too long.
constexpr double kMostSkill = 1000;
constexpr double kMostGainSquares = 1e6;
constexpr double kMostUses = 1e6;

class Out {
 public:
  explicit Out(size_t bytes) { text_.reserve(bytes); }
  template <typename Word>
  void Put(Word word) {
    for (size_t i = 0; i < sizeof(Word); ++i) {
      text_.push_back(static_cast<char>(static_cast<unsigned char>(word >> (8 * i))));
    }
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

class In {
 public:
  explicit In(absl::string_view text) : text_(text) {}
  // There are that many bytes left.
  template <typename Word>
  Word Get() {
    Word word = 0;
    for (size_t i = 0; i < sizeof(Word); ++i) {
      const auto byte = static_cast<unsigned char>(text_[at_++]);
      word = static_cast<Word>(word | static_cast<Word>(Word{byte} << (8 * i)));
    }
    return word;
  }
  float GetFloat() { return std::bit_cast<float>(Get<uint32_t>()); }
  double GetDouble() { return std::bit_cast<double>(Get<uint64_t>()); }

 private:
  absl::string_view text_;
  size_t at_ = 0;
};

// Comparisons are false for what is not a number.
bool IsSound(const HazardState& state) {
  const auto figure = [](double value) { return value >= 0 && value <= kMostOfAFigure; };
  return figure(state.uses) && state.uses <= kMostUses && figure(state.lived_s) &&
         figure(state.gain_squares) && state.gain_squares <= kMostGainSquares &&
         std::abs(state.gain) <= kMostSkill * std::sqrt(state.gain_squares + 1);
}
bool IsSound(const HazardState::Row& row) {
  bool sound = row.number < HazardModel::kRows;
  for (uint32_t i = 0; i < HazardState::kStride; ++i) {
    sound = sound && std::abs(row.weights[i]) <= kMostWeight;
    sound = sound && row.squares[i] > 0 && row.squares[i] <= kMostOfAFigure;
  }
  return sound;
}

}  // namespace

std::string EncodeHazardState(const HazardState& state) {
  Out out(kHeadBytes + state.rows.size() * kRowBytes);
  out.Put(kVersion);
  out.Put(kFeatureVersion);
  out.Put(state.instances);
  for (const double figure : {state.uses, state.lived_s, state.gain, state.gain_squares}) {
    out.Put(std::bit_cast<uint64_t>(figure));
  }
  out.Put(static_cast<uint32_t>(state.rows.size()));
  for (const HazardState::Row& row : state.rows) {
    out.Put(row.number);
    for (const float weight : row.weights) {
      out.Put(std::bit_cast<uint32_t>(weight));
    }
    for (const float squares : row.squares) {
      out.Put(std::bit_cast<uint32_t>(squares));
    }
  }
  return out.Take();
}

absl::StatusOr<HazardState> DecodeHazardState(absl::string_view bytes) {
  if (bytes.size() < kHeadBytes) {
    return absl::InvalidArgumentError("too short");
  }
  In in(bytes);
  if (in.Get<uint32_t>() != kVersion || in.Get<uint32_t>() != kFeatureVersion) {
    return absl::InvalidArgumentError("of another version");
  }
  HazardState state;
  state.instances = in.Get<uint64_t>();
  state.uses = in.GetDouble();
  state.lived_s = in.GetDouble();
  state.gain = in.GetDouble();
  state.gain_squares = in.GetDouble();
  const auto rows = in.Get<uint32_t>();
  if (rows > HazardModel::kRows || bytes.size() != kHeadBytes + rows * kRowBytes) {
    return absl::InvalidArgumentError("its length does not fit");
  }
  if (!IsSound(state)) {
    return absl::InvalidArgumentError("figures that are none");
  }
  state.rows.resize(rows);
  for (size_t i = 0; i < rows; ++i) {
    HazardState::Row& row = state.rows[i];
    row.number = in.Get<uint16_t>();
    for (float& weight : row.weights) {
      weight = in.GetFloat();
    }
    for (float& squares : row.squares) {
      squares = in.GetFloat();
    }
    if (!IsSound(row) || (i > 0 && row.number <= state.rows[i - 1].number)) {
      return absl::InvalidArgumentError("weights that are none");
    }
  }
  return state;
}

}  // namespace terrace
