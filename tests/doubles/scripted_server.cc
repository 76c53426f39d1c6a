#include "tests/doubles/scripted_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "tests/doubles/scripted_store.h"

namespace terrace::testing {
namespace {

constexpr size_t kHeaderBytes = 24;
constexpr uint8_t kReply = 2;
constexpr uint8_t kPush = 3;

void Must(bool condition, const char* what) {
  if (!condition) {
    std::perror(what);
    std::abort();
  }
}

template <typename Number>
void Put(std::string* out, Number value) {
  for (size_t i = 0; i < sizeof(Number); ++i) {
    out->push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

template <typename Number>
Number Take(std::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) {
    value |= uint64_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  }
  return static_cast<Number>(value);
}

// A pidfd shows its process in /proc/self/fdinfo.
bool NamesThisProcess(int pidfd) {
  std::ifstream file("/proc/self/fdinfo/" + std::to_string(pidfd));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("Pid:", 0) == 0) {
      return std::stol(line.substr(4)) == ::getpid();
    }
  }
  return false;
}

}  // namespace

std::string EncodeWireHeader(const WireHeader& header) {
  std::string out;
  Put(&out, header.payload_bytes);
  Put(&out, header.method);
  Put(&out, header.kind);
  Put(&out, header.descriptor_count);
  Put(&out, header.call_id);
  Put(&out, header.deadline_ms);
  Put(&out, header.status);
  return out;
}

WireHeader DecodeWireHeader(std::string_view bytes) {
  WireHeader header;
  header.payload_bytes = Take<uint32_t>(bytes, 0);
  header.method = Take<uint16_t>(bytes, 4);
  header.kind = Take<uint8_t>(bytes, 6);
  header.descriptor_count = Take<uint8_t>(bytes, 7);
  header.call_id = Take<uint64_t>(bytes, 8);
  header.deadline_ms = Take<uint32_t>(bytes, 16);
  header.status = Take<uint32_t>(bytes, 20);
  return header;
}

class ScriptedServer::Connection {
 public:
  // Counts itself in *open for as long as its descriptors are.
  Connection(int fd, std::shared_ptr<std::atomic<size_t>> open) : fd_(fd), open_(std::move(open)) {
    ++*open_;
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    for (const int fd : arrived) {
      ::close(fd);
    }
    ::close(fd_);
    --*open_;
  }

  // Blocks while the peer doesn't read, and gives up when the connection ends.
  void Send(std::string_view bytes, const std::vector<int>& passed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int> left = passed;
    while (!bytes.empty()) {
      iovec part{const_cast<char*>(bytes.data()), bytes.size()};
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      std::vector<char> control(CMSG_SPACE(left.size() * sizeof(int)));
      if (!left.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(left.size() * sizeof(int));
        std::memcpy(CMSG_DATA(header), left.data(), left.size() * sizeof(int));
      }
      const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (sent <= 0) {
        return;
      }
      left.clear();
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  void Shutdown() const { ::shutdown(fd_, SHUT_RDWR); }
  [[nodiscard]] int fd() const { return fd_; }

  std::string buffer;        // received and not yet a frame
  std::vector<int> arrived;  // descriptors in order of arrival

 private:
  const int fd_;
  const std::shared_ptr<std::atomic<size_t>> open_;
  std::mutex mutex_;
};

void ScriptedServer::Exchange::Reply(const google::protobuf::MessageLite& reply, int passed) const {
  WireHeader answer;
  answer.method = header.method;
  answer.kind = kReply;
  answer.call_id = header.call_id;
  Frame(answer, reply.SerializeAsString(),
        passed < 0 ? std::vector<int>{} : std::vector<int>{passed});
}

void ScriptedServer::Exchange::Refuse(uint32_t status,
                                      const std::string& why,
                                      uint32_t retry_after_ms) const {
  v1::ErrorDetail detail;
  detail.set_message(why);
  detail.set_retry_after_ms(retry_after_ms);
  WireHeader answer;
  answer.method = header.method;
  answer.kind = kReply;
  answer.call_id = header.call_id;
  answer.status = status;
  Frame(answer, detail.SerializeAsString());
}

void ScriptedServer::Exchange::Push(v1::Method method,
                                    const google::protobuf::MessageLite& notice) const {
  WireHeader push;
  push.method = static_cast<uint16_t>(method);
  push.kind = kPush;
  Frame(push, notice.SerializeAsString());
}

void ScriptedServer::Exchange::Raw(std::string_view bytes) const {
  connection_->Send(bytes, {});
}

void ScriptedServer::Exchange::Frame(WireHeader frame,
                                     std::string_view payload,
                                     const std::vector<int>& passed) const {
  frame.payload_bytes = static_cast<uint32_t>(payload.size());
  frame.descriptor_count = static_cast<uint8_t>(passed.size());
  connection_->Send(EncodeWireHeader(frame).append(payload), passed);
}

void ScriptedServer::Exchange::Disconnect() const {
  connection_->Shutdown();
}

ScriptedServer::ScriptedServer(std::string folder) : folder_(std::move(folder)) {
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  Must(wake_ >= 0, "eventfd");
  boot_id_ = 0x1000;
  ResetStore();
  Listen();
  thread_ = std::thread([this] { Run(); });
}

ScriptedServer::~ScriptedServer() {
  Stop();
  ::close(wake_);
}

void ScriptedServer::Listen() {
  const std::string path = folder_ + "/session.sock";
  ::unlink(path.c_str());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Must(path.size() < sizeof(address.sun_path), "path of the socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  Must(listener_ >= 0, "socket");
  Must(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0,
       "bind");
  Must(::listen(listener_, 64) == 0, "listen");
}

void ScriptedServer::Wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = ::write(wake_, &one, sizeof(one));
}

void ScriptedServer::Stop() {
  if (!thread_.joinable()) {
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (const auto& connection : connections_) {
      connection->Shutdown();  // a reply that nobody reads must not keep the thread
    }
  }
  Wake();
  thread_.join();
  ::close(listener_);
  ::unlink((folder_ + "/session.sock").c_str());
  const std::lock_guard<std::mutex> lock(mutex_);
  connections_.clear();
  kept_.clear();
}

void ScriptedServer::Start() {
  Stop();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = false;
    hung_ = false;
    boot_id_ += 1;
  }
  ResetStore();
  Listen();
  thread_ = std::thread([this] { Run(); });
}

void ScriptedServer::Hang() {
  hung_ = true;
  Wake();
}

void ScriptedServer::Resume() {
  hung_ = false;
  Wake();
}

void ScriptedServer::DropConnections() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& connection : connections_) {
    connection->Shutdown();
  }
}

void ScriptedServer::KeepEnds() {
  const std::lock_guard<std::mutex> lock(mutex_);
  keeps_ends_ = true;
}

void ScriptedServer::LetGo() {
  const std::lock_guard<std::mutex> lock(mutex_);
  keeps_ends_ = false;
  kept_.clear();
}

size_t ScriptedServer::connections_kept() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_.size();
}

void ScriptedServer::On(v1::Method method, Script script) {
  const std::lock_guard<std::mutex> lock(mutex_);
  scripts_[method] = std::move(script);
}

void ScriptedServer::SetHello(std::function<void(v1::HelloReply*)> change) {
  const std::lock_guard<std::mutex> lock(mutex_);
  change_hello_ = std::move(change);
}

void ScriptedServer::PushAll(v1::Method method, const google::protobuf::MessageLite& notice) {
  std::vector<std::shared_ptr<Connection>> all;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    all = connections_;
  }
  for (const auto& connection : all) {
    Exchange exchange;
    exchange.connection_ = connection;
    exchange.Push(method, notice);
  }
}

void ScriptedServer::ResetStore() {
  auto store = std::make_shared<ScriptedStore>(boot_id_);
  const std::lock_guard<std::mutex> lock(mutex_);
  store_ = std::move(store);
}

void ScriptedServer::Answer(const Exchange& exchange) {
  if (exchange.header.method == v1::METHOD_HELLO) {
    return Hello(exchange);
  }
  std::shared_ptr<ScriptedStore> store;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    store = store_;
  }
  store->Answer(exchange);
}

void ScriptedServer::Hello(const Exchange& exchange) {
  const auto request = exchange.As<v1::HelloRequest>();
  own_pidfd_ = exchange.descriptors.size() == 1 && NamesThisProcess(exchange.descriptors[0]);
  v1::HelloReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_protocol_major(1);
  for (const int feature : {1, 2, 4, 5, 6, 7, 8, 13}) {
    reply.add_features(static_cast<v1::Feature>(feature));
  }
  reply.set_leases(request.pidfd());
  reply.set_lease_limit_bytes(1 << 20);
  reply.set_max_keys(16384);
  reply.set_max_message_bytes(4 << 20);
  reply.set_max_calls_in_flight(256);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    client_name_ = request.client_name();
    if (change_hello_) {
      change_hello_(&reply);
    }
  }
  exchange.Reply(reply);
}

size_t ScriptedServer::connections_open() const {
  return *open_;
}

size_t ScriptedServer::live_leases() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return store_->leases();
}

size_t ScriptedServer::live_regions() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return store_->regions();
}

std::string ScriptedServer::last_client_name() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return client_name_;
}

size_t ScriptedServer::Seen(v1::Method method) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<size_t>(std::count(order_.begin(), order_.end(), method));
}

std::vector<v1::Method> ScriptedServer::Order() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return order_;
}

std::string ScriptedServer::LastMessage(v1::Method method) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = last_messages_.find(method);
  return found == last_messages_.end() ? std::string() : found->second;
}

uint32_t ScriptedServer::LastDeadlineMs(v1::Method method) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = last_deadlines_.find(method);
  return found == last_deadlines_.end() ? 0 : found->second;
}

bool ScriptedServer::Eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    ::poll(nullptr, 0, 1);
  }
  return true;
}

void ScriptedServer::Run() {
  for (;;) {
    std::vector<std::shared_ptr<Connection>> watched;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) {
        return;
      }
      if (!hung_) {
        watched = connections_;
      }
    }
    std::vector<pollfd> polled = {{wake_, POLLIN, 0}};
    if (!hung_) {
      polled.push_back({listener_, POLLIN, 0});
    }
    for (const auto& connection : watched) {
      polled.push_back({connection->fd(), POLLIN, 0});
    }
    ::poll(polled.data(), polled.size(), -1);
    if (polled[0].revents != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_, &count, sizeof(count));
      continue;
    }
    for (size_t i = 0; i < watched.size(); ++i) {
      if (polled[i + 2].revents != 0 && !Read(watched[i])) {
        Forget(watched[i]);
      }
    }
    if (polled.size() > 1 && polled[1].revents != 0) {
      Accept();
    }
  }
}

void ScriptedServer::Accept() {
  const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  connections_.push_back(std::make_shared<Connection>(fd, open_));
  ++accepted_;
}

void ScriptedServer::Forget(const std::shared_ptr<Connection>& connection) {
  const std::lock_guard<std::mutex> lock(mutex_);
  connections_.erase(std::remove(connections_.begin(), connections_.end(), connection),
                     connections_.end());
  if (keeps_ends_) {
    kept_.push_back(connection);
  }
  store_->EndOfSession(connection.get());
}

bool ScriptedServer::Read(const std::shared_ptr<Connection>& connection) {
  std::array<char, 1 << 16> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(16 * sizeof(int))> control;
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(connection->fd(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got <= 0) {
    return got < 0 && errno == EAGAIN;
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      connection->arrived.push_back(fd);
    }
  }
  connection->buffer.append(bytes.data(), static_cast<size_t>(got));
  while (connection->buffer.size() >= kHeaderBytes) {
    const WireHeader header = DecodeWireHeader(connection->buffer);
    if (connection->buffer.size() < kHeaderBytes + header.payload_bytes) {
      break;
    }
    std::string payload = connection->buffer.substr(kHeaderBytes, header.payload_bytes);
    connection->buffer.erase(0, kHeaderBytes + header.payload_bytes);
    Dispatch(connection, header, std::move(payload));
  }
  return true;
}

void ScriptedServer::Dispatch(const std::shared_ptr<Connection>& connection,
                              const WireHeader& header,
                              std::string message) {
  Exchange exchange;
  exchange.header = header;
  exchange.message = std::move(message);
  exchange.connection_ = connection;
  Must(connection->arrived.size() >= header.descriptor_count, "descriptors of a frame");
  const auto end = connection->arrived.begin() + header.descriptor_count;
  exchange.descriptors.assign(connection->arrived.begin(), end);
  connection->arrived.erase(connection->arrived.begin(), end);
  const auto method = static_cast<v1::Method>(header.method);
  Script script;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    order_.push_back(method);
    last_messages_[method] = exchange.message;
    last_deadlines_[method] = header.deadline_ms;
    const auto found = scripts_.find(method);
    if (found != scripts_.end()) {
      script = found->second;
    }
  }
  if (script) {
    script(exchange);
  } else {
    Answer(exchange);
  }
  for (const int fd : exchange.descriptors) {
    ::close(fd);
  }
}

}  // namespace terrace::testing
