// Ends a process with SIGKILL at a moment that can be chosen: at one of its system calls, or
// between two of its instructions.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/status/statusor.h"

namespace terrace::bench {

// What is counted until the moment comes.
enum class KillUnit : uint8_t {
  kSystemCall,   // of all threads
  kFileCall,     // system calls that change or make durable what lies in files
  kInstruction,  // of one thread, in user mode
  kCpuTime,      // nanoseconds of one thread's processor time in user mode
  kTime,         // nanoseconds
};

struct KillPlan {
  KillUnit unit = KillUnit::kTime;
  uint64_t count = 1;
  // A system call: kAfter lets the kernel do it.
  enum class Side : uint8_t { kBefore, kAfter } side = Side::kBefore;
  // kSoftly: SIGTERM is sent when counting begins.
  enum class Start : uint8_t { kRunning, kSoftly } start = Start::kRunning;
};

struct KillReport {
  // Where what was asked for cannot be counted here: instructions become processor time, at two a
  // nanosecond, and anything becomes time.
  KillUnit unit = KillUnit::kTime;
  int wait_status = 0;  // of waitpid(2): it may have ended otherwise, and before
  uint64_t calls = 0;   // that were counted
};

// Counting begins with this call, which returns when the process has been reaped. `pid` is a child
// of the calling thread, and nobody waits for it or its threads meanwhile; other threads may send
// it signals. Errors: INTERNAL, and then it has been killed and reaped.
absl::StatusOr<KillReport> KillAt(pid_t pid, const KillPlan& plan);

}  // namespace terrace::bench
