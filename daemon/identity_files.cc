#include "daemon/identity_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "daemon/concat.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr size_t kHexDigits = 32;

absl::Status Failure(const std::string& path, std::string_view what) {
  const int error = errno;
  const std::string text = Concat(path, ": ", what, ": ", std::system_category().message(error));
  return error == EACCES || error == EPERM || error == EROFS ? absl::PermissionDeniedError(text)
                                                             : absl::InternalError(text);
}

bool Parse(std::string_view text, Digest128* out) {
  if (text.size() != kHexDigits + 1 || text.back() != '\n') {
    return false;
  }
  const char* begin = text.data();
  const char* middle = begin + kHexDigits / 2;
  const char* end = begin + kHexDigits;
  const std::from_chars_result hi = std::from_chars(begin, middle, out->hi, 16);
  const std::from_chars_result lo = std::from_chars(middle, end, out->lo, 16);
  return hi.ec == std::errc() && hi.ptr == middle && lo.ec == std::errc() && lo.ptr == end &&
         !out->IsZero();
}

// Zero: there is no such file.
absl::StatusOr<Digest128> ReadIdentity(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) {
    return errno == ENOENT ? absl::StatusOr<Digest128>(Digest128{})
                           : Failure(path, "cannot be opened");
  }
  char buffer[kHexDigits + 2];
  const ssize_t got = pread(file.get(), buffer, sizeof(buffer), 0);
  if (got < 0) {
    return Failure(path, "cannot be read");
  }
  Digest128 identity;
  if (!Parse({buffer, static_cast<size_t>(got)}, &identity)) {
    return absl::FailedPreconditionError(
        Concat(path, ": holds no identity; without the file a new one begins"));
  }
  return identity;
}

absl::Status SyncFolder(const std::string& folder) {
  const Descriptor opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return opened.valid() && fsync(opened.get()) == 0 ? absl::OkStatus()
                                                    : Failure(folder, "cannot be synced");
}

// Under its name there is all of it or nothing.
absl::Status WriteIdentity(const std::string& folder,
                           const std::string& name,
                           const Digest128& identity) {
  const std::string path = Concat(folder, "/", name);
  const std::string temporary = Concat(path, ".new");
  const std::string text = Concat(identity.ToHex(), "\n");
  const Descriptor file(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    return Failure(temporary, "cannot be made");
  }
  if (pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      fsync(file.get()) != 0) {
    return Failure(temporary, "cannot be written");
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return Failure(path, "cannot be put in its place");
  }
  return SyncFolder(folder);
}

std::string PoolFileOf(const std::string& tier) {
  return Concat("pool-", tier);
}

}  // namespace

absl::StatusOr<Digest128> NodeIdentity(const std::string& data_dir) {
  absl::StatusOr<Digest128> known = ReadIdentity(Concat(data_dir, "/node"));
  if (!known.ok() || !known->IsZero()) {
    return known;
  }
  Digest128 fresh;
  while (fresh.IsZero()) {
    FillRandom({reinterpret_cast<char*>(&fresh), sizeof(fresh)});
  }
  if (absl::Status status = WriteIdentity(data_dir, "node", fresh); !status.ok()) {
    return status;
  }
  return fresh;
}

absl::StatusOr<Digest128> RememberedPool(const std::string& data_dir, const std::string& tier) {
  return ReadIdentity(Concat(data_dir, "/", PoolFileOf(tier)));
}

absl::Status RememberPool(const std::string& data_dir,
                          const std::string& tier,
                          const Digest128& pool) {
  const absl::StatusOr<Digest128> known = RememberedPool(data_dir, tier);
  return known.ok() && *known == pool ? absl::OkStatus()
                                      : WriteIdentity(data_dir, PoolFileOf(tier), pool);
}

}  // namespace terrace
