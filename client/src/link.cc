#include "client/src/link.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <utility>

namespace terrace::client {
namespace {

constexpr size_t kReceiveBytes = 64 << 10;
constexpr size_t kLeastRoomBytes = 16 << 10;
// A frame carries at most 8; a recvmsg ends behind the first packet that carries any.
constexpr size_t kControlDescriptors = size_t{2} * kMaxFrameDescriptors;
constexpr size_t kMaxArrivedDescriptors = 64;

}  // namespace

int Link::Connect(const std::string& path) {
  Close();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return ENAMETOOLONG;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    return errno;
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return errno;
  }
  socket_ = std::move(socket);
  return 0;
}

void Link::Close() {
  if (socket_.valid()) {
    ::shutdown(socket_.get(), SHUT_RDWR);
  }
  socket_.Reset();
  Forget();
}

Descriptor Link::Part() {
  Descriptor socket = std::move(socket_);
  ::shutdown(socket.get(), SHUT_WR);
  Forget();
  return socket;
}

void Link::Forget() {
  ended_ = false;
  queue_.clear();
  backlog_bytes_ = 0;
  begin_ = 0;
  end_ = 0;
  arrived_.clear();
}

Link::Written Link::Write(std::string_view bytes, int passed, size_t* written) {
  *written = 0;
  while (*written < bytes.size()) {
    iovec part{const_cast<char*>(bytes.data()) + *written, bytes.size() - *written};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (passed >= 0 && *written == 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &passed, sizeof(passed));
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno == EAGAIN || errno == ENOBUFS ? Written::kPart : Written::kLost;
    }
    *written += static_cast<size_t>(sent);
  }
  return Written::kAll;
}

bool Link::Enqueue(std::string_view bytes, int passed) {
  Queued queued;
  queued.bytes = bytes;
  if (passed >= 0) {
    queued.passed = Descriptor(::fcntl(passed, F_DUPFD_CLOEXEC, 0));
    if (!queued.passed.valid()) {
      return false;
    }
  }
  queue_.push_back(std::move(queued));
  backlog_bytes_ += bytes.size();
  return true;
}

bool Link::Send(std::string_view frame, int passed) {
  if (!queue_.empty()) {
    return Enqueue(frame, passed) && Flush();
  }
  size_t written = 0;
  switch (Write(frame, passed, &written)) {
    case Written::kAll:
      return true;
    case Written::kPart:
      return Enqueue(frame.substr(written), written == 0 ? passed : -1);
    case Written::kLost:
      break;
  }
  return false;
}

bool Link::Flush() {
  while (!queue_.empty()) {
    Queued& front = queue_.front();
    size_t written = 0;
    const Written outcome =
        Write(std::string_view(front.bytes).substr(front.sent), front.passed.get(), &written);
    if (written > 0) {
      front.passed.Reset();
      front.sent += written;
      backlog_bytes_ -= written;
    }
    if (outcome == Written::kLost) {
      return false;
    }
    if (outcome == Written::kPart) {
      return true;
    }
    queue_.pop_front();
  }
  return true;
}

// Leaves at least kLeastRoomBytes behind end_, and room for the whole of a frame that has begun.
void Link::MakeRoom() {
  if (begin_ == end_) {
    begin_ = 0;
    end_ = 0;
  }
  size_t wanted = kReceiveBytes;
  if (end_ - begin_ >= kFrameHeaderBytes) {
    const FrameHeader header = DecodeFrameHeader(buffer_.data() + begin_);
    const size_t frame = kFrameHeaderBytes + header.payload_bytes;
    wanted = frame > kReceiveBytes ? frame : kReceiveBytes;
  }
  if (begin_ > 0 && (buffer_.size() - end_ < kLeastRoomBytes || buffer_.size() - begin_ < wanted)) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() < begin_ + wanted) {
    buffer_.resize(begin_ + wanted);
  }
}

Link::Received Link::Receive(bool* drained) {
  *drained = true;
  MakeRoom();
  iovec part{buffer_.data() + end_, buffer_.size() - end_};
  alignas(cmsghdr) char control[CMSG_SPACE(kControlDescriptors * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    ended_ = errno == ECONNRESET;
    return errno == EAGAIN ? Received::kNothing : Received::kLost;
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    *drained = false;  // recvmsg ends behind a packet with descriptors; more may lie behind it
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      arrived_.emplace_back(fd);
    }
  }
  ended_ = got == 0;
  if (ended_ || (message.msg_flags & MSG_CTRUNC) != 0 || arrived_.size() > kMaxArrivedDescriptors) {
    return Received::kLost;
  }
  if (static_cast<size_t>(got) == part.iov_len) {
    *drained = false;
  }
  end_ += static_cast<size_t>(got);
  return Received::kSome;
}

Link::Next Link::NextFrame(ReceivedFrame* frame) {
  if (end_ - begin_ < kFrameHeaderBytes) {
    return Next::kIncomplete;
  }
  frame->header = DecodeFrameHeader(buffer_.data() + begin_);
  if (!ReceivableHeader(frame->header)) {
    return Next::kGarbage;
  }
  if (end_ - begin_ < kFrameHeaderBytes + frame->header.payload_bytes) {
    return Next::kIncomplete;
  }
  // They came with the frame's first byte or before it, so they must be here by now.
  if (arrived_.size() < frame->header.descriptor_count) {
    return Next::kGarbage;
  }
  for (size_t i = 0; i < frame->header.descriptor_count; ++i) {
    frame->descriptors[i] = std::move(arrived_.front());
    arrived_.pop_front();
  }
  frame->message =
      std::string_view(buffer_.data() + begin_ + kFrameHeaderBytes, frame->header.payload_bytes);
  begin_ += kFrameHeaderBytes + frame->header.payload_bytes;
  return Next::kFrame;
}

}  // namespace terrace::client
