#include "daemon/events/event_sockets.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <zmq.h>

#include "daemon/concat.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr std::string_view kIpc = "ipc://";
constexpr int64_t kMaxFrameBytes = 1024;  // that a peer may send
constexpr int kReplyHighWaterMark = 64;   // batches; a reader of a replay fetches them one by one
constexpr int kRequestHighWaterMark = 64;
constexpr size_t kSequenceBytes = 8;
constexpr int kHeartbeatMs = 10'000;  // what tells that a peer on another host is gone

class Context {
 public:
  Context() : context_(zmq_ctx_new()) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    if (context_ != nullptr) {
      zmq_ctx_term(context_);
    }
  }
  [[nodiscard]] void* get() const { return context_; }

 private:
  void* const context_;
};

class Socket {
 public:
  Socket() = default;
  Socket(const Context& context, int type) : socket_(zmq_socket(context.get(), type)) {}
  Socket(Socket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(socket_, other.socket_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (socket_ != nullptr) {
      zmq_close(socket_);
    }
  }
  [[nodiscard]] void* get() const { return socket_; }
  [[nodiscard]] bool Set(int option, int value) {
    return zmq_setsockopt(socket_, option, &value, sizeof(value)) == 0;
  }

 private:
  void* socket_ = nullptr;
};

class Frame {
 public:
  Frame() { zmq_msg_init(&message_); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  ~Frame() { zmq_msg_close(&message_); }
  [[nodiscard]] bool Receive(void* socket) {
    return zmq_msg_recv(&message_, socket, ZMQ_DONTWAIT) >= 0;
  }
  [[nodiscard]] bool HasMore() { return zmq_msg_more(&message_) != 0; }
  [[nodiscard]] std::string_view bytes() {
    return {static_cast<const char*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)};
  }

 private:
  zmq_msg_t message_;
};

std::string SequenceFrame(uint64_t sequence) {
  std::string frame;
  for (int shift = 56; shift >= 0; shift -= 8) {
    frame.push_back(static_cast<char>(sequence >> shift));
  }
  return frame;
}

uint64_t SequenceOf(std::string_view frame) {
  uint64_t sequence = 0;
  for (const char c : frame) {
    sequence = sequence << 8 | static_cast<uint8_t>(c);
  }
  return sequence;
}

bool SendFrame(void* socket, std::string_view frame, int more) {
  return zmq_send(socket, frame.data(), frame.size(), ZMQ_DONTWAIT | more) >= 0;
}

absl::Status Refuse(absl::StatusCode code, std::string_view endpoint, std::string_view what) {
  return absl::Status(code, Concat("events cannot be published at ", endpoint, ": ", what));
}

absl::Status BindError(int error, std::string_view endpoint) {
  const std::string_view text = zmq_strerror(error);
  switch (error) {
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO:
    case ENOTSUP:
    case ENODEV:
      return Refuse(absl::StatusCode::kInvalidArgument, endpoint, text);
    case EACCES:
    case EPERM:
      return Refuse(absl::StatusCode::kPermissionDenied, endpoint, text);
    case EADDRINUSE:
    case EADDRNOTAVAIL:
      return Refuse(absl::StatusCode::kUnavailable, endpoint, text);
    default:
      return Refuse(absl::StatusCode::kInternal, endpoint, text);
  }
}

// ZeroMQ removes whatever lies at the path of an ipc socket, be it another daemon's.
absl::Status CheckFree(const std::string& endpoint) {
  if (!endpoint.starts_with(kIpc)) {
    return absl::OkStatus();
  }
  const std::string path = endpoint.substr(kIpc.size());
  struct stat status = {};
  if (lstat(path.c_str(), &status) != 0) {
    return absl::OkStatus();
  }
  if (!S_ISSOCK(status.st_mode)) {
    return Refuse(absl::StatusCode::kUnavailable, endpoint, "something else lies there");
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Refuse(absl::StatusCode::kInvalidArgument, endpoint, "the path is too long");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const Descriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // A full backlog is somebody who listens, too.
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno == EAGAIN) {
    return Refuse(absl::StatusCode::kUnavailable, endpoint, "another process listens there");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Bind(const Socket& socket, const std::string& endpoint, mode_t mode) {
  if (absl::Status free = CheckFree(endpoint); !free.ok()) {
    return free;
  }
  if (zmq_bind(socket.get(), endpoint.c_str()) != 0) {
    return BindError(zmq_errno(), endpoint);
  }
  if (endpoint.starts_with(kIpc) && chmod(endpoint.c_str() + kIpc.size(), mode) != 0) {
    return BindError(errno, endpoint);
  }
  std::array<char, 512> bound{};
  size_t bytes = bound.size();
  if (zmq_getsockopt(socket.get(), ZMQ_LAST_ENDPOINT, bound.data(), &bytes) != 0) {
    return BindError(zmq_errno(), endpoint);
  }
  return std::string(bound.data());
}

class ZmqEventSockets final : public EventSockets {
 public:
  ZmqEventSockets(EventDescriptor wake, const EventPublisherOptions& options)
      : wake_(std::move(wake)), topic_(options.topic) {}

  absl::Status Open(const EventPublisherOptions& options) {
    publishing_ = Socket(context_, ZMQ_PUB);
    // What ZeroMQ cannot be told is what it has no memory or descriptor for.
    if (publishing_.get() == nullptr || !SetUp(publishing_, options.zmq_endpoint) ||
        !publishing_.Set(ZMQ_SNDHWM, static_cast<int>(options.high_water_mark))) {
      return Refuse(absl::StatusCode::kInternal, options.zmq_endpoint, zmq_strerror(zmq_errno()));
    }
    absl::StatusOr<std::string> bound =
        Bind(publishing_, options.zmq_endpoint, options.socket_mode);
    if (!bound.ok()) {
      return bound.status();
    }
    endpoint_ = *std::move(bound);
    if (options.zmq_replay_endpoint.empty()) {
      return absl::OkStatus();
    }
    replaying_ = Socket(context_, ZMQ_ROUTER);
    if (replaying_.get() == nullptr || !SetUp(replaying_, options.zmq_replay_endpoint) ||
        !replaying_.Set(ZMQ_SNDHWM, kReplyHighWaterMark) ||
        !replaying_.Set(ZMQ_RCVHWM, kRequestHighWaterMark) ||
        !replaying_.Set(ZMQ_ROUTER_MANDATORY, 1)) {
      return Refuse(absl::StatusCode::kInternal, options.zmq_replay_endpoint,
                    zmq_strerror(zmq_errno()));
    }
    bound = Bind(replaying_, options.zmq_replay_endpoint, options.socket_mode);
    if (!bound.ok()) {
      return bound.status();
    }
    replay_endpoint_ = *std::move(bound);
    return absl::OkStatus();
  }

  [[nodiscard]] std::string endpoint() const override { return endpoint_; }
  [[nodiscard]] std::string replay_endpoint() const override { return replay_endpoint_; }

  bool Publish(uint64_t sequence, std::string_view batch) override {
    void* const socket = publishing_.get();
    return SendFrame(socket, topic_, ZMQ_SNDMORE) &&
           SendFrame(socket, SequenceFrame(sequence), ZMQ_SNDMORE) && SendFrame(socket, batch, 0);
  }

  Asked NextRequest(ReplayQuestion* request) override {
    if (replaying_.get() == nullptr) {
      return Asked::kNothing;
    }
    // A message is there as a whole or not at all.
    size_t count = 0;
    bool is_request = true;
    while (true) {
      Frame frame;
      if (!frame.Receive(replaying_.get())) {
        return count == 0 ? Asked::kNothing : Asked::kNoRequest;
      }
      if (count == 0) {
        request->peer = std::string(frame.bytes());
      } else if (count == 1) {
        is_request = frame.bytes().empty();
      } else {
        is_request = is_request && count == 2 && frame.bytes().size() == kSequenceBytes;
        request->first = SequenceOf(frame.bytes().substr(0, kSequenceBytes));
      }
      ++count;
      if (!frame.HasMore()) {
        return is_request && count == 3 ? Asked::kRequest : Asked::kNoRequest;
      }
    }
  }

  Sent Reply(const std::string& peer, uint64_t sequence, std::string_view batch) override {
    void* const socket = replaying_.get();
    if (!SendFrame(socket, peer, ZMQ_SNDMORE)) {
      return zmq_errno() == EAGAIN ? Sent::kFull : Sent::kGone;
    }
    // Once it has taken the peer's name it takes the rest.
    return SendFrame(socket, "", ZMQ_SNDMORE) &&
                   SendFrame(socket, SequenceFrame(sequence), ZMQ_SNDMORE) &&
                   SendFrame(socket, batch, 0)
               ? Sent::kSent
               : Sent::kGone;
  }

  void Wait(absl::Duration limit) override {
    zmq_pollitem_t items[2] = {{nullptr, wake_.get(), ZMQ_POLLIN, 0},
                               {replaying_.get(), 0, ZMQ_POLLIN, 0}};
    const int count = replaying_.get() == nullptr ? 1 : 2;
    zmq_poll(items, count, absl::ToInt64Milliseconds(limit));
    wake_.Clear();
  }
  void Wake() override { wake_.Notify(); }

 private:
  static bool SetUp(Socket& socket, const std::string& endpoint) {
    return socket.Set(ZMQ_LINGER, static_cast<int>(absl::ToInt64Milliseconds(kEventLinger))) &&
           zmq_setsockopt(socket.get(), ZMQ_MAXMSGSIZE, &kMaxFrameBytes, sizeof(kMaxFrameBytes)) ==
               0 &&
           socket.Set(ZMQ_IPV6, endpoint.find('[') != std::string::npos ? 1 : 0) &&
           socket.Set(ZMQ_HEARTBEAT_IVL, kHeartbeatMs) &&
           socket.Set(ZMQ_HEARTBEAT_TIMEOUT, 3 * kHeartbeatMs);
  }

  const EventDescriptor wake_;
  const std::string topic_;
  // Sockets are closed before their context, which waits for them.
  Context context_;
  Socket publishing_;
  Socket replaying_;
  std::string endpoint_;
  std::string replay_endpoint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EventSockets>> EventSockets::Open(
    const EventPublisherOptions& options) {
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!wake.ok()) {
    return wake.status();
  }
  auto sockets = std::make_unique<ZmqEventSockets>(*std::move(wake), options);
  if (absl::Status status = sockets->Open(options); !status.ok()) {
    return status;
  }
  return sockets;
}

}  // namespace terrace
