#include "daemon/config_secrets.h"

#include <cstdlib>

#include "daemon/concat.h"
#include "daemon/protection/secret_file.h"

namespace terrace {

std::string CredentialsDir() {
  const char* const dir = std::getenv("CREDENTIALS_DIRECTORY");
  return dir == nullptr ? "" : dir;
}

absl::StatusOr<std::vector<std::string>> CheckSecrets(const LoadedConfig& loaded,
                                                      const std::string& credentials_dir) {
  std::vector<std::string> unchecked;
  for (size_t i = 0; i < loaded.config.tiers.size(); ++i) {
    const TierConfig& tier = loaded.config.tiers[i];
    if (tier.auth == PoolAuth::kNone) {
      continue;
    }
    if (!tier.key_credential.empty() && credentials_dir.empty()) {
      unchecked.push_back(tier.name);
      continue;
    }
    const absl::Status read =
        ReadSecret({tier.key_file, tier.key_credential, credentials_dir}).status();
    if (!read.ok()) {
      return absl::Status(read.code(), Concat(loaded.tier_origins[i], ": the key of tier ",
                                              tier.name, ": ", std::string(read.message())));
    }
  }
  return unchecked;
}

}  // namespace terrace
