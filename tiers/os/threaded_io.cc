// AsyncIo by threads that block.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/os/async_io.h"
#include "tiers/os/io_queue.h"

namespace terrace {
namespace {

constexpr absl::Duration kDeadlineTurn = absl::Milliseconds(20);
constexpr uint32_t kMaxThreads = 16;

class ThreadedIo final : public AsyncIo {
 public:
  ThreadedIo(const AsyncIoOptions& options, const Clock& clock, std::string why_not_uring)
      : options_(options), clock_(clock) {
    facts_.engine = "threads";
    facts_.fallback_reason = std::move(why_not_uring);
    const uint32_t threads = std::clamp(options.threads, 1U, kMaxThreads);
    for (uint32_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  ThreadedIo(const ThreadedIo&) = delete;
  ThreadedIo& operator=(const ThreadedIo&) = delete;

  ~ThreadedIo() override {
    std::vector<std::unique_ptr<IoOperation>> left;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      left = queue_.TakeIf([](const IoOperation&) { return true; });
      wake_.SignalAll();
    }
    for (std::unique_ptr<IoOperation>& operation : left) {
      operation->Complete(absl::CancelledError("the engine stops"));
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  absl::StatusOr<uint64_t> Submit(IoRequest request,
                                  std::function<void(IoCompletion)> done) override {
    if (absl::Status valid = ValidateRequest(request); !valid.ok()) {
      return valid;
    }
    auto operation = std::make_unique<IoOperation>();
    operation->progress = TransferProgress(request);
    operation->request = std::move(request);
    operation->done = std::move(done);
    absl::MutexLock lock(&mutex_);
    if (stopping_ || in_flight_ >= options_.max_in_flight) {
      return absl::ResourceExhaustedError("too many operations in flight");
    }
    ++in_flight_;
    operation->token = ++last_token_;
    queue_.Push(std::move(operation));
    wake_.Signal();
    return last_token_;
  }

  void Cancel(uint64_t token) override {
    EndQueued([token](const IoOperation& operation) { return operation.token == token; },
              absl::CancelledError("cancelled"));
    absl::MutexLock lock(&mutex_);
    if (const auto running = running_.find(token); running != running_.end()) {
      running->second = true;
    }
  }

  absl::Status RegisterMemory(absl::Span<char> /*memory*/) override {
    absl::MutexLock lock(&mutex_);
    facts_.registration_refusal = "threads: memory is not registered";
    return absl::UnimplementedError(facts_.registration_refusal);
  }
  void UnregisterMemory(absl::Span<char> /*memory*/) override {}

  [[nodiscard]] IoFacts facts() const override {
    absl::MutexLock lock(&mutex_);
    return facts_;
  }

 private:
  void EndQueued(const std::function<bool(const IoOperation&)>& ends, const absl::Status& status) {
    std::vector<std::unique_ptr<IoOperation>> ended;
    {
      absl::MutexLock lock(&mutex_);
      ended = queue_.TakeIf(ends);
      in_flight_ -= static_cast<uint32_t>(ended.size());
    }
    for (std::unique_ptr<IoOperation>& operation : ended) {
      operation->Complete(status);
    }
  }

  [[nodiscard]] bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }

  void Work() {
    for (;;) {
      EndQueued([now = clock_.Now()](const IoOperation& o) { return o.request.deadline <= now; },
                absl::DeadlineExceededError("the deadline passed before the transfer began"));
      std::unique_ptr<IoOperation> operation;
      {
        absl::MutexLock lock(&mutex_);
        if (!HasWork()) {
          wake_.WaitWithTimeout(&mutex_, kDeadlineTurn);
        }
        operation = queue_.Pop();
        if (operation == nullptr) {
          if (stopping_) {
            return;
          }
          continue;
        }
        running_[operation->token] = false;
      }
      absl::Status status = operation->request.deadline <= clock_.Now()
                                ? absl::DeadlineExceededError("the deadline has passed")
                                : Transfer(*operation);
      {
        absl::MutexLock lock(&mutex_);
        --in_flight_;
        running_.erase(operation->token);
      }
      operation->Complete(std::move(status));
    }
  }

  [[nodiscard]] bool EndedEarly(const IoOperation& operation, absl::Status* why) {
    absl::MutexLock lock(&mutex_);
    ++facts_.resubmitted;
    if (running_.at(operation.token)) {
      *why = absl::CancelledError("cancelled");
      return true;
    }
    if (operation.request.deadline <= clock_.Now()) {
      *why = absl::DeadlineExceededError("the deadline passed during the transfer");
      return true;
    }
    return false;
  }

  // A piece a call: File has no gathering calls, and pieces are large.
  absl::Status Transfer(IoOperation& operation) {
    File& file = *operation.request.file;
    if (operation.request.kind == IoKind::kSync) {
      return file.Sync();
    }
    TransferProgress& progress = operation.progress;
    for (;;) {
      const absl::Span<char> piece = progress.rest().front();
      const absl::StatusOr<uint64_t> moved = operation.request.kind == IoKind::kRead
                                                 ? file.ReadAt(progress.offset(), piece)
                                                 : file.WriteAt(progress.offset(), piece);
      if (!moved.ok()) {
        return moved.status();
      }
      if (progress.Take(static_cast<int64_t>(*moved))) {
        return progress.status();
      }
      absl::Status why;
      if (*moved < piece.size() && EndedEarly(operation, &why)) {
        return why;
      }
    }
  }

  const AsyncIoOptions options_;
  const Clock& clock_;
  std::vector<std::thread> threads_;
  mutable absl::Mutex mutex_;
  absl::CondVar wake_;
  IoQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, bool> running_ ABSL_GUARDED_BY(mutex_);  // token: asked to end
  uint32_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  IoFacts facts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<AsyncIo> MakeThreadedIo(const AsyncIoOptions& options, const Clock& clock) {
  return std::make_unique<ThreadedIo>(options, clock, "");
}

std::unique_ptr<AsyncIo> MakeAsyncIo(const AsyncIoOptions& options, const Clock& clock) {
  absl::StatusOr<std::unique_ptr<AsyncIo>> uring = MakeUringIo(options, clock);
  if (uring.ok()) {
    return *std::move(uring);
  }
  return std::make_unique<ThreadedIo>(options, clock, std::string(uring.status().message()));
}

}  // namespace terrace
