#include "daemon/wire/peer_process.h"

#include <sys/socket.h>

#include <utility>

namespace terrace {
namespace {

#ifdef SO_PEERPIDFD
constexpr int kPeerPidfd = SO_PEERPIDFD;
#else
constexpr int kPeerPidfd = 77;  // include/uapi/asm-generic/socket.h, Linux 6.5
#endif

PidDescriptor FromKernel(int socket) {
  int fd = -1;
  socklen_t bytes = sizeof(fd);
  if (getsockopt(socket, SOL_SOCKET, kPeerPidfd, &fd, &bytes) != 0 || fd < 0) {
    return {};
  }
  absl::StatusOr<PidDescriptor> process = PidDescriptor::FromPassed(Descriptor(fd));
  return process.ok() ? *std::move(process) : PidDescriptor();
}

}  // namespace

absl::StatusOr<PidDescriptor> ProveProcess(int socket,
                                           const PeerCredentials& credentials,
                                           Descriptor passed) {
  if (!passed.valid()) {
    return FromKernel(socket);
  }
  absl::StatusOr<PidDescriptor> process = PidDescriptor::FromPassed(std::move(passed));
  if (!process.ok()) {
    return process.status();
  }
  const int pid = process->Pid();
  if (credentials.pid != 0 && pid >= 0) {
    return pid == credentials.pid ? *std::move(process) : PidDescriptor();
  }
  PidDescriptor kernel = FromKernel(socket);
  return kernel.valid() ? std::move(kernel) : *std::move(process);
}

}  // namespace terrace
