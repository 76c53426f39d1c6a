// The [[tier]] sections: their keys, and what they must say together. Pure.
#pragma once

#include <string_view>

#include "absl/status/status.h"

#include "daemon/config.h"
#include "daemon/config_toml.h"

namespace terrace {

inline constexpr size_t kMaxTierNameBytes = 32;
inline constexpr std::string_view kTierKeys[] = {
    "name",    "kind",         "path",          "capacity", "node_share",
    "publish", "segment_size", "free_reserve",  "grace",    "dead_after",
    "auth",    "key_file",     "key_credential"};
// Whether only a shared tier has the key.
bool IsSharedTierKey(std::string_view key);

// `key` is one of kTierKeys. Errors: INVALID_ARGUMENT that says what is allowed, without the key.
absl::Status SetTierKey(std::string_view key, const TomlValue& value, TierConfig* tier);

absl::Status SetPublish(const TomlValue& value, PublishWhen* publish);

// That each section says all that it has to; names drives that are not named. Errors:
// INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CompleteTiers(LoadedConfig* loaded);
// That the tiers can be what they are to be, by whatever they are configured; from the text alone,
// because a shared folder may hang whoever looks at it. Errors: INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CheckTiers(const LoadedConfig& loaded);

}  // namespace terrace
