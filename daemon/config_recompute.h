// The text in which a rule says how long computing takes: "TOKENS: TIME", one or two of them with a
// comma between. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "daemon/config_toml.h"
#include "tiers/placement/recompute_curve.h"

namespace terrace {

// Errors: INVALID_ARGUMENT that says what is allowed, without the key; also where no model passes
// through the points.
absl::Status SetRecompute(const TomlValue& value, std::vector<PrefillTime>* out);

// What SetRecompute reads.
std::string RecomputeText(const std::vector<PrefillTime>& points);

}  // namespace terrace
