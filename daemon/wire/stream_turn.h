// Lets a stream be finished exactly once, and never while one of its reactions is at work: gRPC
// forbids to begin a read or a write on a stream that has been finished. Thread-safe.
#pragma once

#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include <grpcpp/grpcpp.h>

namespace terrace {

class StreamTurn {
 public:
  // True: the caller is at work until it leaves. False: the stream has ended.
  [[nodiscard]] bool Enter() {
    absl::MutexLock lock(&mutex_);
    at_work_ += ended_ ? 0 : 1;
    return !ended_;
  }

  // True: the caller was the last one on a stream that has ended, and has to finish it.
  [[nodiscard]] bool Leave() {
    absl::MutexLock lock(&mutex_);
    return --at_work_ == 0 && ended_;
  }

  // From now on nobody enters but the caller itself, who is inside and has to leave. True: others
  // are at work. To be called once.
  enum class Others : uint8_t { kNone, kAtWork };
  [[nodiscard]] Others End(grpc::Status status) {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
    status_ = std::move(status);
    return at_work_++ == 0 ? Others::kNone : Others::kAtWork;
  }

  [[nodiscard]] bool ended() {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }

  // How it has ended; for who has to finish it.
  [[nodiscard]] grpc::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  absl::Mutex mutex_;
  uint32_t at_work_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
