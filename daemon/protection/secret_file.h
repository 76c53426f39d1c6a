// Reads the secret of a pool from where the operator put it. Blocks; never on a pool's mount.
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "daemon/protection/secret_bytes.h"

namespace terrace {

inline constexpr size_t kMaxSecretBytes = 4096;

// One of the two.
struct SecretSource {
  std::string file;             // absolute
  std::string credential;       // a name in `credentials_dir`
  std::string credentials_dir;  // CREDENTIALS_DIRECTORY of the service manager; "": there is none
};

// All of the file, whatever bytes it has. It must be a regular file with one name and 32 to 4096
// bytes, of this user or root, and nobody else may read or write it; a credential's group may read
// it, because the service manager keeps it where others cannot look.
// Errors, each naming the file and what is wrong, never what is in it: NOT_FOUND, PERMISSION_DENIED
// (also of others' rights), FAILED_PRECONDITION (a link, no regular file, too short, too long),
// INTERNAL.
absl::StatusOr<SecretBytes> ReadSecret(const SecretSource& source);

}  // namespace terrace
