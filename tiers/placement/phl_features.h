// What PHL knows of a use of a run, as rows of the hazard model. The list of features is the part
// of PHL that experiments change.
//
// Immutable values.
#pragma once

#include <array>
#include <cstdint>

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/hazard_model.h"

namespace terrace {

// Raised when the list changes, or how weights are learnt: they are kept over restarts, and those
// of another list say nothing.
inline constexpr uint32_t kFeatureVersion = 4;

inline constexpr size_t kFeatures = 13;

// Of the request.
struct RequestFacts {
  uint32_t input_tokens = 0;
  uint32_t output_tokens = 0;
  uint32_t user_tokens = 0;  // input - the previous input - the previous output
  uint32_t new_blocks = 0;   // never seen before
  uint32_t chain_blocks = 0;
  float gap_s = -1;  // since the previous turn; below 0: there was none
  float expected_return_s = 0;
  uint32_t app = 0;   // fingerprint of the deepest ancestor that many chains share
  uint16_t turn = 0;  // 0: begins a session
  StopReason stop = StopReason::kUnknown;
  bool session_end = false;

  friend bool operator==(const RequestFacts&, const RequestFacts&) = default;
};

// What the hints know replaces what the facts say.
void ApplyHints(const RequestHints& hints, RequestFacts& facts);

// Of the run in it.
struct RunFacts {
  uint32_t hits = 0;      // earlier uses
  uint32_t children = 0;  // ways on from its end
  uint32_t depth = 0;     // blocks before it
  uint32_t length = 0;
  bool last = false;  // the request ends at its end
};

std::array<HazardModel::Row, kFeatures> FeatureRows(const RequestFacts& request,
                                                    const RunFacts& run);

}  // namespace terrace
