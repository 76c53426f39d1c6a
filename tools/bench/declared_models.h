// Models that a scenario may pretend to serve: what they cache of a token, and how long they
// compute over a prompt. Declared, not measured.
//
// Llama-3-8B on one H100, at the share of the hardware's peak that Llama-3-70B reaches on four
// (prefill_model.h: 55 % of 989 TFLOP/s):
//   linear     2 x 8.03e9 x n FLOP
//   attention  2 matrix products x 2 FLOP x 32 layers x 4,096 x n^2 / 2
//   seconds(n) = 2.95e-5 n + 4.82e-10 n^2      (8K: 0.27 s, 32K: 1.5 s, 128K: 12 s)
//   KV         32 layers x 8 heads of 128 x K and V x 2 bytes
#pragma once

#include <cstdint>
#include <string>

#include "tools/trace/prefill_model.h"

namespace terrace::bench {

struct DeclaredModel {
  const char* id;
  const char* name;
  uint64_t kv_bytes_a_token;
  double seconds_a_token;
  double seconds_a_square;

  [[nodiscard]] constexpr double Seconds(uint64_t tokens) const {
    const auto n = static_cast<double>(tokens);
    return seconds_a_token * n + seconds_a_square * n * n;
  }
};

inline constexpr DeclaredModel kDeclaredModels[] = {
    {"llama-3-8b", "Llama-3-8B on one H100, at 55 % of its peak", uint64_t{32} * 8 * 128 * 2 * 2,
     2.95e-5, 4.82e-10},
    {"llama-3-70b", kPrefillModelName, kPrefillTokenBytes, kPrefillSecondsPerToken,
     kPrefillSecondsPerSquare},
};

// Null: none has this id.
inline const DeclaredModel* FindDeclaredModel(const std::string& id) {
  for (const DeclaredModel& model : kDeclaredModels) {
    if (id == model.id) {
      return &model;
    }
  }
  return nullptr;
}

}  // namespace terrace::bench
