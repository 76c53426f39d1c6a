// Listening Unix sockets and who is at the other end of what they accept.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "daemon/front.h"
#include "tiers/os/descriptor.h"

namespace terrace {

// A listening socket in the file system; unlinks its own file at the end. Move-only; thread-compatible.
class UnixListener {
 public:
  struct Options {
    std::string path;
    mode_t mode = 0600;                  // never for others: INVALID_ARGUMENT
    gid_t gid = static_cast<gid_t>(-1);  // -1: unchanged
  };
  // The file is never more accessible than `mode`, whatever the umask. A socket file on which nobody listens is
  // replaced. Errors: ALREADY_EXISTS (somebody answers), FAILED_PRECONDITION (the path is no socket),
  // INVALID_ARGUMENT (path too long, mode), PERMISSION_DENIED, and what bind(2) says.
  static absl::StatusOr<UnixListener> Listen(const Options& options);

  UnixListener() = default;
  UnixListener(UnixListener&&) noexcept = default;
  UnixListener& operator=(UnixListener&& other) noexcept;
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener() { Close(); }

  [[nodiscard]] int get() const { return socket_.get(); }
  [[nodiscard]] bool valid() const { return socket_.valid(); }
  // A non-blocking, close-on-exec connection; an invalid descriptor when none waits. Errors: those of accept4(2);
  // RESOURCE_EXHAUSTED for EMFILE, ENFILE, ENOBUFS and ENOMEM.
  absl::StatusOr<Descriptor> Accept() const;
  // Nobody can connect any more; the file goes.
  void Close();

 private:
  std::string path_;
  Descriptor socket_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// SO_PEERCRED.
absl::StatusOr<PeerCredentials> CredentialsOf(int socket);

}  // namespace terrace
