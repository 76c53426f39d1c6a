// The kernel's files below a root.
#include "tiers/os/rooted_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
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

#include "tiers/os/beneath.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/folder_listing.h"
#include "tiers/os/kept_folders.h"
#include "tiers/os/open_files.h"
#include "tiers/os/rooted_failure.h"

namespace terrace {
namespace {

// Half of what a process may have open by default.
constexpr size_t kMaxOpenFiles = 512;
constexpr uint64_t kDirectUnit = 4096;

using FilePtr = OpenFiles::FilePtr;

absl::Status BadPath() {
  return absl::InvalidArgumentError("path: not one below the root");
}

// The last component.
std::string NameIn(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

bool IsDirectTransfer(uint64_t offset, absl::Span<const char> bytes) {
  return !bytes.empty() &&
         (offset | bytes.size() | reinterpret_cast<uintptr_t>(bytes.data())) % kDirectUnit == 0;
}

// Some file systems have nothing to do there and say EINVAL.
int SyncFolder(int fd) {
  return fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
}

// What a folder of the pool has under construction: a file under a temporary name.
struct Temporary {
  FilePtr folder;
  std::string name;
  FilePtr file;
};

class KernelRootedFiles final : public RootedFiles {
 public:
  KernelRootedFiles(std::string path, BeneathFolder root)
      : path_(std::move(path)), root_(std::move(root)) {}

  absl::StatusOr<uint64_t> Read(absl::string_view path,
                                uint64_t offset,
                                absl::Span<char> out,
                                ReadHow how) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    const OpenFiles::Name name = NameFor(path, FileAccess::kRead, offset, out);
    absl::StatusOr<uint64_t> got = ReadOnce(name, offset, out, how);
    if (absl::IsUnavailable(got.status()) || absl::IsAborted(got.status())) {
      // What was open is not what the path leads to any more, or it is only now being named.
      files_.Forget(name);
      got = ReadOnce(name, offset, out, ReadHow::kFresh);
    }
    return absl::IsAborted(got.status()) ? absl::InvalidArgumentError(got.status().message()) : got;
  }

  absl::Status Write(absl::string_view path,
                     uint64_t offset,
                     absl::Span<const char> bytes) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    const OpenFiles::Name name = NameFor(path, FileAccess::kReadWrite, offset, bytes);
    const absl::StatusOr<FilePtr> file = Opened(name);
    if (!file.ok()) {
      return file.status();
    }
    absl::Status written = WriteAll(**file, path, offset, bytes);
    if (!written.ok()) {
      files_.Forget(name);
    }
    return written;
  }

  absl::Status Sync(absl::string_view path) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    OpenFiles::Name name{std::string(path), FileAccess::kReadWrite, Caching::kDirect};
    FilePtr file = files_.Find(name);
    if (file == nullptr) {
      name.caching = Caching::kBuffered;
      absl::StatusOr<FilePtr> opened = Opened(name);
      if (!opened.ok()) {
        return opened.status();
      }
      file = *std::move(opened);
    }
    // Never repeated: after a failure the kernel may have dropped what it could not write.
    if (fdatasync(file->fd.get()) != 0) {
      const int error = errno;
      files_.Forget(name);
      return RootedFailure(error, "sync", path);
    }
    return absl::OkStatus();
  }

  absl::Status Make(absl::string_view path, uint64_t bytes) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    const std::string name = NameIn(path);
    FilePtr folder;
    FilePtr file;
    absl::Status status = folders_.Within(path, "make", [&](const FilePtr& in) {
      folder = in;
      return OpenNew(in->fd.get(), name.c_str(), &file);
    });
    if (!status.ok()) {
      return status;
    }
    files_.Forget({std::string(path), {}, {}});
    int error = Preallocate(file->fd.get(), bytes);
    error = error == 0 ? SyncFolder(folder->fd.get()) : error;
    if (error != 0) {
      unlinkat(folder->fd.get(), name.c_str(), 0);
      return RootedFailure(error, "make", path);
    }
    // It is written next.
    const Caching caching = file->direct.load() ? Caching::kDirect : Caching::kBuffered;
    files_.Keep({std::string(path), FileAccess::kReadWrite, caching}, std::move(file));
    return absl::OkStatus();
  }

  absl::Status Create(absl::string_view path, absl::Span<const char> content) override {
    const absl::StatusOr<Temporary> made = WriteTemporary(path, content);
    if (!made.ok()) {
      return made.status();
    }
    const int error = NameAnew(*made, NameIn(path));
    return Finish(*made, error, path);
  }

  absl::Status Replace(absl::string_view path, absl::Span<const char> content) override {
    const absl::StatusOr<Temporary> made = WriteTemporary(path, content);
    if (!made.ok()) {
      return made.status();
    }
    const std::string name = NameIn(path);
    const int folder = made->folder->fd.get();
    int error = renameat(folder, made->name.c_str(), folder, name.c_str()) == 0 ? 0 : errno;
    if (error == ENOENT && IsAt(*made, name)) {
      error = 0;  // the answer was lost on its way and the question asked again
    }
    return Finish(*made, error, path);
  }

  absl::Status Remove(absl::string_view path) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    files_.Forget({std::string(path), {}, {}});
    return folders_.Within(path, "remove", [&](const FilePtr& folder) {
      return unlinkat(folder->fd.get(), NameIn(path).c_str(), 0) == 0 ? 0 : errno;
    });
  }

  absl::Status MakeFolder(absl::string_view path) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    FilePtr folder;
    const absl::Status made = folders_.Within(path, "make folder", [&](const FilePtr& in) {
      folder = in;
      return mkdirat(in->fd.get(), NameIn(path).c_str(), 0700) == 0 ? 0 : errno;
    });
    if (made.ok()) {
      const int error = SyncFolder(folder->fd.get());
      return error == 0 ? made : RootedFailure(error, "make folder", path);
    }
    if (!absl::IsAlreadyExists(made)) {
      return made;
    }
    // Whether what is there is a folder.
    return root_.OpenWithin(std::string(path), O_PATH | O_DIRECTORY).valid()
               ? absl::OkStatus()
               : RootedFailure(errno, "make folder", path);
  }

  absl::Status RemoveFolder(absl::string_view path) override {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    folders_.Forget(path);
    return folders_.Within(path, "remove folder", [&](const FilePtr& folder) {
      if (unlinkat(folder->fd.get(), NameIn(path).c_str(), AT_REMOVEDIR) == 0) {
        return 0;
      }
      return errno == EEXIST ? ENOTEMPTY
                             : errno;  // POSIX lets a folder that is not empty be either
    });
  }

  absl::StatusOr<std::vector<FolderEntry>> List(absl::string_view path) override {
    if (!path.empty() && !IsRootedPath(path)) {
      return BadPath();
    }
    const Descriptor fd = root_.OpenWithin(std::string(path), O_RDONLY | O_DIRECTORY);
    if (!fd.valid()) {
      return RootedFailure(errno, "list", path);
    }
    std::vector<FolderEntry> entries;
    const int error = ListFolder(fd.get(), kMaxEntries, &entries);
    if (error == E2BIG) {
      return absl::ResourceExhaustedError(absl::StrCat("list ", path, ": too many entries"));
    }
    if (error != 0) {
      return RootedFailure(error, "list", path);
    }
    return entries;
  }

  absl::StatusOr<FolderSpace> Space() override {
    struct statvfs status {};
    if (fstatvfs(root_.get(), &status) != 0) {
      return RootedFailure(errno, "free space of", "");
    }
    return FolderSpace{status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize};
  }

  absl::Status CheckRoot() override {
    folders_.Clear();
    struct stat here {};
    struct stat there {};
    if (fstat(root_.get(), &here) != 0) {
      return absl::UnavailableError(RootedFailure(errno, "check", "").message());
    }
    if (stat(path_.c_str(), &there) != 0) {
      return absl::UnavailableError(RootedFailure(errno, "check", "").message());
    }
    return here.st_dev == there.st_dev && here.st_ino == there.st_ino
               ? absl::OkStatus()
               : absl::UnavailableError("check the root: its path leads to another folder");
  }

 private:
  // How a transfer is best made.
  [[nodiscard]] OpenFiles::Name NameFor(absl::string_view path,
                                        FileAccess access,
                                        uint64_t offset,
                                        absl::Span<const char> bytes) const {
    const bool direct = direct_.load() && IsDirectTransfer(offset, bytes);
    return {std::string(path), access, direct ? Caching::kDirect : Caching::kBuffered};
  }

  // Invalid: errno says why. *direct: whether the page cache is bypassed.
  Descriptor OpenForTransfers(const OpenFiles::Name& name, bool* direct) {
    const int flags = O_NONBLOCK | (name.access == FileAccess::kRead ? O_RDONLY : O_RDWR);
    *direct = name.caching == Caching::kDirect && direct_.load();
    Descriptor fd = root_.OpenWithin(name.path, flags | (*direct ? O_DIRECT : 0));
    if (!fd.valid() && errno == EINVAL && *direct) {
      direct_ = *direct = false;
      fd = root_.OpenWithin(name.path, flags);
    }
    return fd;
  }

  // A file of this name that was not there; errno.
  int OpenNew(int folder, const char* name, FilePtr* file) {
    const int flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC;
    bool direct = direct_.load();
    Descriptor fd(openat(folder, name, flags | (direct ? O_DIRECT : 0), 0600));
    if (!fd.valid() && errno == EINVAL && direct) {
      direct_ = direct = false;
      unlinkat(folder, name, 0);  // the kernel makes the name before it refuses
      fd = Descriptor(openat(folder, name, flags, 0600));
    }
    if (!fd.valid()) {
      return errno;
    }
    *file = std::make_shared<OpenFile>(std::move(fd), direct);
    return 0;
  }

  // ABORTED where a file that is only read has two names: one that is being made has them for a
  // moment, on file systems without RENAME_NOREPLACE.
  absl::StatusOr<FilePtr> OpenAnew(const OpenFiles::Name& name) {
    bool direct = false;
    Descriptor fd = OpenForTransfers(name, &direct);
    struct stat status {};
    if (!fd.valid() || fstat(fd.get(), &status) != 0) {
      return RootedFailure(errno, "open", name.path);
    }
    if (!S_ISREG(status.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat("open ", name.path, ": no regular file"));
    }
    if (status.st_nlink > 1) {
      const std::string why = absl::StrCat("open ", name.path, ": has several names");
      const bool may_pass = status.st_nlink == 2 && name.access == FileAccess::kRead;
      return may_pass ? absl::AbortedError(why) : absl::InvalidArgumentError(why);
    }
    return std::make_shared<OpenFile>(std::move(fd), direct);
  }

  absl::StatusOr<FilePtr> Opened(const OpenFiles::Name& name) {
    if (FilePtr file = files_.FindOrOpen(name); file != nullptr) {
      return file;
    }
    absl::StatusOr<FilePtr> file = OpenAnew(name);
    files_.Opened(name, file.ok() ? *file : nullptr);
    return file;
  }

  // Read fresh: what others wrote shows, and stays open only where somebody reads it kept.
  absl::StatusOr<FilePtr> OpenedFresh(const OpenFiles::Name& name) {
    const bool kept = files_.Forget(name);
    absl::StatusOr<FilePtr> file = OpenAnew(name);
    if (!file.ok()) {
      return file;
    }
    if (!(*file)->direct.load()) {
      posix_fadvise((*file)->fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    if (kept) {
      files_.Keep(name, *file);
    }
    return file;
  }

  absl::StatusOr<uint64_t> ReadOnce(const OpenFiles::Name& name,
                                    uint64_t offset,
                                    absl::Span<char> out,
                                    ReadHow how) {
    if (how == ReadHow::kGlance) {
      return Glance(name, offset, out);
    }
    const absl::StatusOr<FilePtr> file = how == ReadHow::kFresh ? OpenedFresh(name) : Opened(name);
    if (!file.ok()) {
      return file.status();
    }
    return ReadAll(**file, name.path, offset, out);
  }

  absl::StatusOr<uint64_t> Glance(const OpenFiles::Name& name,
                                  uint64_t offset,
                                  absl::Span<char> out) {
    bool direct = false;
    Descriptor fd = OpenForTransfers(name, &direct);
    if (!fd.valid()) {
      return RootedFailure(errno, "open", name.path);
    }
    if (!direct) {
      posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    OpenFile file(std::move(fd), direct);
    ssize_t moved = 0;
    do {
      moved = pread(file.fd.get(), out.data(), out.size(), static_cast<off_t>(offset));
    } while (moved < 0 && MayRepeat(file, errno));
    if (moved < 0) {
      return RootedFailure(errno, "read", name.path);
    }
    NoteDirect(file);
    return static_cast<uint64_t>(moved);
  }

  // A direct transfer that ends within a unit is continued from the unit's begin: at the end of the
  // file that brings nothing new.
  absl::StatusOr<uint64_t> ReadAll(OpenFile& file,
                                   absl::string_view path,
                                   uint64_t offset,
                                   absl::Span<char> out) {
    uint64_t known = 0;
    uint64_t from = 0;
    while (known < out.size()) {
      const ssize_t moved = pread(file.fd.get(), out.data() + from, out.size() - from,
                                  static_cast<off_t>(offset + from));
      if (moved < 0) {
        if (!MayRepeat(file, errno)) {
          return RootedFailure(errno, "read", path);
        }
        continue;
      }
      NoteDirect(file);
      const uint64_t end = from + static_cast<uint64_t>(moved);
      if (end <= known) {
        break;
      }
      known = end;
      from = file.direct.load() ? end / kDirectUnit * kDirectUnit : end;
    }
    return known;
  }

  absl::Status WriteAll(OpenFile& file,
                        absl::string_view path,
                        uint64_t offset,
                        absl::Span<const char> bytes) {
    uint64_t from = 0;
    uint64_t known = 0;
    while (known < bytes.size()) {
      const ssize_t moved = pwrite(file.fd.get(), bytes.data() + from, bytes.size() - from,
                                   static_cast<off_t>(offset + from));
      if (moved < 0) {
        if (!MayRepeat(file, errno)) {
          return RootedFailure(errno, "write", path);
        }
        continue;
      }
      NoteDirect(file);
      // A disk that fills up takes less, and says why when it is asked again.
      const uint64_t end = from + static_cast<uint64_t>(moved);
      if (end <= known) {
        return absl::ResourceExhaustedError(
            absl::StrCat("write ", path, ": nothing more is taken"));
      }
      known = end;
      from = file.direct.load() ? end / kDirectUnit * kDirectUnit : end;
    }
    return absl::OkStatus();
  }

  // Whether a transfer that failed is to be made again: it was interrupted, or it was direct and
  // the file does not have that.
  bool MayRepeat(OpenFile& file, int error) {
    if (error == EINTR) {
      return true;
    }
    if (error != EINVAL || !file.direct.exchange(false)) {
      return false;
    }
    if (!direct_works_.load()) {
      direct_ = false;
    }
    const int flags = fcntl(file.fd.get(), F_GETFL);
    return fcntl(file.fd.get(), F_SETFL, flags & ~O_DIRECT) == 0;
  }
  void NoteDirect(const OpenFile& file) {
    if (file.direct.load() && !direct_works_.load()) {
      direct_works_ = true;
    }
  }

  static int Preallocate(int fd, uint64_t bytes) {
    int error = 0;
    do {
      error = bytes == 0 || fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EOPNOTSUPP || error == ENOSYS) {
      error = ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    }
    return error;
  }

  absl::StatusOr<Temporary> WriteTemporary(absl::string_view path, absl::Span<const char> content) {
    if (content.size() > kMaxSmallFileBytes) {
      return absl::InvalidArgumentError("content: at most 4 MiB");
    }
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    uint64_t number = 0;
    FillRandom({reinterpret_cast<char*>(&number), sizeof(number)});
    Temporary made;
    made.name = absl::StrCat(kTemporaryPrefix, absl::Hex(number, absl::kZeroPad16));
    absl::Status status = folders_.Within(path, "make", [&](const FilePtr& folder) {
      Descriptor fd(openat(folder->fd.get(), made.name.c_str(),
                           O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
      const int error = fd.valid() ? 0 : errno;
      made.folder = folder;
      // Through the page cache: the sizes are no multiples of anything.
      made.file = std::make_shared<OpenFile>(std::move(fd), false);
      return error;
    });
    if (!status.ok()) {
      return status;
    }
    status = WriteAll(*made.file, path, 0, content);
    if (status.ok() && fsync(made.file->fd.get()) != 0) {
      status = RootedFailure(errno, "sync", path);
    }
    if (!status.ok()) {
      unlinkat(made.folder->fd.get(), made.name.c_str(), 0);
      return status;
    }
    return made;
  }

  // Gives what is under construction its name unless that is taken; errno.
  static int NameAnew(const Temporary& made, const std::string& name) {
    const int folder = made.folder->fd.get();
    if (renameat2(folder, made.name.c_str(), folder, name.c_str(), RENAME_NOREPLACE) == 0) {
      return 0;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
      return errno;
    }
    int error = linkat(folder, made.name.c_str(), folder, name.c_str(), 0) == 0 ? 0 : errno;
    if (error == EEXIST && IsAt(made, name)) {
      error = 0;  // the answer was lost on its way and the question asked again
    }
    if (error == 0) {
      unlinkat(folder, made.name.c_str(), 0);
    }
    return error;
  }

  // Whether a name is that of the file under construction.
  static bool IsAt(const Temporary& made, const std::string& name) {
    struct stat ours {};
    struct stat theirs {};
    return fstat(made.file->fd.get(), &ours) == 0 &&
           fstatat(made.folder->fd.get(), name.c_str(), &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
           ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
  }

  // After the file got its name, or did not.
  absl::Status Finish(const Temporary& made, int error, absl::string_view path) {
    if (error != 0) {
      unlinkat(made.folder->fd.get(), made.name.c_str(), 0);
      return RootedFailure(error, "name", path);
    }
    files_.Forget({std::string(path), {}, {}});
    error = SyncFolder(made.folder->fd.get());
    return error == 0 ? absl::OkStatus() : RootedFailure(error, "sync the folder of", path);
  }

  const std::string path_;
  const BeneathFolder root_;
  KeptFolders folders_{root_};
  OpenFiles files_{kMaxOpenFiles};
  // Whether O_DIRECT is tried at all, and whether a transfer with it has ever succeeded. Found by
  // the pool's own transfers: a scratch file would be written before anybody knows whose folder
  // this is.
  std::atomic<bool> direct_{true};
  std::atomic<bool> direct_works_{false};
};

}  // namespace

absl::StatusOr<std::unique_ptr<RootedFiles>> OpenRootedFiles(const std::string& root) {
  absl::StatusOr<BeneathFolder> folder = BeneathFolder::Open(root);
  if (!folder.ok()) {
    return folder.status();
  }
  return std::make_unique<KernelRootedFiles>(root, *std::move(folder));
}

}  // namespace terrace
