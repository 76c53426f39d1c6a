#include "daemon/worker/worker_channel.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace terrace {
namespace {

constexpr size_t kMaxPassed = 4;

// The first descriptor that came with a message; the others are closed.
Descriptor FirstPassed(msghdr& message) {
  Descriptor first;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= part->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, reinterpret_cast<char*>(part) + at, sizeof(fd));
      Descriptor passed(fd);
      if (!first.valid()) {
        first = std::move(passed);
      }
    }
  }
  return first;
}

}  // namespace

absl::StatusOr<std::pair<Descriptor, Descriptor>> WorkerChannel::MakePair() {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return StatusFromErrno(errno, "worker's sockets");
  }
  return std::pair<Descriptor, Descriptor>(ends[0], ends[1]);
}

absl::Status WorkerChannel::Send(const std::string& packet, Waiting waiting, int passed) const {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece = {const_cast<char*>(packet.data()), packet.size()};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &passed, sizeof(passed));
  }
  const int flags = MSG_NOSIGNAL | (waiting == Waiting::kDont ? MSG_DONTWAIT : 0);
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket_.get(), &message, flags);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0 ? absl::OkStatus() : StatusFromErrno(errno, "send to the other side");
}

absl::StatusOr<ReceivedPacket> WorkerChannel::Receive(absl::Span<char> room,
                                                      Waiting waiting) const {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassed * sizeof(int))] = {};
  iovec piece = {room.data(), room.size()};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const int flags = MSG_CMSG_CLOEXEC | (waiting == Waiting::kDont ? MSG_DONTWAIT : 0);
  ssize_t got = 0;
  do {
    got = recvmsg(socket_.get(), &message, flags);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    return StatusFromErrno(errno, "receive from the other side");
  }
  ReceivedPacket packet;
  packet.bytes = {room.data(), static_cast<size_t>(got)};
  packet.passed = FirstPassed(message);
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    return absl::InvalidArgumentError("receive from the other side: a packet that is too long");
  }
  return packet;
}

}  // namespace terrace
