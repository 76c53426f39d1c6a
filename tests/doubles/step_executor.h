// An executor that runs work when the test says so, one piece at a time, highest priority first.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/executor.h"

namespace terrace::doubles {

// Thread-safe; work runs on the thread that steps.
class StepExecutor final : public Executor {
 public:
  explicit StepExecutor(int parallelism = 1) : parallelism_(parallelism) {}

  void Run(Priority priority, std::function<void()> work) override {
    absl::MutexLock lock(&mutex_);
    queues_[priority].push_back(std::move(work));
  }
  [[nodiscard]] int parallelism() const override { return parallelism_; }
  [[nodiscard]] bool HasWork() {
    absl::MutexLock lock(&mutex_);
    return std::any_of(queues_.begin(), queues_.end(),
                       [](const auto& queue) { return !queue.second.empty(); });
  }

  // False: nothing was waiting.
  bool Step() {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mutex_);
      for (auto at = queues_.rbegin(); at != queues_.rend() && !work; ++at) {
        if (!at->second.empty()) {
          work = std::move(at->second.front());
          at->second.pop_front();
        }
      }
    }
    if (work) {
      work();
      return true;
    }
    return false;
  }
  void RunAll() {
    while (Step()) {
    }
  }

 private:
  const int parallelism_;
  absl::Mutex mutex_;
  std::map<Priority, std::deque<std::function<void()>>> queues_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace::doubles
