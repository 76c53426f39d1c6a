// The rules of the file beyond single values: which sections and keys there are, tenants, and what
// settings must say together. Pure apart from the group database.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "daemon/config.h"
#include "daemon/config_toml.h"

namespace terrace {

// Puts the entries of a file into `loaded`. Errors: INVALID_ARGUMENT "FILE:LINE: ..." for the first
// wrong line.
absl::Status ApplyEntries(const std::vector<TomlEntry>& entries,
                          std::string_view file,
                          LoadedConfig* loaded);

// What settings must say together, and that the group exists; fills in Config::socket_gid.
// Errors: INVALID_ARGUMENT "ORIGIN: ...".
absl::Status CheckTogether(LoadedConfig* loaded);

}  // namespace terrace
