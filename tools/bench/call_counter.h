// Counts the system calls of threads by what they do, from outside, with strace(1).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/child_process.h"

namespace terrace::bench {

struct CountedCalls {
  uint64_t metadata = 0;  // names, files and folders: open, stat, rename, sync, ...; no transfers
  uint64_t transfers = 0;
};

// Confined to the main thread.
class CallCounter {
 public:
  enum class Follow : uint8_t { kThread, kProcess };
  // Returns when all of them are being counted. NOT_FOUND: there is no strace; PERMISSION_DENIED:
  // it may not look at them; UNAVAILABLE: one is traced by somebody else, or gone.
  static absl::StatusOr<std::unique_ptr<CallCounter>> Start(const std::vector<pid_t>& targets,
                                                            Follow follow,
                                                            const std::string& folder);
  // Ends the counting.
  absl::StatusOr<CountedCalls> Stop();

 private:
  CallCounter(ChildProcess strace, std::string output)
      : strace_(std::move(strace)), output_(std::move(output)) {}

  ChildProcess strace_;
  const std::string output_;
};

// What strace -c printed.
CountedCalls ParseCallSummary(const std::string& text);

}  // namespace terrace::bench
