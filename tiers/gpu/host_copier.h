// Copies within host memory on a thread of its own, in order: the halves of a ring are filled and
// emptied so.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace terrace {

struct HostCopy {
  char* to = nullptr;
  const char* from = nullptr;
  size_t bytes = 0;
};

// Thread-safe.
class HostCopier {
 public:
  // RESOURCE_EXHAUSTED: no thread.
  static absl::StatusOr<std::unique_ptr<HostCopier>> Start(const std::string& name);
  // Finishes what was asked for.
  ~HostCopier();
  HostCopier(const HostCopier&) = delete;
  HostCopier& operator=(const HostCopier&) = delete;

  // `done` runs on the copier's thread. Never blocks; its caller bounds how many there are.
  void Copy(std::vector<HostCopy> copies, std::function<void()> done);

 private:
  struct Work {
    std::vector<HostCopy> copies;
    std::function<void()> done;
  };
  HostCopier() = default;
  void Loop();

  absl::Mutex mutex_;
  std::deque<Work> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace terrace
