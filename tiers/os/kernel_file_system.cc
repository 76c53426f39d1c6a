// Folders and files of the kernel.
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include <dirent.h>

#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

absl::Status Failure(int error, absl::string_view what, absl::string_view name) {
  const std::string text = absl::StrCat(what, " ", name);
  if (error == ELOOP || error == EISDIR || error == ENXIO || error == ENAMETOOLONG) {
    char reason[128];
    return absl::InvalidArgumentError(
        absl::StrCat(text, ": ", strerror_r(error, reason, sizeof(reason))));
  }
  return StatusFromErrno(error, text);
}

absl::Status CheckName(absl::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != absl::string_view::npos ||
      name.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("name: one component of a path");
  }
  return absl::OkStatus();
}

class KernelFile final : public File {
 public:
  KernelFile(Descriptor fd, bool direct) : fd_(std::move(fd)), direct_(direct) {}

  absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) override {
    return Moved("read", [&] {
      return pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    });
  }
  absl::StatusOr<uint64_t> WriteAt(uint64_t offset, absl::Span<const char> bytes) override {
    return Moved("write", [&] {
      return pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
  }
  absl::Status Sync() override {
    // Never repeated: after a failure the kernel may have dropped what it could not write.
    return fdatasync(fd_.get()) == 0 ? absl::OkStatus() : StatusFromErrno(errno, "sync");
  }
  absl::Status Preallocate(uint64_t bytes) override {
    int error = 0;
    do {
      error = fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error != EOPNOTSUPP && error != ENOSYS) {
      return error == 0 ? absl::OkStatus() : StatusFromErrno(error, "preallocate");
    }
    const absl::StatusOr<uint64_t> size = Size();
    if (!size.ok() || *size >= bytes) {
      return size.status();
    }
    return ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0
               ? absl::OkStatus()
               : StatusFromErrno(errno, "preallocate");
  }
  [[nodiscard]] absl::StatusOr<uint64_t> Size() const override {
    struct stat status {};
    if (fstat(fd_.get(), &status) != 0) {
      return StatusFromErrno(errno, "size");
    }
    return static_cast<uint64_t>(status.st_size);
  }
  [[nodiscard]] int descriptor() const override { return fd_.get(); }
  [[nodiscard]] bool direct() const override { return direct_; }

 private:
  template <typename Call>
  static absl::StatusOr<uint64_t> Moved(const char* what, Call call) {
    ssize_t moved = 0;
    do {
      moved = call();
    } while (moved < 0 && errno == EINTR);
    if (moved < 0) {
      return StatusFromErrno(errno, what);
    }
    return static_cast<uint64_t>(moved);
  }

  const Descriptor fd_;
  const bool direct_;
};

struct FolderCloser {
  void operator()(DIR* listing) const { closedir(listing); }
};

EntryKind KindOf(mode_t mode) {
  if (S_ISREG(mode)) {
    return EntryKind::kFile;
  }
  return S_ISDIR(mode) ? EntryKind::kFolder : EntryKind::kOther;
}

class KernelFolder final : public Folder {
 public:
  KernelFolder(std::string path, Descriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view name,
                                             OpenMode mode,
                                             Caching caching) override {
    if (absl::Status checked = CheckName(name); !checked.ok()) {
      return checked;
    }
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;  // O_NONBLOCK: a FIFO must not hold us up
    flags |= mode == OpenMode::kRead ? O_RDONLY : O_RDWR;
    flags |= mode == OpenMode::kCreateNew ? O_CREAT | O_EXCL : 0;
    flags |= caching == Caching::kDirect ? O_DIRECT : 0;
    Descriptor fd(openat(fd_.get(), std::string(name).c_str(), flags, 0600));
    if (!fd.valid()) {
      const int error = errno;
      if (mode == OpenMode::kCreateNew && error == EINVAL) {
        // Linux makes the name before it finds that the file system has no O_DIRECT.
        unlinkat(fd_.get(), std::string(name).c_str(), 0);
      }
      return Failure(error, "open", name);
    }
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) {
      return Failure(errno, "open", name);
    }
    const bool foreign = status.st_nlink > 1 || status.st_uid != geteuid();
    if (!S_ISREG(status.st_mode) || (foreign && mode != OpenMode::kRead)) {
      return absl::InvalidArgumentError(
          absl::StrCat("open ", name, ": not a regular file with one name and our owner"));
    }
    // io_uring would answer EAGAIN for a file that must not block.
    if (fcntl(fd.get(), F_SETFL, caching == Caching::kDirect ? O_DIRECT : 0) != 0) {
      return Failure(errno, "open", name);
    }
    return std::make_unique<KernelFile>(std::move(fd), caching == Caching::kDirect);
  }

  absl::Status Rename(absl::string_view from, absl::string_view to) override {
    if (!CheckName(from).ok() || !CheckName(to).ok()) {
      return CheckName("");
    }
    return renameat(fd_.get(), std::string(from).c_str(), fd_.get(), std::string(to).c_str()) == 0
               ? absl::OkStatus()
               : Failure(errno, "rename", from);
  }
  absl::Status Remove(absl::string_view name) override {
    if (absl::Status checked = CheckName(name); !checked.ok()) {
      return checked;
    }
    return unlinkat(fd_.get(), std::string(name).c_str(), 0) == 0 ? absl::OkStatus()
                                                                  : Failure(errno, "remove", name);
  }

  absl::StatusOr<std::vector<FolderEntry>> List() override {
    // A description of its own: the position of a shared one would be shared.
    Descriptor fd(openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      return Failure(errno, "list", path_);
    }
    const std::unique_ptr<DIR, FolderCloser> listing(fdopendir(fd.get()));
    if (listing == nullptr) {
      return Failure(errno, "list", path_);
    }
    [[maybe_unused]] const int owned_by_listing = fd.Release();
    std::vector<FolderEntry> entries;
    errno = 0;
    while (const dirent* entry = readdir(listing.get())) {
      const std::string name = entry->d_name;
      struct stat status {};
      if (name != "." && name != ".." &&
          fstatat(fd_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
        entries.push_back({name, KindOf(status.st_mode), static_cast<uint64_t>(status.st_size)});
      }
      errno = 0;
    }
    if (errno != 0) {
      return Failure(errno, "list", path_);
    }
    std::sort(entries.begin(), entries.end(),
              [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
    return entries;
  }

  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : Failure(errno, "sync", path_);
  }
  absl::StatusOr<FolderSpace> Space() override {
    struct statvfs status {};
    if (fstatvfs(fd_.get(), &status) != 0) {
      return Failure(errno, "free space of", path_);
    }
    return FolderSpace{status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize};
  }

  absl::StatusOr<FolderIdentity> Identity() override {
    struct stat status {};
    if (fstat(fd_.get(), &status) != 0) {
      return Failure(errno, "identity of", path_);
    }
    return FolderIdentity{status.st_dev, status.st_ino};
  }
  absl::StatusOr<FolderIdentity> IdentityAtPath() override {
    struct stat status {};
    if (stat(path_.c_str(), &status) != 0) {
      return Failure(errno, "identity of", path_);
    }
    return FolderIdentity{status.st_dev, status.st_ino};
  }

  absl::Status OwnExclusively() override {
    if (flock(fd_.get(), LOCK_EX | LOCK_NB) == 0) {
      return absl::OkStatus();
    }
    return errno == EWOULDBLOCK
               ? absl::UnavailableError(absl::StrCat(path_, " is owned by another process"))
               : Failure(errno, "own", path_);
  }

  absl::StatusOr<TransferFact> ProbeTransfers() override {
    Descriptor fd = OpenScratch(O_DIRECT);
    if (!fd.valid()) {
      const int error = errno;
      // Only a file system that can be written to may be said to lack O_DIRECT.
      if (Descriptor plain = OpenScratch(0); !plain.valid()) {
        return Failure(errno, "probe", path_);
      }
      char text[128];
      return TransferFact{Caching::kBuffered, 1,
                          absl::StrCat("O_DIRECT: ", strerror_r(error, text, sizeof(text)))};
    }
    for (const uint32_t alignment : {512U, 4096U}) {
      const absl::Status tried = TryTransfers(fd.get(), alignment);
      if (tried.ok()) {
        return TransferFact{Caching::kDirect, alignment, ""};
      }
      if (!absl::IsInvalidArgument(tried)) {
        return tried;
      }
    }
    return TransferFact{Caching::kBuffered, 1, "O_DIRECT needs more than 4096-byte alignment"};
  }

 private:
  // A file without a name; errno when invalid.
  [[nodiscard]] Descriptor OpenScratch(int direct) const {
    Descriptor nameless(openat(fd_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC | direct, 0600));
    if (nameless.valid() || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) {
      return nameless;
    }
    uint64_t number = 0;
    FillRandom({reinterpret_cast<char*>(&number), sizeof(number)});
    const std::string name = absl::StrCat(kScratchPrefix, absl::Hex(number));
    Descriptor named(
        openat(fd_.get(), name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | direct, 0600));
    const int error = errno;
    unlinkat(fd_.get(), name.c_str(), 0);
    errno = error;
    return named;
  }

  static absl::Status TryTransfers(int fd, uint32_t alignment) {
    const AlignedBuffer room(uint64_t{4} * 4096);
    char* const written = room.bytes() + alignment;
    char* const got = room.bytes() + 8192 + alignment;
    std::memset(written, 0x5a, alignment);
    if (pwrite(fd, written, alignment, alignment) != static_cast<ssize_t>(alignment)) {
      return StatusFromErrno(errno, "probe by a write");
    }
    if (pread(fd, got, alignment, alignment) != static_cast<ssize_t>(alignment)) {
      return StatusFromErrno(errno, "probe by a read");
    }
    return std::memcmp(written, got, alignment) == 0
               ? absl::OkStatus()
               : absl::DataLossError("probe: what was read is not what was written");
  }

  const std::string path_;
  const Descriptor fd_;
};

class KernelFileSystemImpl final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<Folder>> OpenFolder(const std::string& path,
                                                     FolderMode mode) override {
    if (mode == FolderMode::kCreate && mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return Failure(errno, "make folder", path);
    }
    Descriptor fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) {
      return Failure(errno, "open folder", path);
    }
    return std::make_unique<KernelFolder>(path, std::move(fd));
  }
};

}  // namespace

FileSystem& KernelFileSystem() {
  static KernelFileSystemImpl file_system;
  return file_system;
}

}  // namespace terrace
