#include "tools/bench/descriptor_store.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"

namespace terrace::bench {
namespace {

constexpr size_t kMaxMessageBytes = 4096;
constexpr size_t kMaxDescriptors = 16;  // of one message

std::string ValueOf(const std::string& message, const std::string& name) {
  const size_t at = ("\n" + message).find("\n" + name + "=");
  if (at == std::string::npos) {
    return "";
  }
  const size_t begin = at + name.size() + 1;
  return message.substr(begin, message.find('\n', begin) - begin);
}

std::vector<Descriptor> DescriptorsOf(msghdr& header) {
  std::vector<Descriptor> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DescriptorStore>> DescriptorStore::Create(
    const std::string& folder) {
  const std::string path = folder + "/notify";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  absl::StatusOr<EventDescriptor> stop = EventDescriptor::Create();
  if (path.size() >= sizeof(address.sun_path) || !stop.ok()) {
    return absl::InternalError(path + ": no socket of a service manager");
  }
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::InternalError(path + ": " + std::strerror(errno));
  }
  return std::unique_ptr<DescriptorStore>(
      new DescriptorStore(path, std::move(socket), *std::move(stop)));
}

DescriptorStore::DescriptorStore(std::string path, Descriptor socket, EventDescriptor stop)
    : path_(std::move(path)), socket_(std::move(socket)), stop_(std::move(stop)) {
  thread_ = std::thread([this] { Loop(); });
}

DescriptorStore::~DescriptorStore() {
  stop_.Notify();
  thread_.join();
}

void DescriptorStore::Loop() {
  pollfd fds[2] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while ((fds[1].revents & POLLIN) == 0) {
    if (poll(fds, 2, -1) > 0 && (fds[0].revents & POLLIN) != 0) {
      Receive();
    }
  }
}

void DescriptorStore::Receive() {
  char text[kMaxMessageBytes];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
  iovec piece = {text, sizeof(text)};
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
  if (got >= 0) {
    Heard(std::string(text, static_cast<size_t>(got)), DescriptorsOf(header));
  }
}

// A barrier is answered by closing its descriptor, which happens when this returns.
void DescriptorStore::Heard(const std::string& message, std::vector<Descriptor> descriptors) {
  absl::MutexLock lock(&mutex_);
  if (ValueOf(message, "READY") == "1") {
    ready_ = true;
  }
  if (ValueOf(message, "FDSTORE") == "1") {
    for (Descriptor& descriptor : descriptors) {
      stored_.emplace(ValueOf(message, "FDNAME"), std::move(descriptor));
    }
  }
  if (ValueOf(message, "FDSTOREREMOVE") == "1") {
    stored_.erase(ValueOf(message, "FDNAME"));
  }
}

Handover DescriptorStore::NextStart() {
  absl::MutexLock lock(&mutex_);
  ready_ = false;
  Handover handover;
  std::string names;
  for (const auto& [name, descriptor] : stored_) {
    names += (names.empty() ? "" : ":") + name;
    handover.descriptors.push_back(descriptor.get());
  }
  // No watchdog: the one of the environment is this process's own.
  handover.environment = {"NOTIFY_SOCKET=" + path_,
                          "LISTEN_FDS=" + std::to_string(handover.descriptors.size()),
                          "LISTEN_FDNAMES=" + names, "WATCHDOG_USEC=0", "FDSTORE=4096"};
  return handover;
}

bool DescriptorStore::WaitReady(absl::Duration limit) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&ready_), limit);
}

size_t DescriptorStore::count() const {
  absl::MutexLock lock(&mutex_);
  return stored_.size();
}

bool DescriptorStore::Wait(const std::function<bool(const Stored&)>& condition,
                           absl::Duration limit) const {
  absl::MutexLock lock(&mutex_);
  const auto holds = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return condition(stored_); };
  return mutex_.AwaitWithTimeout(absl::Condition(&holds), limit);
}

DescriptorStore::Stored DescriptorStore::TakeAll() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(stored_, {});
}

void DescriptorStore::Put(std::string name, Descriptor descriptor) {
  absl::MutexLock lock(&mutex_);
  stored_.emplace(std::move(name), std::move(descriptor));
}

}  // namespace terrace::bench
