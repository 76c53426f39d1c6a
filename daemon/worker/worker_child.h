// A worker as the core has it: a process that can be killed at any time and may not die of it.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/os/descriptor.h"

namespace terrace {

// Move-only, thread-compatible. Its end kills the process and does not wait for it; what is left of
// it then is reaped when a later one starts or ends.
class WorkerChild {
 public:
  // Starts `program` (a path) as `--worker=ROLE` ("shared:NAME", "gpu:N"), with `socket` as its
  // kWorkerSocket and its stderr shared with us. To be called by a thread that lives as long as the
  // worker shall: the kernel ends it with that thread. RESOURCE_EXHAUSTED, NOT_FOUND (no such
  // program).
  static absl::StatusOr<WorkerChild> Start(const std::string& program,
                                           const std::string& role,
                                           Descriptor socket);

  WorkerChild(WorkerChild&& other) noexcept;
  WorkerChild& operator=(WorkerChild&& other) noexcept;
  WorkerChild(const WorkerChild&) = delete;
  WorkerChild& operator=(const WorkerChild&) = delete;
  ~WorkerChild();

  // SIGKILL. A thread that hangs in a file system outlives it, and the process with it.
  void Kill() const;
  // Whether the process is over; reaps it. Waits so long for it.
  bool Gone(absl::Duration wait = absl::ZeroDuration());

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int exit_descriptor() const { return process_.get(); }  // readable: it is over
  // A pidfd of the process for somebody else. RESOURCE_EXHAUSTED.
  [[nodiscard]] absl::StatusOr<Descriptor> DuplicatePidfd() const;

 private:
  WorkerChild(pid_t pid, PidDescriptor process) : pid_(pid), process_(std::move(process)) {}
  void Leave();

  pid_t pid_ = 0;  // 0: none, or reaped
  PidDescriptor process_;
};

// Killed, not over yet, and owned by nobody any more.
int LeftWorkers();

}  // namespace terrace
