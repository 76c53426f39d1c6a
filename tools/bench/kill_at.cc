#include "tools/bench/kill_at.h"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include <dirent.h>

#include "tiers/os/descriptor.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kInstructionsPerNanosecond = 2;
constexpr int kCallStop = SIGTRAP | 0x80;  // what PTRACE_O_TRACESYSGOOD makes of a call's stop

// x86-64 has the old names beside those with a folder's descriptor.
constexpr uint64_t kFileCalls[] = {
    SYS_write,     SYS_writev,    SYS_pwrite64,        SYS_pwritev,   SYS_pwritev2, SYS_fsync,
    SYS_fdatasync, SYS_fallocate, SYS_sync_file_range, SYS_ftruncate, SYS_openat,   SYS_unlinkat,
    SYS_mkdirat,   SYS_renameat2, SYS_io_uring_enter,
#ifdef SYS_rename
    SYS_open,      SYS_unlink,    SYS_mkdir,           SYS_rename,    SYS_renameat, SYS_rmdir,
#endif
};

std::vector<pid_t> ThreadsOf(pid_t pid) {
  struct CloseFolder {
    void operator()(DIR* folder) const { closedir(folder); }
  };
  std::vector<pid_t> threads;
  const std::unique_ptr<DIR, CloseFolder> folder(
      opendir(("/proc/" + std::to_string(pid) + "/task").c_str()));
  if (folder == nullptr) {
    return threads;
  }
  while (const dirent* entry = readdir(folder.get())) {
    const pid_t thread = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (thread > 0) {
      threads.push_back(thread);
    }
  }
  return threads;
}

void SendStart(pid_t pid, const KillPlan& plan) {
  if (plan.start == KillPlan::Start::kSoftly) {
    kill(pid, SIGTERM);
  }
}

absl::StatusOr<KillReport> Reap(pid_t pid, KillReport report) {
  while (waitpid(pid, &report.wait_status, 0) < 0) {
    if (errno != EINTR) {
      return absl::InternalError(std::string("waitpid: ") + std::strerror(errno));
    }
  }
  return report;
}

// Traces all threads of a process and counts their calls. Confined to one thread.
class CallCounter {
 public:
  CallCounter(pid_t pid, const KillPlan& plan) : pid_(pid), plan_(plan) {}

  // False: tracing is not allowed here.
  bool Attach();
  absl::StatusOr<KillReport> Run();

 private:
  void OnCall(pid_t thread);

  const pid_t pid_;
  const KillPlan plan_;
  uint64_t calls_ = 0;
  pid_t last_thread_ = 0;  // made the call that was the last to count
};

bool CallCounter::Attach() {
  // Threads that a traced one starts are traced by themselves; the others are looked for until a
  // look brings no new one.
  constexpr uintptr_t kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  std::set<pid_t> seen;
  for (bool more = true; more;) {
    more = false;
    for (const pid_t thread : ThreadsOf(pid_)) {
      if (!seen.insert(thread).second) {
        continue;
      }
      more = true;
      if (ptrace(PTRACE_SEIZE, thread, nullptr, kOptions) == 0) {
        ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr);
      } else if (seen.size() == 1) {
        return false;
      }
    }
  }
  return !seen.empty();
}

void CallCounter::OnCall(pid_t thread) {
  __ptrace_syscall_info call{};
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(call), &call) <= 0) {
    return;  // it is being killed
  }
  if (call.op == PTRACE_SYSCALL_INFO_EXIT && thread == last_thread_) {
    kill(pid_, SIGKILL);
  }
  const bool counts = call.op == PTRACE_SYSCALL_INFO_ENTRY &&
                      (plan_.unit == KillUnit::kSystemCall ||
                       std::find(std::begin(kFileCalls), std::end(kFileCalls), call.entry.nr) !=
                           std::end(kFileCalls));
  if (!counts || ++calls_ != plan_.count) {
    return;
  }
  if (plan_.side == KillPlan::Side::kBefore) {
    kill(pid_, SIGKILL);
  } else {
    last_thread_ = thread;
  }
}

absl::StatusOr<KillReport> CallCounter::Run() {
  SendStart(pid_, plan_);
  while (true) {
    int status = 0;
    const pid_t thread = waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (thread < 0) {
      if (errno == EINTR) {
        continue;
      }
      return absl::InternalError(std::string("waitpid: ") + std::strerror(errno));
    }
    if (!WIFSTOPPED(status)) {
      if (thread == pid_) {  // reported when all other threads are gone
        return KillReport{plan_.unit, status, calls_};
      }
      continue;
    }
    uintptr_t signal = 0;  // that is on its way and has to be passed on
    if (WSTOPSIG(status) == kCallStop) {
      OnCall(thread);
    } else if (status >> 16 == 0) {
      signal = static_cast<uintptr_t>(WSTOPSIG(status));
    }
    ptrace(PTRACE_SYSCALL, thread, nullptr, signal);
  }
}

// An event for each thread, and for those that these start, whose overflow sends the process
// SIGKILL. Empty: not here.
std::vector<Descriptor> OpenCounters(pid_t pid, uint32_t type, uint64_t event, uint64_t period) {
  perf_event_attr attributes{};
  attributes.size = sizeof(attributes);
  attributes.type = type;
  attributes.config = event;
  attributes.sample_period = period;
  attributes.disabled = 1;
  attributes.inherit = 1;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  std::vector<Descriptor> counters;
  for (const pid_t thread : ThreadsOf(pid)) {
    Descriptor counter(static_cast<int>(
        syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!counter.valid()) {
      continue;  // that thread has ended, or none of them can be counted
    }
    if (fcntl(counter.get(), F_SETOWN, pid) == 0 && fcntl(counter.get(), F_SETSIG, SIGKILL) == 0 &&
        fcntl(counter.get(), F_SETFL, O_ASYNC | O_NONBLOCK) == 0 &&
        ioctl(counter.get(), PERF_EVENT_IOC_ENABLE, 0) == 0) {
      counters.push_back(std::move(counter));
    }
  }
  return counters;
}

absl::StatusOr<KillReport> KillAtInstruction(pid_t pid, const KillPlan& plan) {
  KillReport report{KillUnit::kInstruction, 0, 0};
  const bool instructions = plan.unit == KillUnit::kInstruction;
  std::vector<Descriptor> counters;
  if (instructions) {
    counters = OpenCounters(pid, PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS, plan.count);
  }
  const uint64_t nanoseconds =
      instructions ? plan.count / kInstructionsPerNanosecond + 1 : plan.count;
  if (counters.empty()) {
    report.unit = KillUnit::kCpuTime;
    counters = OpenCounters(pid, PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, nanoseconds);
  }
  if (counters.empty()) {
    report.unit = KillUnit::kTime;
    SendStart(pid, plan);
    std::this_thread::sleep_for(std::chrono::nanoseconds(nanoseconds));
    kill(pid, SIGKILL);
    return Reap(pid, report);
  }
  SendStart(pid, plan);
  return Reap(pid, report);
}

}  // namespace

absl::StatusOr<KillReport> KillAt(pid_t pid, const KillPlan& plan) {
  if (plan.unit == KillUnit::kInstruction || plan.unit == KillUnit::kCpuTime) {
    return KillAtInstruction(pid, plan);
  }
  if (plan.unit != KillUnit::kTime) {
    CallCounter counter(pid, plan);
    if (counter.Attach()) {
      return counter.Run();
    }
  }
  SendStart(pid, plan);
  const uint64_t nanoseconds = plan.unit == KillUnit::kTime ? plan.count : plan.count * 1000;
  std::this_thread::sleep_for(std::chrono::nanoseconds(nanoseconds));
  kill(pid, SIGKILL);
  return Reap(pid, {KillUnit::kTime, 0, 0});
}

}  // namespace terrace::bench
