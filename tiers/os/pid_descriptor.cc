// Processes by pidfd.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// Enough for every line that the kernel writes for a pidfd; other files' longer ones are cut, and
// are not pidfds.
constexpr size_t kMaxFdinfoBytes = 1024;

std::string ReadFdinfo(int fd) {
  const Descriptor file(open(absl::StrCat("/proc/self/fdinfo/", fd).c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(kMaxFdinfoBytes, '\0');
  const ssize_t got = file.valid() ? read(file.get(), text.data(), text.size()) : 0;
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

// The number in the line "Pid:\tN", which only pidfds have (proc_pid_fdinfo(5), pidfd_show_fdinfo
// in kernel/fork.c).
std::optional<int> PidOf(int fd) {
  const std::string text = absl::StrCat("\n", ReadFdinfo(fd));
  constexpr std::string_view kField = "\nPid:\t";
  const size_t at = text.find(kField);
  if (at == std::string::npos) {
    return std::nullopt;
  }
  int pid = 0;
  const char* const begin = text.data() + at + kField.size();
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), pid);
  if (error != std::errc() || end == begin) {
    return std::nullopt;
  }
  return pid;
}

}  // namespace

absl::StatusOr<PidDescriptor> PidDescriptor::FromPassed(Descriptor fd) {
  if (!fd.valid() || !PidOf(fd.get()).has_value()) {
    return absl::InvalidArgumentError("pidfd: the descriptor is not a pidfd");
  }
  PidDescriptor process;
  process.fd_ = std::move(fd);
  return process;
}

absl::StatusOr<PidDescriptor> PidDescriptor::Open(int pid) {
  PidDescriptor process;
  process.fd_ =
      Descriptor(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));  // close-on-exec by itself
  if (!process.fd_.valid()) {
    return StatusFromErrno(errno, "pidfd_open");
  }
  return process;
}

bool PidDescriptor::Exited() const {
  pollfd end{fd_.get(), POLLIN, 0};
  return valid() && poll(&end, 1, 0) == 1 && (end.revents & POLLIN) != 0;
}

int PidDescriptor::Pid() const {
  const std::optional<int> pid = valid() ? PidOf(fd_.get()) : std::nullopt;
  if (!pid.has_value()) {
    return -1;
  }
  return *pid > 0 ? *pid : 0;  // the kernel writes -1 for a process that has been reaped
}

}  // namespace terrace
