// PoolFiles by threads of this process.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/os/file_system.h"
#include "tiers/shared/pool_call.h"
#include "tiers/shared/pool_files.h"

namespace terrace {
namespace {

// What is left of the room. Thread-safe. Owned by the files and by every buffer, which may outlive
// them.
class RoomLedger {
 public:
  explicit RoomLedger(uint64_t bytes) : bytes_(bytes) {}

  bool Take(uint64_t bytes) {
    uint64_t used = used_.load();
    do {
      if (bytes > bytes_ - used) {
        return false;
      }
    } while (!used_.compare_exchange_weak(used, used + bytes));
    return true;
  }
  void Give(uint64_t bytes) { used_ -= bytes; }

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] uint64_t used() const { return used_.load(); }

 private:
  const uint64_t bytes_;
  std::atomic<uint64_t> used_{0};
};

class HeapBuffer final : public PoolBuffer {
 public:
  HeapBuffer(uint64_t bytes, std::shared_ptr<RoomLedger> room)
      : memory_(bytes), room_(std::move(room)) {}
  HeapBuffer(const HeapBuffer&) = delete;
  HeapBuffer& operator=(const HeapBuffer&) = delete;
  ~HeapBuffer() override { room_->Give(memory_.size()); }

  [[nodiscard]] absl::Span<char> memory() const override { return memory_.span(); }

 private:
  const AlignedBuffer memory_;
  const std::shared_ptr<RoomLedger> room_;
};

uint64_t RoundedUp(uint64_t bytes) {
  constexpr uint64_t kUnit = AlignedBuffer::kAlignment;
  return (bytes + kUnit - 1) / kUnit * kUnit;
}

class ThreadedPoolFiles final : public PoolFiles {
 public:
  ThreadedPoolFiles(const ThreadedPoolFilesOptions& options, RootedFiles& files, const Clock& clock)
      : files_(files),
        clock_(clock),
        room_(std::make_shared<RoomLedger>(RoundedUp(options.buffer_bytes))) {
    figures_.serving = true;
    figures_.starts = 1;
    for (int i = 0; i < std::max(options.threads, 1); ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  ThreadedPoolFiles(const ThreadedPoolFiles&) = delete;
  ThreadedPoolFiles& operator=(const ThreadedPoolFiles&) = delete;

  ~ThreadedPoolFiles() override {
    Stop();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) override {
    const uint64_t rounded = RoundedUp(std::max<uint64_t>(bytes, 1));
    if (bytes > room_->bytes() || !room_->Take(rounded)) {
      return nullptr;
    }
    return std::make_shared<HeapBuffer>(rounded, room_);
  }
  [[nodiscard]] uint64_t max_buffer_bytes() const override { return room_->bytes(); }

  void Submit(PoolCall call, std::function<void(PoolReply)> done) override {
    if (absl::Status valid = CheckPoolCall(call); !valid.ok()) {
      done({std::move(valid), 0, {}, {}});
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      if (!stopping_) {
        ++figures_.calls[static_cast<size_t>(call.op)];
        ++figures_.calls_in_flight;
        const size_t level = static_cast<size_t>(call.priority) - 1;
        queues_[level].push_back({std::move(call), std::move(done)});
        return;
      }
    }
    done({absl::CancelledError("the pool is closed"), 0, {}, {}});
  }

  // What runs already goes on to its end: these files do not hang.
  void Stop() override {
    std::vector<Job> left;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      while (std::optional<Job> job = NextLocked()) {
        left.push_back(*std::move(job));
      }
    }
    for (Job& job : left) {
      End(std::move(job), {absl::CancelledError("the pool is closed"), 0, {}, {}});
    }
  }

  [[nodiscard]] PoolFilesFigures figures() const override {
    absl::MutexLock lock(&mutex_);
    PoolFilesFigures figures = figures_;
    figures.buffer_bytes = room_->bytes();
    figures.buffer_bytes_used = room_->used();
    return figures;
  }

 private:
  struct Job {
    PoolCall call;
    std::function<void(PoolReply)> done;
  };

  std::optional<Job> NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (auto queue = queues_.rbegin(); queue != queues_.rend(); ++queue) {
      if (!queue->empty()) {
        Job job = std::move(queue->front());
        queue->pop_front();
        return job;
      }
    }
    return std::nullopt;
  }
  [[nodiscard]] bool HasWorkLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || std::any_of(queues_.begin(), queues_.end(),
                                    [](const std::deque<Job>& queue) { return !queue.empty(); });
  }

  void Work() {
    for (;;) {
      std::optional<Job> job;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &ThreadedPoolFiles::HasWorkLocked));
        job = NextLocked();
      }
      if (!job.has_value()) {
        return;
      }
      PoolReply reply;
      if (job->call.deadline <= clock_.Now()) {
        reply.status = absl::DeadlineExceededError("the deadline passed before the call was made");
      } else {
        const absl::Span<char> memory =
            job->call.buffer == nullptr ? absl::Span<char>() : job->call.buffer->memory();
        reply = RunPoolCall(files_, job->call, memory);
      }
      End(*std::move(job), std::move(reply));
    }
  }

  void End(Job job, PoolReply reply) {
    {
      absl::MutexLock lock(&mutex_);
      --figures_.calls_in_flight;
      figures_.deadlines += absl::IsDeadlineExceeded(reply.status) ? 1 : 0;
      if (IsPoolFault(reply.status)) {
        ++figures_.faults;
        figures_.last_fault = std::string(reply.status.message());
      }
    }
    // Whoever waits for `done` may look at what is left of the room.
    job.call.buffer.reset();
    job.done(std::move(reply));
  }

  RootedFiles& files_;
  const Clock& clock_;
  const std::shared_ptr<RoomLedger> room_;
  mutable absl::Mutex mutex_;
  std::array<std::deque<Job>, 3> queues_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  PoolFilesFigures figures_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<PoolFiles> MakeThreadedPoolFiles(const ThreadedPoolFilesOptions& options,
                                                 RootedFiles& files,
                                                 const Clock& clock) {
  return std::make_unique<ThreadedPoolFiles>(options, files, clock);
}

}  // namespace terrace
