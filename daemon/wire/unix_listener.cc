#include "daemon/wire/unix_listener.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace terrace {
namespace {

constexpr int kBacklog = 512;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a socket's path has 1 to ", sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// Removes the file of a socket on which nobody listens any more.
absl::Status RemoveStale(const sockaddr_un& address) {
  struct stat found {};
  if (lstat(address.sun_path, &found) != 0) {
    return errno == ENOENT ? absl::OkStatus() : StatusFromErrno(errno, address.sun_path);
  }
  if (!S_ISSOCK(found.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(address.sun_path, ": exists and is no socket"));
  }
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) {
    return StatusFromErrno(errno, "socket");
  }
  if (connect(probe.get(), Generic(address), sizeof(address)) != 0 && errno == ECONNREFUSED) {
    return unlink(address.sun_path) == 0 || errno == ENOENT
               ? absl::OkStatus()
               : StatusFromErrno(errno, address.sun_path);
  }
  return absl::AlreadyExistsError(absl::StrCat(address.sun_path, ": another daemon answers there"));
}

}  // namespace

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
  if (this != &other) {
    Close();
    path_ = std::exchange(other.path_, {});
    socket_ = std::move(other.socket_);
    device_ = other.device_;
    inode_ = other.inode_;
  }
  return *this;
}

absl::StatusOr<UnixListener> UnixListener::Listen(const Options& options) {
  if ((options.mode & ~mode_t{0770}) != 0) {
    return absl::InvalidArgumentError("a socket's mode gives others nothing");
  }
  absl::StatusOr<sockaddr_un> address = AddressOf(options.path);
  if (!address.ok()) {
    return address.status();
  }
  if (absl::Status status = RemoveStale(*address); !status.ok()) {
    return status;
  }
  UnixListener listener;
  listener.socket_ = Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // The file gets the mode of the socket's inode less the umask (unix_bind in Linux), so that it is closed to others
  // from its first moment without touching the umask, which belongs to the whole process.
  if (!listener.socket_.valid() || fchmod(listener.socket_.get(), 0600) != 0) {
    return StatusFromErrno(errno, "socket");
  }
  if (bind(listener.socket_.get(), Generic(*address), sizeof(*address)) != 0) {
    return errno == EADDRINUSE
               ? absl::AlreadyExistsError(absl::StrCat(options.path, ": another daemon starts there"))
               : StatusFromErrno(errno, options.path);
  }
  listener.path_ = options.path;
  struct stat made {};
  if (lstat(options.path.c_str(), &made) != 0) {
    return StatusFromErrno(errno, options.path);
  }
  listener.device_ = made.st_dev;
  listener.inode_ = made.st_ino;
  const bool owned = options.gid == static_cast<gid_t>(-1) ||
                     lchown(options.path.c_str(), static_cast<uid_t>(-1), options.gid) == 0;
  if (!owned || chmod(options.path.c_str(), options.mode) != 0 ||
      listen(listener.socket_.get(), kBacklog) != 0) {
    return StatusFromErrno(errno, options.path);
  }
  return listener;
}

absl::StatusOr<Descriptor> UnixListener::Accept() const {
  const int fd = accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    return Descriptor(fd);
  }
  switch (errno) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
      return Descriptor();
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError(std::strerror(errno));
    default:
      return StatusFromErrno(errno, "accept4");
  }
}

void UnixListener::Close() {
  if (!socket_.valid()) {
    return;
  }
  socket_ = Descriptor();
  struct stat found {};
  if (!path_.empty() && lstat(path_.c_str(), &found) == 0 && found.st_dev == device_ &&
      found.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

absl::StatusOr<PeerCredentials> CredentialsOf(int socket) {
  ucred found{};
  socklen_t bytes = sizeof(found);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &found, &bytes) != 0) {
    return StatusFromErrno(errno, "SO_PEERCRED");
  }
  return PeerCredentials{found.uid, found.gid, found.pid};
}

}  // namespace terrace
