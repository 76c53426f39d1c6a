#include "tests/e2e/kept/descriptor_store.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>

#include "tests/e2e/daemon/program.h"

namespace terrace {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

std::string ValueOf(const std::string& message, const std::string& name) {
  const size_t at = ("\n" + message).find("\n" + name + "=");
  if (at == std::string::npos) {
    return "";
  }
  const size_t begin = at + name.size() + 1;
  return message.substr(begin, message.find('\n', begin) - begin);
}

}  // namespace

DescriptorStore::DescriptorStore() : stop_(*EventDescriptor::Create()) {
  std::string pattern = (std::filesystem::temp_directory_path() / "terrace-kept-XXXXXX").string();
  dir_ = mkdtemp(pattern.data());
  socket_ = Descriptor(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (dir_ + "/notify").copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  thread_ = std::thread([this] { Loop(); });
}

DescriptorStore::~DescriptorStore() {
  if (pid_ > 0) {
    static_cast<void>(End(SIGKILL));
  }
  stop_.Notify();
  thread_.join();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void DescriptorStore::Loop() {
  while (true) {
    pollfd fds[2] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    poll(fds, 2, -1);
    if ((fds[1].revents & POLLIN) != 0) {
      return;
    }
    char text[4096];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 16)];
    iovec piece = {text, sizeof(text)};
    msghdr header = {};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (got < 0) {
      continue;
    }
    std::vector<Descriptor> descriptors;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
          descriptors.emplace_back(fd);
        }
      }
    }
    Heard(std::string(text, static_cast<size_t>(got)), std::move(descriptors));
  }
}

// A barrier is answered by closing its descriptor, which happens when this returns.
void DescriptorStore::Heard(const std::string& message, std::vector<Descriptor> descriptors) {
  absl::MutexLock lock(&mutex_);
  if (ValueOf(message, "READY") == "1") {
    ready_ = true;
  }
  if (ValueOf(message, "FDSTORE") == "1") {
    for (Descriptor& fd : descriptors) {
      stored_.emplace(ValueOf(message, "FDNAME"), std::move(fd));
    }
  }
  if (ValueOf(message, "FDSTOREREMOVE") == "1") {
    stored_.erase(ValueOf(message, "FDNAME"));
  }
}

bool DescriptorStore::Start(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {TERRACED_PATH, "--data", dir_ + "/data"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : command) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  std::string names;
  std::vector<int> fds;
  {
    absl::MutexLock lock(&mutex_);
    ready_ = false;
    for (const auto& [name, fd] : stored_) {
      names += (names.empty() ? "" : ":") + name;
      fds.push_back(fd.get());
    }
  }
  const std::string err = dir_ + "/err";
  const pid_t pid = fork();
  if (pid == 0) {
    const int log = open(err.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    // Out of the way of the numbers that they are to have.
    const int first = 3 + static_cast<int>(fds.size());
    for (int& fd : fds) {
      fd = fcntl(fd, F_DUPFD_CLOEXEC, std::max(first, 500));
    }
    for (size_t i = 0; i < fds.size(); ++i) {
      dup2(fds[i], 3 + static_cast<int>(i));
    }
    setenv("NOTIFY_SOCKET", (dir_ + "/notify").c_str(), 1);
    unsetenv("WATCHDOG_USEC");
    unsetenv("FDSTORE");
    setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    setenv("LISTEN_FDNAMES", names.c_str(), 1);
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  pid_ = pid;
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&ready_), kPatience);
}

int DescriptorStore::End(int signal) {
  kill(pid_, signal);
  return WaitForChild(std::exchange(pid_, -1), kPatience);
}

bool DescriptorStore::Eventually(
    const std::function<bool(const std::multimap<std::string, Descriptor>&)>& condition) const {
  absl::MutexLock lock(&mutex_);
  const auto holds = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return condition(stored_); };
  return mutex_.AwaitWithTimeout(absl::Condition(&holds), kPatience);
}

size_t DescriptorStore::count() const {
  absl::MutexLock lock(&mutex_);
  return stored_.size();
}

std::multimap<std::string, Descriptor> DescriptorStore::TakeAll() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(stored_, {});
}

void DescriptorStore::Put(std::string name, Descriptor fd) {
  absl::MutexLock lock(&mutex_);
  stored_.emplace(std::move(name), std::move(fd));
}

std::string DescriptorStore::Log() const {
  std::ifstream in(dir_ + "/err");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace terrace
