// AsyncIo that moves when the test says so, in an order that a seed chooses.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tests/doubles/seeded.h"
#include "tiers/os/async_io.h"
#include "tiers/os/transfer_progress.h"

namespace terrace::doubles {

// Thread-safe; `done` runs on the thread that steps or cancels.
class StepIo final : public AsyncIo {
 public:
  // Seed 0: oldest first.
  StepIo(const Clock& clock, uint64_t seed) : clock_(clock), seed_(seed), seeded_(seed) {}
  ~StepIo() override { EndAll(absl::CancelledError("the engine stops")); }

  absl::StatusOr<uint64_t> Submit(IoRequest request,
                                  std::function<void(IoCompletion)> done) override {
    absl::MutexLock lock(&mutex_);
    if (refusals_ > 0) {
      --refusals_;
      return absl::ResourceExhaustedError("too many operations in flight");
    }
    if (absl::Status valid = ValidateRequest(request); !valid.ok()) {
      return valid;
    }
    waiting_.push_back({++last_token_, std::move(request), std::move(done)});
    return last_token_;
  }

  void Cancel(uint64_t token) override {
    Waiting taken;
    {
      absl::MutexLock lock(&mutex_);
      for (size_t i = 0; i < waiting_.size(); ++i) {
        if (waiting_[i].token == token) {
          taken = TakeLocked(i);
          break;
        }
      }
    }
    if (taken.done) {
      taken.done({absl::CancelledError("cancelled"), 0, std::move(taken.request.pieces)});
    }
  }

  absl::Status RegisterMemory(absl::Span<char> /*memory*/) override {
    return absl::UnimplementedError("steps need no registered memory");
  }
  void UnregisterMemory(absl::Span<char> /*memory*/) override {}
  [[nodiscard]] IoFacts facts() const override {
    IoFacts facts;
    facts.engine = "steps";
    return facts;
  }

  // Carries out one operation. False: none is waiting.
  bool Step() {
    Waiting taken;
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.empty()) {
        return false;
      }
      taken = TakeLocked(seed_ == 0 ? 0 : seeded_.Below(waiting_.size()));
    }
    if (taken.request.deadline <= clock_.Now()) {
      taken.done({absl::DeadlineExceededError("late"), 0, std::move(taken.request.pieces)});
      return true;
    }
    uint64_t moved = 0;
    absl::Status status = CarryOut(taken.request, &moved);
    taken.done({std::move(status), moved, std::move(taken.request.pieces)});
    return true;
  }
  void RunAll() {
    while (Step()) {
    }
  }
  // What is waiting may or may not reach the medium, as when the process or the power ends now.
  // Completions do not run; call EndAll when the medium is dead.
  void ScatterWaiting(uint64_t seed) {
    Seeded seeded(seed);
    absl::MutexLock lock(&mutex_);
    for (const Waiting& waiting : waiting_) {
      uint64_t moved = 0;
      if (waiting.request.kind == IoKind::kWrite && seeded.OneIn(2)) {
        CarryOut(waiting.request, &moved).IgnoreError();
      }
    }
  }
  void EndAll(const absl::Status& status) {
    for (;;) {
      Waiting taken;
      {
        absl::MutexLock lock(&mutex_);
        if (waiting_.empty()) {
          return;
        }
        taken = TakeLocked(0);
      }
      taken.done({status, 0, std::move(taken.request.pieces)});
    }
  }
  void RefuseNext(int submits) {
    absl::MutexLock lock(&mutex_);
    refusals_ = submits;
  }
  [[nodiscard]] size_t waiting() const {
    absl::MutexLock lock(&mutex_);
    return waiting_.size();
  }

 private:
  struct Waiting {
    uint64_t token = 0;
    IoRequest request;
    std::function<void(IoCompletion)> done;
  };

  Waiting TakeLocked(size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Waiting taken = std::move(waiting_[at]);
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(at));
    return taken;
  }

  static absl::Status CarryOut(const IoRequest& request, uint64_t* moved) {
    if (request.kind == IoKind::kSync) {
      return request.file->Sync();
    }
    TransferProgress progress(request);
    for (;;) {
      const absl::Span<char> piece = progress.rest().front();
      const absl::StatusOr<uint64_t> part = request.kind == IoKind::kRead
                                                ? request.file->ReadAt(progress.offset(), piece)
                                                : request.file->WriteAt(progress.offset(), piece);
      if (!part.ok()) {
        return part.status();
      }
      const bool over = progress.Take(static_cast<int64_t>(*part));
      *moved = progress.bytes();
      if (over) {
        return progress.status();
      }
    }
  }

  const Clock& clock_;
  const uint64_t seed_;
  mutable absl::Mutex mutex_;
  Seeded seeded_ ABSL_GUARDED_BY(mutex_);
  std::vector<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  int refusals_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::doubles
