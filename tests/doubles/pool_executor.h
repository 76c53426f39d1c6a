// An executor of plain threads, for tests that need real concurrency and nothing of the daemon.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/executor.h"

namespace terrace::doubles {

// Thread-safe. Its end runs what was accepted.
class PoolExecutor final : public Executor {
 public:
  explicit PoolExecutor(int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  ~PoolExecutor() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.SignalAll();
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  void Run(Priority priority, std::function<void()> work) override {
    absl::MutexLock lock(&mutex_);
    queues_[priority].push_back(std::move(work));
    ++waiting_;
    wake_.Signal();
  }
  [[nodiscard]] int parallelism() const override { return static_cast<int>(threads_.size()); }

 private:
  void Work() {
    for (;;) {
      std::function<void()> work;
      {
        absl::MutexLock lock(&mutex_);
        while (!stopping_ && waiting_ == 0) {
          wake_.Wait(&mutex_);
        }
        for (auto queue = queues_.rbegin(); queue != queues_.rend() && !work; ++queue) {
          if (!queue->second.empty()) {
            work = std::move(queue->second.front());
            queue->second.pop_front();
            --waiting_;
          }
        }
        if (!work) {
          return;
        }
      }
      work();
    }
  }

  std::vector<std::thread> threads_;
  absl::Mutex mutex_;
  absl::CondVar wake_;
  std::map<Priority, std::deque<std::function<void()>>> queues_ ABSL_GUARDED_BY(mutex_);
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace terrace::doubles
