#include "tools/bench/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "tiers/os/descriptor.h"

namespace terrace::bench {
namespace {

constexpr std::chrono::milliseconds kStopLimit{10'000};

// Runs in the child between fork and exec: only what may run there.
[[noreturn]] void Become(char* const* args, int log_fd, int error_fd, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent) {  // else the bench is gone already, and no signal would ever come
    const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execvp(args[0], args);
  }
  const int error = errno;
  static_cast<void>(!write(error_fd, &error, sizeof(error)));
  _exit(127);
}

}  // namespace

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    Stop();
    pid_ = std::exchange(other.pid_, 0);
  }
  return *this;
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& args,
                                                 const std::string& log_file) {
  const Descriptor log(open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::array<int, 2> ends{-1, -1};
  if (!log.valid() || pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(log_file + ": " + std::strerror(errno));
  }
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  std::vector<char*> pointers;
  pointers.reserve(args.size() + 1);
  for (const std::string& arg : args) {
    pointers.push_back(const_cast<char*>(arg.c_str()));  // execvp does not write to them
  }
  pointers.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    Become(pointers.data(), log.get(), writing.get(), parent);
  }
  if (pid < 0) {
    return absl::InternalError(std::string("fork: ") + std::strerror(errno));
  }
  writing = Descriptor();
  ChildProcess child;
  child.pid_ = pid;
  int error = 0;
  ssize_t got = 0;
  while ((got = read(reading.get(), &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  if (got == sizeof(error)) {  // a successful exec closes the pipe without a word
    return absl::NotFoundError(args[0] + ": " + std::strerror(error));
  }
  return child;
}

bool ChildProcess::WaitFor(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (Running()) {
    if (std::chrono::steady_clock::now() >= until) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

bool ChildProcess::Running() {
  if (pid_ == 0) {
    return false;
  }
  const pid_t ended = waitpid(pid_, nullptr, WNOHANG);
  if (ended == pid_ || (ended < 0 && errno == ECHILD)) {
    pid_ = 0;
  }
  return pid_ != 0;
}

void ChildProcess::Stop() {
  if (!Running()) {
    return;
  }
  kill(pid_, SIGTERM);
  if (!WaitFor(kStopLimit)) {
    Kill();
  }
}

void ChildProcess::Kill() {
  if (Running()) {
    kill(pid_, SIGKILL);
    WaitFor(kStopLimit);
  }
}

}  // namespace terrace::bench
