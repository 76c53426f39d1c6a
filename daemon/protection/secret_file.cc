#include "daemon/protection/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "daemon/protection/sealed_protection.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// What others must not be allowed.
constexpr mode_t kFileOthers = 0177;
constexpr mode_t kCredentialOthers = 0137;

absl::Status Failure(const std::string& path, std::string_view what) {
  const int error = errno;
  if (error == ELOOP) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": must not be a symbolic link"));
  }
  const std::string text =
      absl::StrCat(path, ": ", std::string(what), ": ", std::system_category().message(error));
  if (error == ENOENT || error == ENOTDIR) {
    return absl::NotFoundError(text);
  }
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(text)
                                           : absl::InternalError(text);
}

absl::Status Check(const std::string& path, const struct stat& facts, mode_t others) {
  if (!S_ISREG(facts.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": must be a regular file"));
  }
  if (facts.st_nlink != 1) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": must have no other name (link)"));
  }
  if (facts.st_uid != geteuid() && facts.st_uid != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        path, ": must belong to this user or to root, not to the user ", facts.st_uid));
  }
  if ((facts.st_mode & others) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": others may read, write or execute it; chmod 0600 it"));
  }
  if (static_cast<uint64_t>(facts.st_size) < kMinSecretBytes ||
      static_cast<uint64_t>(facts.st_size) > kMaxSecretBytes) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": must have ", kMinSecretBytes, " to ",
                                                      kMaxSecretBytes, " bytes, not ",
                                                      facts.st_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<SecretBytes> ReadChecked(const std::string& path, mode_t others) {
  // Without waiting for who writes into a FIFO.
  const Descriptor file(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat facts = {};
  if (!file.valid() || fstat(file.get(), &facts) != 0) {
    return Failure(path, "cannot be opened");
  }
  if (absl::Status status = Check(path, facts, others); !status.ok()) {
    return status;
  }
  SecretBytes secret(kMaxSecretBytes + 1);
  size_t have = 0;
  while (have < secret.view().size()) {
    const ssize_t got = read(file.get(), secret.span().data() + have, secret.view().size() - have);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return Failure(path, "cannot be read");
    }
    if (got == 0) {
      break;
    }
    have += static_cast<size_t>(got);
  }
  if (have != static_cast<size_t>(facts.st_size)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": changed while it was read"));
  }
  secret.Shrink(have);
  return secret;
}

}  // namespace

absl::StatusOr<SecretBytes> ReadSecret(const SecretSource& source) {
  if (!source.file.empty()) {
    return ReadChecked(source.file, kFileOthers);
  }
  if (source.credentials_dir.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "the credential ", source.credential,
        " is not there: CREDENTIALS_DIRECTORY is not set; does the unit say LoadCredential=?"));
  }
  return ReadChecked(absl::StrCat(source.credentials_dir, "/", source.credential),
                     kCredentialOthers);
}

}  // namespace terrace
