// Whether the daemon could start with the keys of pools that a configuration names.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "daemon/config.h"

namespace terrace {

// Where the service manager puts the unit's credentials (CREDENTIALS_DIRECTORY); "": nowhere.
std::string CredentialsDir();

// Reads each, and forgets it. The names of tiers whose key is a credential of the service manager,
// where `credentials_dir` says that there is none: it is there only while the service runs. Errors:
// those of ReadSecret, with the tier and where it is configured.
absl::StatusOr<std::vector<std::string>> CheckSecrets(const LoadedConfig& loaded,
                                                      const std::string& credentials_dir);

}  // namespace terrace
