#include "tiers/os/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"

namespace terrace {
namespace {

Descriptor OpenByKernel(int folder, const char* path, int flags, mode_t mode) {
  // EAGAIN: a rename anywhere on the machine got in the way of the kernel's own check.
  constexpr int kTries = 16;
  open_how how = {};
  how.flags = static_cast<unsigned>(flags);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  int64_t fd = -1;
  for (int i = 0; i < kTries; ++i) {
    fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
      break;
    }
  }
  return Descriptor(static_cast<int>(fd));
}

// Tells mounts apart; -1 with errno. Not by device numbers: within one overlay or btrfs they
// differ, and within two mounts of one file system they do not. Asks no server.
int64_t MountOf(int fd) {
  struct statx facts {};
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &facts) != 0) {
    return -1;
  }
  if ((facts.stx_mask & STATX_MNT_ID) == 0) {  // before Linux 5.8
    return static_cast<int64_t>(makedev(facts.stx_dev_major, facts.stx_dev_minor));
  }
  return static_cast<int64_t>(facts.stx_mnt_id);
}

}  // namespace

absl::StatusOr<BeneathFolder> BeneathFolder::Open(const std::string& path, Resolution resolution) {
  Descriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    return StatusFromErrno(errno, absl::StrCat("open folder ", path));
  }
  const int64_t mount = MountOf(fd.get());
  if (mount < 0) {
    return StatusFromErrno(errno, absl::StrCat("open folder ", path));
  }
  return BeneathFolder(std::move(fd), mount, resolution);
}

absl::StatusOr<BeneathFolder> BeneathFolder::Open(const std::string& path) {
  absl::StatusOr<BeneathFolder> folder = Open(path, Resolution::kKernel);
  if (folder.ok() && !folder->OpenWithin("", O_PATH).valid()) {
    // Absent, or forbidden by a filter that does not know it; whatever else is wrong with the
    // folder, the slower way will say so.
    folder->resolution_ = Resolution::kByComponents;
  }
  return folder;
}

Descriptor BeneathFolder::OpenWithin(const std::string& path, int flags, mode_t mode) const {
  flags |= O_CLOEXEC | O_NOFOLLOW;
  if (resolution_ == Resolution::kKernel) {
    return OpenByKernel(fd_.get(), path.empty() ? "." : path.c_str(), flags, mode);
  }
  return OpenByComponents(path, flags, mode);
}

Descriptor BeneathFolder::OpenByComponents(const std::string& path, int flags, mode_t mode) const {
  Descriptor folder;
  size_t begin = 0;
  for (;;) {
    const size_t slash = path.find('/', begin);
    const bool last = slash == std::string::npos;
    const std::string name = path.empty() ? "." : path.substr(begin, slash - begin);
    const int at = folder.valid() ? folder.get() : fd_.get();
    Descriptor next(last ? openat(at, name.c_str(), flags, mode)
                         : openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) {
      return next;
    }
    const int64_t mount = MountOf(next.get());
    if (mount != mount_) {
      const int error = mount < 0 ? errno : EXDEV;
      next = Descriptor();
      errno = error;
      return next;
    }
    if (last) {
      return next;
    }
    folder = std::move(next);
    begin = slash + 1;
  }
}

}  // namespace terrace
