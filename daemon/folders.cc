#include "daemon/folders.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <string_view>

#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "daemon/concat.h"

namespace terrace {
namespace {

constexpr std::string_view kLockName = "terraced.lock";
constexpr absl::Duration kLockPatience = absl::Seconds(2);
constexpr absl::Duration kLockRetry = absl::Milliseconds(10);

absl::Status Failure(int error, std::string_view folder, std::string_view what) {
  const std::string text = Concat(folder, ": ", what, ": ", std::system_category().message(error));
  return error == EACCES || error == EPERM || error == EROFS ? absl::PermissionDeniedError(text)
                                                             : absl::InternalError(text);
}

// Opens the folder, making it and its parents first. *made: whether it is new.
absl::StatusOr<Descriptor> OpenFolder(const std::string& path, bool* made) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) {
    std::filesystem::create_directories(parent, error);
  }
  *made = mkdir(path.c_str(), 0700) == 0;
  if (!*made && errno != EEXIST) {
    return Failure(errno, path, "cannot be made");
  }
  Descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return Failure(errno, path, "cannot be opened");
  }
  return folder;
}

bool HoldsNothingElse(const std::string& path) {
  std::error_code error;
  bool empty = true;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename() == kLockName) {
      return true;
    }
    empty = false;
  }
  return empty && !error;
}

absl::Status PrepareRuntime(const FolderOptions& options) {
  const std::string& path = options.runtime_dir;
  bool made = false;
  const absl::StatusOr<Descriptor> folder = OpenFolder(path, &made);
  if (!folder.ok()) {
    return folder.status();
  }
  if (made) {
    if (options.group != static_cast<gid_t>(-1) &&
        fchown(folder->get(), static_cast<uid_t>(-1), options.group) != 0) {
      return Failure(errno, path, "cannot be given to the group of the sockets");
    }
    if (fchmod(folder->get(), 0750) != 0) {
      return Failure(errno, path, "cannot be opened to its group");
    }
  }
  struct stat status = {};
  if (fstat(folder->get(), &status) != 0) {
    return Failure(errno, path, "cannot be looked at");
  }
  if ((status.st_mode & S_IWOTH) != 0) {
    return absl::FailedPreconditionError(Concat(
        path,
        ": everyone may write to it, and so could put sockets of their own there; chmod o-w it"));
  }
  return absl::OkStatus();
}

absl::Status CloseToOthers(const std::string& path, const Descriptor& folder) {
  struct stat status = {};
  if (fstat(folder.get(), &status) != 0) {
    return Failure(errno, path, "cannot be looked at");
  }
  if ((status.st_mode & 0077) == 0) {
    return absl::OkStatus();
  }
  if (!HoldsNothingElse(path)) {
    return absl::FailedPreconditionError(Concat(path,
                                                ": is open to other users and holds files that are "
                                                "not this daemon's; name an empty folder, or "
                                                "chmod 0700 it"));
  }
  if (fchmod(folder.get(), 0700) != 0) {
    return Failure(errno, path, "is open to other users and cannot be closed");
  }
  return absl::OkStatus();
}

// The process that wrote its number there when it took the lock; 0: not known.
pid_t HolderOf(const Descriptor& lock) {
  char buffer[32];
  const ssize_t got = pread(lock.get(), buffer, sizeof(buffer), 0);
  pid_t pid = 0;
  const bool known = got > 0 && std::from_chars(buffer, buffer + got, pid).ec == std::errc();
  return known && pid > 0 ? pid : 0;
}

bool IsGone(pid_t pid) {
  return kill(pid, 0) != 0 && errno == ESRCH;
}

// A daemon that was killed while it started a process leaves its lock with that one, until it
// becomes its own program. False, with errno: somebody else has it.
bool TakeLock(const Descriptor& lock) {
  for (absl::Duration waited;; waited += kLockRetry) {
    if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
      return true;
    }
    const int error = errno;
    const pid_t holder = error == EWOULDBLOCK ? HolderOf(lock) : 0;
    if (holder == 0 || !IsGone(holder) || waited >= kLockPatience) {
      errno = error;
      return false;
    }
    absl::SleepFor(kLockRetry);
  }
}

std::string HolderText(const Descriptor& lock) {
  const pid_t holder = HolderOf(lock);
  return holder == 0 ? "another daemon" : Concat("another daemon (process ", holder, ")");
}

absl::StatusOr<Descriptor> LockData(const std::string& path, const Descriptor& folder) {
  const std::string name(kLockName);
  Descriptor lock(
      openat(folder.get(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) {
    return Failure(errno, path, "cannot make the lock file in it");
  }
  if (!TakeLock(lock)) {
    if (errno != EWOULDBLOCK) {
      return Failure(errno, path, "cannot be locked");
    }
    return absl::AlreadyExistsError(Concat(path, ": is in use by ", HolderText(lock)));
  }
  // For the message above only: that it is not written does no harm.
  const std::string pid = Concat(getpid(), "\n");
  if (ftruncate(lock.get(), 0) != 0 || pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    return lock;
  }
  return lock;
}

}  // namespace

absl::StatusOr<Descriptor> PrepareFolders(const FolderOptions& options) {
  bool made = false;
  const absl::StatusOr<Descriptor> data = OpenFolder(options.data_dir, &made);
  if (!data.ok()) {
    return data.status();
  }
  if (absl::Status status = CloseToOthers(options.data_dir, *data); !status.ok()) {
    return status;
  }
  absl::StatusOr<Descriptor> lock = LockData(options.data_dir, *data);
  if (!lock.ok()) {
    return lock.status();
  }
  if (absl::Status status = PrepareRuntime(options); !status.ok()) {
    return status;
  }
  return lock;
}

}  // namespace terrace
