// Opening what lies below a folder so that nothing that was planted there leads out of it: every
// component of a path is a name of the folder's own mount, and none is a symbolic link.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "tiers/os/descriptor.h"

namespace terrace {

// kKernel: by openat2(2), Linux 5.6, which systemd's RestrictSUIDSGID= forbids. kByComponents: one
// component after the other; before Linux 5.8 a folder of the same file system that is mounted a
// second time is not noticed.
enum class Resolution : uint8_t { kKernel, kByComponents };

// Immutable.
class BeneathFolder {
 public:
  // As the kernel can. NOT_FOUND; INVALID_ARGUMENT: no folder.
  static absl::StatusOr<BeneathFolder> Open(const std::string& path);
  static absl::StatusOr<BeneathFolder> Open(const std::string& path, Resolution resolution);

  // `path` is IsRootedPath, or "" for the folder itself. Flags and mode as of openat(2), with
  // O_CLOEXEC and O_NOFOLLOW added. Invalid: errno says why, ELOOP or ENOTDIR for a symbolic link,
  // EXDEV for another mount.
  [[nodiscard]] Descriptor OpenWithin(const std::string& path, int flags, mode_t mode = 0) const;

  [[nodiscard]] int get() const { return fd_.get(); }
  [[nodiscard]] Resolution resolution() const { return resolution_; }

 private:
  BeneathFolder(Descriptor fd, int64_t mount, Resolution resolution)
      : fd_(std::move(fd)), mount_(mount), resolution_(resolution) {}

  [[nodiscard]] Descriptor OpenByComponents(const std::string& path, int flags, mode_t mode) const;

  Descriptor fd_;
  int64_t mount_ = 0;
  Resolution resolution_ = Resolution::kKernel;
};

}  // namespace terrace
