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
#include <dirent.h>

#include "tiers/os/beneath.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/open_files.h"

namespace terrace {
namespace {

// Half of what a process may have open by default.
constexpr size_t kMaxOpenFiles = 512;
constexpr uint64_t kDirectUnit = 4096;

using FilePtr = OpenFiles::FilePtr;

absl::Status Failure(int error, absl::string_view what, absl::string_view path) {
  const std::string text = absl::StrCat(what, " ", path.empty() ? "the root" : path);
  char reason[128];
  const std::string explained = absl::StrCat(text, ": ", strerror_r(error, reason, sizeof(reason)));
  switch (error) {
    case ELOOP:
    case EXDEV:
    case EISDIR:
    case ENXIO:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(explained);
    case ENOTEMPTY:
      return absl::FailedPreconditionError(explained);
    case ESTALE:
    case ENOTCONN:
    case ESHUTDOWN:
    case ECONNABORTED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT:
      return absl::UnavailableError(explained);
    default:
      return StatusFromErrno(error, text);
  }
}

absl::Status BadPath() {
  return absl::InvalidArgumentError("path: not one below the root");
}

struct SplitPath {
  std::string folder;
  std::string name;
};

SplitPath Split(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) {
    return {"", std::string(path)};
  }
  return {std::string(path.substr(0, slash)), std::string(path.substr(slash + 1))};
}

bool IsDirectTransfer(uint64_t offset, absl::Span<const char> bytes) {
  return !bytes.empty() &&
         (offset | bytes.size() | reinterpret_cast<uintptr_t>(bytes.data())) % kDirectUnit == 0;
}

struct ListingCloser {
  void operator()(DIR* listing) const { closedir(listing); }
};

EntryKind KindOf(mode_t mode) {
  if (S_ISREG(mode)) {
    return EntryKind::kFile;
  }
  return S_ISDIR(mode) ? EntryKind::kFolder : EntryKind::kOther;
}

// Some file systems have nothing to do there and say EINVAL.
int SyncFolder(int fd) {
  return fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
}

// What a folder of the pool has under construction: a file under a temporary name.
struct Temporary {
  Descriptor folder;
  std::string name;
  Descriptor fd;
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
      return Failure(error, "sync", path);
    }
    return absl::OkStatus();
  }

  absl::Status Make(absl::string_view path, uint64_t bytes) override {
    const absl::StatusOr<Descriptor> folder = FolderOf(path);
    if (!folder.ok()) {
      return folder.status();
    }
    const std::string name = Split(path).name;
    const Descriptor fd(openat(folder->get(), name.c_str(),
                               O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid()) {
      return Failure(errno, "make", path);
    }
    files_.Forget({std::string(path), {}, {}});
    int error = Preallocate(fd.get(), bytes);
    error = error == 0 ? SyncFolder(folder->get()) : error;
    if (error != 0) {
      unlinkat(folder->get(), name.c_str(), 0);
      return Failure(error, "make", path);
    }
    return absl::OkStatus();
  }

  absl::Status Create(absl::string_view path, absl::Span<const char> content) override {
    const absl::StatusOr<Temporary> made = WriteTemporary(path, content);
    if (!made.ok()) {
      return made.status();
    }
    const int error = NameAnew(*made, Split(path).name);
    return Finish(*made, error, path);
  }

  absl::Status Replace(absl::string_view path, absl::Span<const char> content) override {
    const absl::StatusOr<Temporary> made = WriteTemporary(path, content);
    if (!made.ok()) {
      return made.status();
    }
    const std::string name = Split(path).name;
    int error = renameat(made->folder.get(), made->name.c_str(), made->folder.get(), name.c_str());
    error = error == 0 ? 0 : errno;
    if (error == ENOENT && IsAt(*made, name)) {
      error = 0;  // the answer was lost on its way and the question asked again
    }
    return Finish(*made, error, path);
  }

  absl::Status Remove(absl::string_view path) override {
    const absl::StatusOr<Descriptor> folder = FolderOf(path);
    if (!folder.ok()) {
      return folder.status();
    }
    files_.Forget({std::string(path), {}, {}});
    return unlinkat(folder->get(), Split(path).name.c_str(), 0) == 0
               ? absl::OkStatus()
               : Failure(errno, "remove", path);
  }

  absl::Status MakeFolder(absl::string_view path) override {
    const absl::StatusOr<Descriptor> folder = FolderOf(path);
    if (!folder.ok()) {
      return folder.status();
    }
    if (mkdirat(folder->get(), Split(path).name.c_str(), 0700) == 0) {
      const int error = SyncFolder(folder->get());
      return error == 0 ? absl::OkStatus() : Failure(error, "make folder", path);
    }
    if (errno != EEXIST) {
      return Failure(errno, "make folder", path);
    }
    // Whether what is there is a folder.
    return root_.OpenWithin(std::string(path), O_PATH | O_DIRECTORY).valid()
               ? absl::OkStatus()
               : Failure(errno, "make folder", path);
  }

  absl::Status RemoveFolder(absl::string_view path) override {
    const absl::StatusOr<Descriptor> folder = FolderOf(path);
    if (!folder.ok()) {
      return folder.status();
    }
    if (unlinkat(folder->get(), Split(path).name.c_str(), AT_REMOVEDIR) == 0) {
      return absl::OkStatus();
    }
    // POSIX lets a folder that is not empty be either.
    return Failure(errno == EEXIST ? ENOTEMPTY : errno, "remove folder", path);
  }

  absl::StatusOr<std::vector<FolderEntry>> List(absl::string_view path) override {
    if (!path.empty() && !IsRootedPath(path)) {
      return BadPath();
    }
    Descriptor fd = root_.OpenWithin(std::string(path), O_RDONLY | O_DIRECTORY);
    if (!fd.valid()) {
      return Failure(errno, "list", path);
    }
    const std::unique_ptr<DIR, ListingCloser> listing(fdopendir(fd.get()));
    if (listing == nullptr) {
      return Failure(errno, "list", path);
    }
    [[maybe_unused]] const int owned_by_listing = fd.Release();
    std::vector<FolderEntry> entries;
    errno = 0;
    while (const dirent* entry = readdir(listing.get())) {
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") {
        if (entries.size() == kMaxEntries) {
          return absl::ResourceExhaustedError(absl::StrCat("list ", path, ": too many entries"));
        }
        AddEntry(dirfd(listing.get()), *entry, entries);
      }
      errno = 0;
    }
    if (errno != 0) {
      return Failure(errno, "list", path);
    }
    std::sort(entries.begin(), entries.end(),
              [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
    return entries;
  }

  absl::StatusOr<FolderSpace> Space() override {
    struct statvfs status {};
    if (fstatvfs(root_.get(), &status) != 0) {
      return Failure(errno, "free space of", "");
    }
    return FolderSpace{status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize};
  }

  absl::Status CheckRoot() override {
    struct stat here {};
    struct stat there {};
    if (fstat(root_.get(), &here) != 0) {
      return absl::UnavailableError(Failure(errno, "check", "").message());
    }
    if (stat(path_.c_str(), &there) != 0) {
      return absl::UnavailableError(Failure(errno, "check", "").message());
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

  // ABORTED where a file that is only read has two names: one that is being made has them for a
  // moment, on file systems without RENAME_NOREPLACE.
  absl::StatusOr<FilePtr> OpenAnew(const OpenFiles::Name& name) {
    int flags = O_NONBLOCK | (name.access == FileAccess::kRead ? O_RDONLY : O_RDWR);
    bool direct = name.caching == Caching::kDirect && direct_.load();
    Descriptor fd = root_.OpenWithin(name.path, flags | (direct ? O_DIRECT : 0));
    if (!fd.valid() && errno == EINVAL && direct) {
      direct_ = direct = false;
      fd = root_.OpenWithin(name.path, flags);
    }
    struct stat status {};
    if (!fd.valid() || fstat(fd.get(), &status) != 0) {
      return Failure(errno, "open", name.path);
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
    if (FilePtr file = files_.Find(name); file != nullptr) {
      return file;
    }
    absl::StatusOr<FilePtr> file = OpenAnew(name);
    if (file.ok()) {
      files_.Keep(name, *file);
    }
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
    const absl::StatusOr<FilePtr> file = how == ReadHow::kFresh ? OpenedFresh(name) : Opened(name);
    if (!file.ok()) {
      return file.status();
    }
    return ReadAll(**file, name.path, offset, out);
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
          return Failure(errno, "read", path);
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
          return Failure(errno, "write", path);
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

  // The folder that a path lies in, to make and remove names in, and to sync.
  absl::StatusOr<Descriptor> FolderOf(absl::string_view path) {
    if (!IsRootedPath(path)) {
      return BadPath();
    }
    Descriptor folder = root_.OpenWithin(Split(path).folder, O_RDONLY | O_DIRECTORY);
    if (!folder.valid()) {
      return Failure(errno, "open the folder of", path);
    }
    return folder;
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
    absl::StatusOr<Descriptor> folder = FolderOf(path);
    if (!folder.ok()) {
      return folder.status();
    }
    uint64_t number = 0;
    FillRandom({reinterpret_cast<char*>(&number), sizeof(number)});
    std::string name = absl::StrCat(kTemporaryPrefix, absl::Hex(number, absl::kZeroPad16));
    Descriptor fd(openat(folder->get(), name.c_str(),
                         O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid()) {
      return Failure(errno, "make", path);
    }
    Temporary made{*std::move(folder), std::move(name), std::move(fd)};
    // Through the page cache: the sizes are no multiples of anything.
    OpenFile file(Descriptor(fcntl(made.fd.get(), F_DUPFD_CLOEXEC, 0)), false);
    absl::Status written = WriteAll(file, path, 0, content);
    if (written.ok() && fsync(made.fd.get()) != 0) {
      written = Failure(errno, "sync", path);
    }
    if (!written.ok()) {
      unlinkat(made.folder.get(), made.name.c_str(), 0);
      return written;
    }
    return made;
  }

  // Gives what is under construction its name unless that is taken; errno.
  static int NameAnew(const Temporary& made, const std::string& name) {
    const int folder = made.folder.get();
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
    return fstat(made.fd.get(), &ours) == 0 &&
           fstatat(made.folder.get(), name.c_str(), &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
           ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
  }

  // After the file got its name, or did not.
  absl::Status Finish(const Temporary& made, int error, absl::string_view path) {
    if (error != 0) {
      unlinkat(made.folder.get(), made.name.c_str(), 0);
      return Failure(error, "name", path);
    }
    files_.Forget({std::string(path), {}, {}});
    error = SyncFolder(made.folder.get());
    return error == 0 ? absl::OkStatus() : Failure(error, "sync the folder of", path);
  }

  // Sizes of files cost a call each; what is known to be a folder is not asked about.
  static void AddEntry(int folder, const dirent& entry, std::vector<FolderEntry>& entries) {
    if (!IsRootedPath(entry.d_name)) {
      entries.push_back({entry.d_name, EntryKind::kOther, 0});
      return;
    }
    if (entry.d_type != DT_REG && entry.d_type != DT_UNKNOWN) {
      entries.push_back(
          {entry.d_name, entry.d_type == DT_DIR ? EntryKind::kFolder : EntryKind::kOther, 0});
      return;
    }
    struct stat status {};
    if (fstatat(folder, entry.d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
      const bool is_file = S_ISREG(status.st_mode);
      entries.push_back({entry.d_name, KindOf(status.st_mode),
                         is_file ? static_cast<uint64_t>(status.st_size) : 0});
    }
  }

  const std::string path_;
  const BeneathFolder root_;
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
