#include "tests/doubles/frame_client.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "tiers/vocab/clock.h"

namespace terrace::doubles {
namespace {

constexpr size_t kHeaderBytes = 24;
constexpr size_t kMaxDescriptors = 64;

void Put(std::string* out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    out->push_back(static_cast<char>(value >> (8 * i)));
  }
}

uint64_t Get(std::string_view in, size_t at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(in[at + i])) << (8 * i);
  }
  return value;
}

// True when the event came before `until`.
bool WaitFor(int fd, short events, absl::Duration until) {
  while (true) {
    const absl::Duration left = until - BootClock().Now();
    pollfd wait{fd, events, 0};
    const int ready = poll(&wait, 1, static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(left))));
    if (ready > 0) {
      return true;
    }
    if (ready == 0 || errno != EINTR) {
      return false;
    }
  }
}

}  // namespace

std::string ClientFrame::Header() const {
  std::string out;
  Put(&out, payload_bytes, 4);
  Put(&out, method, 2);
  Put(&out, kind, 1);
  Put(&out, descriptor_count, 1);
  Put(&out, call_id, 8);
  Put(&out, deadline_ms, 4);
  Put(&out, status, 4);
  return out;
}

absl::StatusOr<std::unique_ptr<FrameClient>> FrameClient::Connect(const std::string& path) {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!socket.valid() || path.size() >= sizeof(address.sun_path)) {
    return absl::UnavailableError("socket");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return std::unique_ptr<FrameClient>(new FrameClient(std::move(socket)));
}

bool FrameClient::SendBytes(std::string_view bytes,
                            const std::vector<int>& descriptors,
                            absl::Duration timeout) {
  std::vector<char> control(CMSG_SPACE(descriptors.size() * sizeof(int)));
  bool with_descriptors = !descriptors.empty();
  const absl::Duration until = BootClock().Now() + timeout;
  while (!bytes.empty()) {
    iovec source{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &source;
    message.msg_iovlen = 1;
    if (with_descriptors) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EAGAIN && WaitFor(socket_.get(), POLLOUT, until)) {
      continue;
    }
    if (sent <= 0) {
      return false;
    }
    with_descriptors = false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

uint64_t FrameClient::SendRequest(v1::Method method,
                                  std::string_view payload,
                                  const std::vector<int>& descriptors,
                                  uint32_t deadline_ms) {
  ClientFrame frame;
  frame.payload_bytes = static_cast<uint32_t>(payload.size());
  frame.method = static_cast<uint16_t>(method);
  frame.descriptor_count = static_cast<uint8_t>(descriptors.size());
  frame.call_id = next_call_id_++;
  frame.deadline_ms = deadline_ms;
  std::string bytes = frame.Header();
  bytes.append(payload);
  SendBytes(bytes, descriptors);
  return frame.call_id;
}

uint64_t FrameClient::Send(v1::Method method,
                           const google::protobuf::MessageLite& message,
                           const std::vector<int>& descriptors,
                           uint32_t deadline_ms) {
  return SendRequest(method, message.SerializeAsString(), descriptors, deadline_ms);
}

std::optional<ClientFrame> FrameClient::ReadFrame(absl::Duration timeout) {
  const absl::Duration until = BootClock().Now() + timeout;
  std::array<char, 65536> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control;
  while (true) {
    if (buffer_.size() >= kHeaderBytes && buffer_.size() - kHeaderBytes >= Get(buffer_, 0, 4)) {
      ClientFrame frame;
      frame.payload_bytes = static_cast<uint32_t>(Get(buffer_, 0, 4));
      frame.method = static_cast<uint16_t>(Get(buffer_, 4, 2));
      frame.kind = static_cast<uint8_t>(Get(buffer_, 6, 1));
      frame.descriptor_count = static_cast<uint8_t>(Get(buffer_, 7, 1));
      frame.call_id = Get(buffer_, 8, 8);
      frame.status = static_cast<uint32_t>(Get(buffer_, 20, 4));
      frame.payload = buffer_.substr(kHeaderBytes, frame.payload_bytes);
      buffer_.erase(0, kHeaderBytes + frame.payload_bytes);
      while (frame.descriptors.size() < frame.descriptor_count && !pending_.empty()) {
        frame.descriptors.push_back(std::move(pending_.front()));
        pending_.erase(pending_.begin());
      }
      return frame;
    }
    if (over_ || !WaitFor(socket_.get(), POLLIN, until)) {
      return std::nullopt;
    }
    iovec target{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &target;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) {
      over_ = true;
      return std::nullopt;
    }
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
      for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
        pending_.emplace_back(fd);
      }
    }
    buffer_.append(bytes.data(), static_cast<size_t>(got));
  }
}

std::optional<ClientFrame> FrameClient::Receive(absl::Duration timeout) {
  if (!kept_.empty()) {
    ClientFrame frame = std::move(kept_.front());
    kept_.erase(kept_.begin());
    return frame;
  }
  return ReadFrame(timeout);
}

std::optional<ClientFrame> FrameClient::ReceiveReply(uint64_t call_id, absl::Duration timeout) {
  const auto is_it = [call_id](const ClientFrame& frame) {
    return frame.kind == 2 && frame.call_id == call_id;
  };
  if (const auto found = std::find_if(kept_.begin(), kept_.end(), is_it); found != kept_.end()) {
    ClientFrame frame = std::move(*found);
    kept_.erase(found);
    return frame;
  }
  while (std::optional<ClientFrame> frame = ReadFrame(timeout)) {
    if (is_it(*frame)) {
      return frame;
    }
    kept_.push_back(*std::move(frame));
  }
  return std::nullopt;
}

bool FrameClient::SeesEnd(absl::Duration timeout) {
  while (std::optional<ClientFrame> frame = ReadFrame(timeout)) {
    kept_.push_back(*std::move(frame));
  }
  return over_;
}

absl::StatusOr<v1::HelloReply> FrameClient::Hello(const HelloOptions& options) {
  v1::HelloRequest request;
  request.set_protocol_major(1);
  request.set_client_name(options.name);
  request.set_client_version("1");
  request.set_pidfd(options.pidfd);
  for (const v1::Feature feature : options.features) {
    request.add_features(feature);
  }
  std::vector<int> descriptors;
  absl::StatusOr<PidDescriptor> self;
  if (options.pidfd) {
    self = PidDescriptor::Open(getpid());
    if (!self.ok()) {
      return self.status();
    }
    descriptors.push_back(self->get());
  }
  return Call<v1::HelloReply>(v1::METHOD_HELLO, request, descriptors);
}

absl::Status FrameClient::Take(std::optional<ClientFrame> frame, google::protobuf::MessageLite* reply) {
  if (!frame.has_value()) {
    return absl::UnavailableError("no reply");
  }
  received_ = std::move(frame->descriptors);
  if (frame->status != 0) {
    error_.ParseFromString(frame->payload);
    return {static_cast<absl::StatusCode>(frame->status), error_.message()};
  }
  return reply->ParseFromString(frame->payload) ? absl::OkStatus()
                                                : absl::DataLossError("the reply cannot be decoded");
}

}  // namespace terrace::doubles
