#include "tests/e2e/daemon/program.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <pty.h>

extern char** environ;  // NOLINT(readability-redundant-declaration): not in every libc's headers

namespace terrace {
namespace {

constexpr absl::Duration kProgramLimit = absl::Minutes(1);

int ExitStatus(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

std::vector<std::string> EnvironmentWith(const std::vector<std::string>& changes) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    if (std::none_of(changes.begin(), changes.end(), [&](const std::string& change) {
          return change == name || absl::StartsWith(change, name + "=");
        })) {
      environment.push_back(text);
    }
  }
  for (const std::string& change : changes) {
    if (absl::StrContains(change, '=')) {
      environment.push_back(change);
    }
  }
  return environment;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

struct Pipe {
  Descriptor read_end;
  Descriptor write_end;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> ends{-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("pipe2: ", std::strerror(errno)));
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// Appends what can be read now; closes at the end of the stream.
void Take(Descriptor* fd, std::string* to) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(fd->get(), buffer.data(), buffer.size());
  if (got > 0) {
    to->append(buffer.data(), static_cast<size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    *fd = Descriptor();
  }
}

void Give(Descriptor* fd, const std::string& input, size_t* given) {
  const ssize_t wrote = write(fd->get(), input.data() + *given, input.size() - *given);
  if (wrote > 0) {
    *given += static_cast<size_t>(wrote);
  }
  if (*given == input.size() || (wrote < 0 && errno != EAGAIN && errno != EINTR)) {
    *fd = Descriptor();
  }
}

}  // namespace

absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& command,
                            const std::vector<std::string>& environment,
                            int in,
                            int out,
                            int err) {
  std::vector<std::string> arguments = command;
  std::vector<std::string> variables = EnvironmentWith(environment);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(variables);
  const pid_t pid = fork();
  if (pid < 0) {
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  if (pid == 0) {
    // Only what is safe between fork and exec in a program with threads.
    setsid();
    if (isatty(in) == 1) {
      ioctl(in, TIOCSCTTY, 0);
    }
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  return pid;
}

int WaitForChild(pid_t pid, absl::Duration limit) {
  const absl::Time until = absl::Now() + limit;
  while (true) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) {
      return ExitStatus(status);
    }
    if (absl::Now() > until) {
      return -1;
    }
    absl::SleepFor(absl::Milliseconds(2));  // polls: a child's end has no descriptor here
  }
}

Ran RunProgram(const std::vector<std::string>& command,
               const std::string& input,
               const std::vector<std::string>& environment) {
  Ran ran;
  absl::StatusOr<Pipe> in = MakePipe();
  absl::StatusOr<Pipe> out = MakePipe();
  absl::StatusOr<Pipe> err = MakePipe();
  if (!in.ok() || !out.ok() || !err.ok()) {
    ran.err = "no pipes";
    return ran;
  }
  const absl::StatusOr<pid_t> pid =
      Spawn(command, environment, in->read_end.get(), out->write_end.get(), err->write_end.get());
  if (!pid.ok()) {
    ran.err = std::string(pid.status().message());
    return ran;
  }
  in->read_end = Descriptor();
  out->write_end = Descriptor();
  err->write_end = Descriptor();
  (void)std::signal(SIGPIPE, SIG_IGN);  // a program that does not read its input
  (void)fcntl(in->write_end.get(), F_SETFL, O_NONBLOCK);
  size_t given = 0;
  if (input.empty()) {
    in->write_end = Descriptor();
  }
  const absl::Time until = absl::Now() + kProgramLimit;
  while (out->read_end.valid() || err->read_end.valid()) {
    std::array<pollfd, 3> waits = {pollfd{out->read_end.get(), POLLIN, 0},
                                   pollfd{err->read_end.get(), POLLIN, 0},
                                   pollfd{in->write_end.get(), POLLOUT, 0}};
    if (poll(waits.data(), waits.size(), 1000) < 0 && errno != EINTR) {
      break;
    }
    if (waits[0].revents != 0) {
      Take(&out->read_end, &ran.out);
    }
    if (waits[1].revents != 0) {
      Take(&err->read_end, &ran.err);
    }
    if (waits[2].revents != 0) {
      Give(&in->write_end, input, &given);
    }
    if (absl::Now() > until) {
      kill(*pid, SIGKILL);
      break;
    }
  }
  ran.exit_status = WaitForChild(*pid, kProgramLimit);
  return ran;
}

absl::StatusOr<TerminalProgram> TerminalProgram::Start(
    const std::vector<std::string>& command, const std::vector<std::string>& environment) {
  int master = -1;
  int slave = -1;
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 100;
  if (openpty(&master, &slave, nullptr, nullptr, &size) != 0) {
    return absl::UnavailableError(absl::StrCat("openpty: ", std::strerror(errno)));
  }
  Descriptor master_fd(master);
  const Descriptor slave_fd(slave);
  (void)fcntl(master, F_SETFD, FD_CLOEXEC);
  const absl::StatusOr<pid_t> pid = Spawn(command, environment, slave, slave, slave);
  if (!pid.ok()) {
    return pid.status();
  }
  return TerminalProgram(std::move(master_fd), *pid);
}

TerminalProgram::~TerminalProgram() {
  if (master_.valid() && pid_ > 0) {
    kill(pid_, SIGKILL);
    (void)WaitForChild(pid_, kProgramLimit);
  }
}

bool TerminalProgram::ReadSome(absl::Time until) {
  pollfd wait{master_.get(), POLLIN, 0};
  const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(until - absl::Now()));
  if (poll(&wait, 1, static_cast<int>(std::min<int64_t>(left_ms, 60'000))) <= 0) {
    return false;
  }
  std::array<char, 65536> buffer;
  const ssize_t got = read(master_.get(), buffer.data(), buffer.size());
  if (got <= 0) {
    return false;  // EIO: the program has closed the terminal
  }
  shown_.append(buffer.data(), static_cast<size_t>(got));
  return true;
}

bool TerminalProgram::WaitFor(const std::string& piece, int times, absl::Duration limit) {
  const absl::Time until = absl::Now() + limit;
  while (true) {
    int found = 0;
    for (size_t at = shown_.find(piece); at != std::string::npos;
         at = shown_.find(piece, at + piece.size())) {
      ++found;
    }
    if (found >= times) {
      return true;
    }
    if (!ReadSome(until)) {
      return false;
    }
  }
}

void TerminalProgram::Type(const std::string& keys) {
  (void)!write(master_.get(), keys.data(), keys.size());
}

void TerminalProgram::Signal(int number) {
  kill(pid_, number);
}

int TerminalProgram::WaitForEnd(absl::Duration limit) {
  const absl::Time until = absl::Now() + limit;
  while (ReadSome(until)) {
  }
  const int status = WaitForChild(pid_, std::max(until - absl::Now(), absl::Seconds(1)));
  if (status >= 0) {
    pid_ = -1;
  }
  return status;
}

}  // namespace terrace
