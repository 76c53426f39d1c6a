#include "tools/bench/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>
#include <thread>

#include "tiers/os/descriptor.h"

namespace terrace::bench {
namespace {

constexpr std::chrono::milliseconds kStopLimit{10'000};

// All that the child needs, made before the fork: after it, it may not allocate.
class Program {
 public:
  Program(const std::vector<std::string>& args, const Handover& handover)
      : own_(handover.environment), descriptors_(handover.descriptors) {
    for (const std::string& arg : args) {
      args_.push_back(const_cast<char*>(arg.c_str()));  // execvpe does not write to them
    }
    args_.push_back(nullptr);
    if (!own_.empty()) {
      own_.push_back(kListenPid + std::string(kPidDigits, '\0'));
    }
    for (std::string& text : own_) {
      environment_.push_back(text.data());
    }
    for (char** inherited = environ; *inherited != nullptr; ++inherited) {
      if (!IsOwn({*inherited, std::strcspn(*inherited, "=")})) {
        environment_.push_back(*inherited);
      }
    }
    environment_.push_back(nullptr);
  }

  // The child, from the fork on: only what may run there.
  [[noreturn]] void Become(int log_fd, int error_fd, pid_t parent) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // First out of the way of the numbers that those handed over are to have.
    const int first = STDERR_FILENO + 1 + static_cast<int>(descriptors_.size());
    error_fd = fcntl(error_fd, F_DUPFD_CLOEXEC, first);
    for (int& fd : descriptors_) {
      fd = fcntl(fd, F_DUPFD_CLOEXEC, first);
    }
    if (getppid() == parent) {  // else the bench is gone already, and no signal would ever come
      const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
      dup2(null_fd, STDIN_FILENO);
      dup2(log_fd, STDOUT_FILENO);
      dup2(log_fd, STDERR_FILENO);
      for (size_t i = 0; i < descriptors_.size(); ++i) {
        dup2(descriptors_[i], STDERR_FILENO + 1 + static_cast<int>(i));
      }
      if (!own_.empty()) {
        std::string& pid = own_.back();
        std::to_chars(pid.data() + kListenPid.size(), pid.data() + pid.size(), getpid());
      }
      execvpe(args_[0], args_.data(), environment_.data());
    }
    const int error = errno;
    static_cast<void>(!write(error_fd, &error, sizeof(error)));
    _exit(127);
  }

 private:
  inline static const std::string kListenPid = "LISTEN_PID=";
  static constexpr size_t kPidDigits = 20;

  [[nodiscard]] bool IsOwn(std::string_view name) const {
    return std::any_of(own_.begin(), own_.end(), [name](const std::string& text) {
      return std::string_view(text).substr(0, text.find('=')) == name;
    });
  }

  std::vector<char*> args_;
  std::vector<std::string> own_;  // NAME=VALUE; the last one is LISTEN_PID
  std::vector<char*> environment_;
  std::vector<int> descriptors_;
};

}  // namespace

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    Stop();
    pid_ = std::exchange(other.pid_, 0);
  }
  return *this;
}

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::vector<std::string>& args,
                                                 const std::string& log_file,
                                                 const Handover& handover) {
  const Descriptor log(open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::array<int, 2> ends{-1, -1};
  if (!log.valid() || pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(log_file + ": " + std::strerror(errno));
  }
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  Program program(args, handover);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    program.Become(log.get(), writing.get(), parent);
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
