// The [[tier]] sections: their keys, and what they must say together. Pure.
#pragma once

#include <string_view>

#include "absl/status/status.h"

#include "daemon/config.h"
#include "daemon/config_toml.h"

namespace terrace {

inline constexpr size_t kMaxTierNameBytes = 32;
inline constexpr std::string_view kTierKeys[] = {"name", "kind", "path", "capacity"};

// `key` is one of kTierKeys. Errors: INVALID_ARGUMENT that says what is allowed, without the key.
absl::Status SetTierKey(std::string_view key, const TomlValue& value, TierConfig* tier);

// That each section says all that it has to. Errors: INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CheckTiersAreComplete(const LoadedConfig& loaded);
// That the local drives can be what they are to be, by whatever they are configured. Errors:
// INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CheckLocalDrives(const LoadedConfig& loaded);

}  // namespace terrace
