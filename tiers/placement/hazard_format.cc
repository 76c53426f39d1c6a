#include "tiers/placement/hazard_format.h"

#include <bit>
#include <cmath>

#include "tiers/placement/hazard_model.h"
#include "tiers/placement/phl_features.h"
#include "tiers/vocab/little_endian.h"

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

double GetDouble(FieldReader& in) {
  return std::bit_cast<double>(in.U64());
}

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
  std::string text(kHeadBytes + state.rows.size() * kRowBytes, '\0');
  FieldWriter out(absl::MakeSpan(text));
  out.U32(kVersion);
  out.U32(kFeatureVersion);
  out.U64(state.instances);
  for (const double figure : {state.uses, state.lived_s, state.gain, state.gain_squares}) {
    out.U64(std::bit_cast<uint64_t>(figure));
  }
  out.U32(static_cast<uint32_t>(state.rows.size()));
  for (const HazardState::Row& row : state.rows) {
    out.U16(row.number);
    for (const float weight : row.weights) {
      out.U32(std::bit_cast<uint32_t>(weight));
    }
    for (const float squares : row.squares) {
      out.U32(std::bit_cast<uint32_t>(squares));
    }
  }
  return text;
}

absl::StatusOr<HazardState> DecodeHazardState(absl::string_view bytes) {
  if (bytes.size() < kHeadBytes) {
    return absl::InvalidArgumentError("too short");
  }
  FieldReader in({bytes.data(), bytes.size()});
  if (in.U32() != kVersion || in.U32() != kFeatureVersion) {
    return absl::InvalidArgumentError("of another version");
  }
  HazardState state;
  state.instances = in.U64();
  state.uses = GetDouble(in);
  state.lived_s = GetDouble(in);
  state.gain = GetDouble(in);
  state.gain_squares = GetDouble(in);
  const auto rows = in.U32();
  if (rows > HazardModel::kRows || bytes.size() != kHeadBytes + rows * kRowBytes) {
    return absl::InvalidArgumentError("its length does not fit");
  }
  if (!IsSound(state)) {
    return absl::InvalidArgumentError("figures that are none");
  }
  state.rows.resize(rows);
  for (size_t i = 0; i < rows; ++i) {
    HazardState::Row& row = state.rows[i];
    row.number = in.U16();
    for (float& weight : row.weights) {
      weight = std::bit_cast<float>(in.U32());
    }
    for (float& squares : row.squares) {
      squares = std::bit_cast<float>(in.U32());
    }
    if (!IsSound(row) || (i > 0 && row.number <= state.rows[i - 1].number)) {
      return absl::InvalidArgumentError("weights that are none");
    }
  }
  return state;
}

}  // namespace terrace
