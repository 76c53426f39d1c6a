#include "daemon/thread_executor.h"

#include <system_error>

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include <pthread.h>

namespace terrace {
namespace {

constexpr size_t kPriorities = 3;

void RelaxCpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(const ThreadExecutorOptions& options)
      : parallelism_(options.threads), spin_(absl::ToChronoNanoseconds(options.spin)) {}
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  ~ThreadExecutor() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.SignalAll();
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  // Called once, before the executor is handed out.
  absl::Status Launch(const ThreadExecutorOptions& options) {
    threads_.reserve(static_cast<size_t>(options.threads));
    for (int i = 0; i < options.threads; ++i) {
      try {
        threads_.emplace_back([this] { Loop(); });
      } catch (const std::system_error& error) {
        return absl::ResourceExhaustedError(absl::StrCat("cannot start thread ", i + 1, " of ",
                                                         options.threads, ": ", error.what()));
      }
      const std::string name = absl::StrCat(options.name.substr(0, 11), "-", i);
      pthread_setname_np(threads_.back().native_handle(), name.c_str());
    }
    return absl::OkStatus();
  }

  void Run(Priority priority, std::function<void()> work) override {
    bool wake = false;
    {
      absl::MutexLock lock(&mutex_);
      queues_[QueueOf(priority)].push_back(std::move(work));
      ++queued_;
      // Pairs with the load in Spin.
      hint_.store(queued_, std::memory_order_release);
      // A spinning thread looks into the queue under the lock before it sleeps, so it needs no
      // signal.
      wake = sleeping_ > 0 && queued_ > spinning_;
    }
    if (wake) {
      wake_.Signal();
    }
  }

  [[nodiscard]] int parallelism() const override { return parallelism_; }

 private:
  // The highest priority comes first.
  static size_t QueueOf(Priority priority) {
    switch (priority) {
      case Priority::kHigh:
        return 0;
      case Priority::kNormal:
        return 1;
      case Priority::kLow:
        return 2;
    }
    return 1;
  }

  void Loop() {
    mutex_.Lock();
    while (true) {
      if (queued_ > 0) {
        std::function<void()> work = TakeLocked();
        mutex_.Unlock();
        work();
        work = nullptr;  // what the work captured ends here, not under the lock
        mutex_.Lock();
      } else if (stopping_) {
        break;
      } else if (spin_.count() > 0 && spinning_ == 0 && !spun_out_) {
        ++spinning_;
        mutex_.Unlock();
        Spin();
        mutex_.Lock();
        --spinning_;
        spun_out_ = queued_ == 0;
      } else {
        ++sleeping_;
        wake_.Wait(&mutex_);
        --sleeping_;
      }
    }
    mutex_.Unlock();
  }

  std::function<void()> TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (std::deque<std::function<void()>>& queue : queues_) {
      if (queue.empty()) {
        continue;
      }
      std::function<void()> work = std::move(queue.front());
      queue.pop_front();
      --queued_;
      hint_.store(queued_, std::memory_order_release);
      spun_out_ = false;
      return work;
    }
    return [] {};
  }

  void Spin() const {
    const auto until = std::chrono::steady_clock::now() + spin_;
    do {
      for (int i = 0; i < 32; ++i) {
        if (hint_.load(std::memory_order_acquire) > 0) {
          return;
        }
        RelaxCpu();
      }
    } while (std::chrono::steady_clock::now() < until);
  }

  const int parallelism_;
  const std::chrono::nanoseconds spin_;
  absl::Mutex mutex_;
  absl::CondVar wake_;
  std::array<std::deque<std::function<void()>>, kPriorities> queues_ ABSL_GUARDED_BY(mutex_);
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t sleeping_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t spinning_ ABSL_GUARDED_BY(mutex_) = 0;
  // Nothing came during the last spin: sleep, until there is work again.
  bool spun_out_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<size_t> hint_{0};       // queued_ for the spinner, who holds no lock
  std::vector<std::thread> threads_;  // written by Launch only
};

}  // namespace

absl::Duration DefaultSpin() {
  return std::thread::hardware_concurrency() > 2 ? absl::Microseconds(20) : absl::ZeroDuration();
}

absl::StatusOr<std::unique_ptr<Executor>> MakeThreadExecutor(const ThreadExecutorOptions& options) {
  if (options.threads < 1 || options.threads > kMaxExecutorThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads must be 1 to ", kMaxExecutorThreads, ", not ", options.threads));
  }
  auto executor = std::make_unique<ThreadExecutor>(options);
  if (absl::Status launched = executor->Launch(options); !launched.ok()) {
    return launched;
  }
  return executor;
}

}  // namespace terrace
