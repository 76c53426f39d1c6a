// How long an engine computes over a prompt prefix that the cache did not save it, and what it
// caches of a token. A declared model, not a measurement.
//
// Llama-3-70B, 16-bit, on 4 H100 (SXM, 989 TFLOP/s dense each). Work of a prefix of n tokens:
//   linear     2 FLOP a parameter a token: 2 x 70.6e9 x n
//   attention  causal, 80 layers of width 8,192: 2 matrix products x 2 FLOP x 80 x 8,192 x n^2 / 2
// Published for this set-up: about 19 s to first token at 128K tokens (IBM, "Llama3-70B, 128K,
// 4xH100", 2025-11-26). The model's 4.11e16 FLOP in 19 s are 2.16e15 FLOP/s, 55 % of the hardware's
// peak, which fixes both terms:
//   seconds(n) = 6.54e-5 n + 6.07e-10 n^2      (8K: 0.6 s, 32K: 2.8 s, 128K: 19 s)
// Its KV of a token: 80 layers x 8 heads of 128 x K and V x 2 bytes.
#pragma once

#include <cstdint>

namespace terrace {

inline constexpr const char* kPrefillModelName = "Llama-3-70B on 4 H100, 128K tokens = 19 s";
inline constexpr double kPrefillSecondsPerToken = 6.54e-5;
inline constexpr double kPrefillSecondsPerSquare = 6.07e-10;
inline constexpr uint64_t kPrefillTokenBytes = uint64_t{80} * 8 * 128 * 2 * 2;

constexpr double PrefillSeconds(uint64_t tokens) {
  const auto n = static_cast<double>(tokens);
  return kPrefillSecondsPerToken * n + kPrefillSecondsPerSquare * n * n;
}

}  // namespace terrace
