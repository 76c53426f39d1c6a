#include "daemon/wire/session_socket.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <utility>

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// A backlog buffer that grew beyond this is given back when it has been sent.
constexpr size_t kKeptCapacityBytes = size_t{256} << 10;
// What a session may have had in the making when its backlog reached the limit.
constexpr uint64_t kLargestReplyBytes = uint64_t{4} << 20;
// Room for more descriptors than are allowed, so that one too many is seen (and closed) as such.
constexpr size_t kReceivedDescriptors = kMaxFrameDescriptors + 1;

// Owns what came with the message. False: truncated.
bool TakeDescriptors(msghdr& message, std::vector<Descriptor>* out) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      out->emplace_back(fd);
    }
  }
  return (message.msg_flags & MSG_CTRUNC) == 0 && out->size() <= kMaxFrameDescriptors;
}

}  // namespace

SessionSocket::SessionSocket(Options options)
    : epoll_(options.epoll),
      epoll_key_(options.epoll_key),
      backlog_limit_(options.backlog_limit),
      clock_(*options.clock),
      socket_number_(options.socket.get()),
      socket_(std::move(options.socket)) {}

uint32_t SessionSocket::WantedLocked() const {
  return (reading_ ? static_cast<uint32_t>(EPOLLIN) : 0U) |
         (blocked_ || nudged_ ? static_cast<uint32_t>(EPOLLOUT) : 0U);
}

absl::Status SessionSocket::Watch() {
  absl::MutexLock lock(&mutex_);
  epoll_event event{};
  event.events = WantedLocked();
  event.data.u64 = epoll_key_;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, socket_.get(), &event) != 0) {
    return StatusFromErrno(errno, "epoll_ctl");
  }
  return absl::OkStatus();
}

void SessionSocket::ArmLocked() {
  if (!socket_.valid()) {
    return;
  }
  epoll_event event{};
  event.events = WantedLocked();
  event.data.u64 = epoll_key_;
  TERRACE_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, socket_.get(), &event) == 0);
}

SessionSocket::ReadResult SessionSocket::Read(absl::Span<char> buffer,
                                              size_t* bytes,
                                              std::vector<Descriptor>* descriptors) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kReceivedDescriptors * sizeof(int))> control;
  iovec target{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &target;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(socket_number_, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) {
    const bool later = errno == EAGAIN || errno == EINTR;
    return later ? ReadResult::kNothing : ReadResult::kBroken;
  }
  if (!TakeDescriptors(message, descriptors)) {
    descriptors->clear();
    return ReadResult::kBroken;
  }
  *bytes = static_cast<size_t>(got);
  return got == 0 ? ReadResult::kEnd : ReadResult::kBytes;
}

void SessionSocket::Send(FrameHeader header,
                         const google::protobuf::MessageLite& message,
                         Descriptor descriptor) {
  header.payload_bytes = static_cast<uint32_t>(message.ByteSizeLong());
  header.descriptor_count = descriptor.valid() ? 1 : 0;
  absl::MutexLock lock(&mutex_);
  if (failed_ || !socket_.valid()) {
    return;
  }
  const size_t begin = out_.size();
  if (descriptor.valid()) {
    attached_.push_back({begin, std::move(descriptor)});
  }
  out_.resize(begin + kFrameHeaderBytes + header.payload_bytes);
  EncodeFrameHeader(header, absl::MakeSpan(out_.data() + begin, kFrameHeaderBytes));
  auto* payload = reinterpret_cast<uint8_t*>(out_.data() + begin + kFrameHeaderBytes);
  message.SerializeWithCachedSizesToArray(payload);
  if (BacklogLocked() > 2 * backlog_limit_ + kLargestReplyBytes) {
    FailLocked();
  } else if (!corked_ && !blocked_) {
    FlushLocked();
  }
}

ssize_t SessionSocket::SendSomeLocked() {
  uint64_t end = out_.size();
  Descriptor* passed = nullptr;
  if (!attached_.empty()) {
    if (attached_.front().offset == sent_) {
      passed = &attached_.front().descriptor;
      end = attached_.size() > 1 ? attached_[1].offset : end;
    } else {
      end = attached_.front().offset;
    }
  }
  iovec source{out_.data() + sent_, end - sent_};
  msghdr message{};
  message.msg_iov = &source;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (passed != nullptr) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = passed->get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  ssize_t sent = -1;
  do {
    sent = sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    return errno == EAGAIN ? 0 : -1;
  }
  if (passed != nullptr && sent > 0) {
    attached_.pop_front();
  }
  return sent;
}

void SessionSocket::FlushLocked() {
  while (sent_ < out_.size()) {
    const ssize_t sent = SendSomeLocked();
    if (sent < 0) {
      FailLocked();
      return;
    }
    if (sent == 0) {
      DropSentLocked();
      SetBlockedLocked(true);
      return;
    }
    sent_ += static_cast<uint64_t>(sent);
    if (blocked_) {
      progress_at_ = clock_.Now();
    }
  }
  sent_ = 0;
  out_.clear();
  if (out_.capacity() > kKeptCapacityBytes) {
    out_.shrink_to_fit();
  }
  SetBlockedLocked(false);
}

void SessionSocket::DropSentLocked() {
  // Moves each byte at most once on average, and keeps the buffer below twice the backlog.
  if (sent_ < BacklogLocked()) {
    return;
  }
  out_.erase(0, sent_);
  for (Attached& attached : attached_) {
    attached.offset -= sent_;
  }
  sent_ = 0;
}

void SessionSocket::SetBlockedLocked(bool blocked) {
  if (blocked == blocked_) {
    return;
  }
  blocked_ = blocked;
  progress_at_ = clock_.Now();
  ArmLocked();
}

void SessionSocket::FailLocked() {
  failed_ = true;
  out_ = std::string();
  sent_ = 0;
  attached_.clear();
}

void SessionSocket::Cork() {
  absl::MutexLock lock(&mutex_);
  corked_ = true;
}

void SessionSocket::Uncork() {
  absl::MutexLock lock(&mutex_);
  corked_ = false;
  if (!blocked_ && !failed_ && socket_.valid()) {
    FlushLocked();
  }
}

void SessionSocket::OnWritable() {
  absl::MutexLock lock(&mutex_);
  if (failed_ || !socket_.valid()) {
    return;
  }
  if (std::exchange(nudged_, false)) {
    ArmLocked();
  }
  FlushLocked();
}

bool SessionSocket::MayRead() {
  absl::MutexLock lock(&mutex_);
  const bool reading = !failed_ && BacklogLocked() + expected_ <= backlog_limit_;
  if (reading != reading_) {
    reading_ = reading;
    ArmLocked();
  }
  return reading;
}

void SessionSocket::Expect(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  expected_ += bytes;
}

void SessionSocket::Made(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  expected_ -= bytes;
  if (!reading_ && !blocked_ && !nudged_) {
    nudged_ = true;
    ArmLocked();
  }
}

Descriptor SessionSocket::Leave() {
  absl::MutexLock lock(&mutex_);
  if (socket_.valid()) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, socket_.get(), nullptr);
    FailLocked();
  }
  return std::move(socket_);
}

bool SessionSocket::PeerHasGone() const {
  pollfd socket{socket_number_, 0, 0};
  return poll(&socket, 1, 0) == 1 && (socket.revents & (POLLHUP | POLLERR)) != 0;
}

bool SessionSocket::failed() const {
  absl::MutexLock lock(&mutex_);
  return failed_;
}

uint64_t SessionSocket::backlog() const {
  absl::MutexLock lock(&mutex_);
  return BacklogLocked();
}

absl::Duration SessionSocket::StalledFor(absl::Duration now) const {
  absl::MutexLock lock(&mutex_);
  return blocked_ ? now - progress_at_ : absl::ZeroDuration();
}

}  // namespace terrace
