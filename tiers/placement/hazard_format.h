// How what a HazardModel has learnt is kept, little-endian:
//    0   4  version, 1
//    4   4  version of the list of features (phl_features.h): other features' weights say nothing
//    8   8  instances that were seen
//   16   8  uses            of the constant rate
//   24   8  seconds lived   of the constant rate
//   32   8  gain            of skill
//   40   8  gain, squared   of skill
//   48   4  rows that follow: those that differ from a new model's, ascending
//   52      a row: 2 bytes its number, 24 weights of 4, 24 sums of squares of 4
// Numbers are IEEE 754. Integrity is the concern of whoever keeps the bytes; what is decoded is
// finite and within the bounds that learning keeps by itself. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace terrace {

struct HazardState {
  static constexpr uint32_t kStride = 24;
  struct Row {
    uint16_t number = 0;
    std::array<float, kStride> weights{};
    std::array<float, kStride> squares{};
  };

  uint64_t instances = 0;
  double uses = 0;
  double lived_s = 0;
  double gain = 0;
  double gain_squares = 0;
  std::vector<Row> rows;
};

std::string EncodeHazardState(const HazardState& state);

// INVALID_ARGUMENT: another version, a length that doesn't fit, numbers that no model learns.
absl::StatusOr<HazardState> DecodeHazardState(absl::string_view bytes);

}  // namespace terrace
