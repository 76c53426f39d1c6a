// A program that is started for a measurement and never outlives it. Move-only; confined to the
// main thread: the kernel kills the child when the thread that started it ends.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace terrace::bench {

// What a child is given beyond its arguments, as service managers do (sd_listen_fds(3)).
struct Handover {
  std::vector<std::string> environment;  // NAME=VALUE, before the parent's of the same name
  std::vector<int> descriptors;          // 3, 4, ... there, with LISTEN_PID; the caller's here
};

class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() { Stop(); }

  // args[0] is the program's path or, without a slash, looked up in $PATH. Its output goes to the
  // end of `log_file`. It is in a process group of its own, so that an interrupt at the terminal
  // reaches the bench alone, which then stops it. Errors: INTERNAL (no process or pipe), NOT_FOUND
  // (cannot be executed).
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& args,
                                            const std::string& log_file,
                                            const Handover& handover = {});

  // SIGTERM, and SIGKILL if it is still there after ten seconds. Returns when it is gone.
  // Idempotent.
  void Stop();
  // SIGKILL at once. Returns when it is gone. Idempotent.
  void Kill();
  [[nodiscard]] bool Running();
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  bool WaitFor(std::chrono::milliseconds limit);

  pid_t pid_ = 0;  // 0: none
};

}  // namespace terrace::bench
