#include "tests/e2e/daemon_lifecycle/daemon_run.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "tests/e2e/daemon/program.h"

namespace terrace {

DaemonRun::DaemonRun() {
  std::string pattern = (std::filesystem::temp_directory_path() / "terrace-life-XXXXXX").string();
  dir_ = mkdtemp(pattern.data());
  notify_ = Descriptor(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (dir_ + "/notify").copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(notify_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
}

DaemonRun::~DaemonRun() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    static_cast<void>(WaitForChild(pid_, kPatience));
  }
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void DaemonRun::Start(const std::vector<std::string>& arguments,
                      const std::vector<std::string>& environment,
                      int err_fd) {
  const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  const Descriptor err(
      open((dir_ + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::vector<std::string> command = {TERRACED_PATH};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = {"NOTIFY_SOCKET=" + dir_ + "/notify", "WATCHDOG_USEC",
                                        "WATCHDOG_PID", "TERRACE_CONFIG", "TERRACE_RUNTIME"};
  variables.insert(variables.end(), environment.begin(), environment.end());
  const absl::StatusOr<pid_t> pid =
      Spawn(command, variables, nothing.get(), nothing.get(), err_fd >= 0 ? err_fd : err.get());
  ASSERT_TRUE(pid.ok()) << pid.status();
  pid_ = *pid;
}

bool DaemonRun::StartSmall(const std::vector<std::string>& more,
                           const std::vector<std::string>& environment) {
  std::vector<std::string> arguments = {"--data", data(), "--set", "dram.capacity=64MiB"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Start(arguments, environment);
  return Told("READY=1");
}

bool DaemonRun::Told(const std::string& piece) {
  const absl::Time until = absl::Now() + kPatience;
  while (true) {
    if (const size_t at = told_.find(piece); at != std::string::npos) {
      told_.erase(0, at + piece.size());
      return true;
    }
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    pollfd readable = {notify_.get(), POLLIN, 0};
    poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    char buffer[4096];
    const ssize_t got = recv(notify_.get(), buffer, sizeof(buffer), 0);
    if (got > 0) {
      told_.append(buffer, static_cast<size_t>(got)).push_back('\n');
    }
  }
}

std::string DaemonRun::err() const {
  std::ifstream in(dir_ + "/err");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool DaemonRun::Logged(const std::string& piece) const {
  for (const absl::Time until = absl::Now() + kPatience; absl::Now() < until;
       absl::SleepFor(absl::Milliseconds(5))) {
    if (err().find(piece) != std::string::npos) {
      return true;
    }
  }
  return false;
}

void DaemonRun::Signal(int number) const {
  EXPECT_EQ(kill(pid_, number), 0);
}

int DaemonRun::End(absl::Duration limit) {
  const int status = WaitForChild(pid_, limit);
  if (status >= 0) {
    pid_ = -1;
  }
  return status;
}

std::string DaemonRun::Write(const std::string& name, const std::string& text) const {
  const std::string path = dir_ + "/" + name;
  std::ofstream(path) << text;
  EXPECT_EQ(chmod(path.c_str(), 0600), 0);
  return path;
}

}  // namespace terrace
