// From the store to whoever it has to tell, which come after it and go before it.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/block_store.h"
#include "daemon/front.h"
#include "daemon/gpu_handoff.h"

namespace terrace {

// Thread-safe.
class ObserverRelay final : public StoreObserver {
 public:
  void SlabRetired(SessionId session, SlabId slab) override {
    // Both are held in shared mode over a call that only hands on, so that Attach(nullptr) can wait
    // for its end.
    absl::ReaderMutexLock lock(&mutex_);
    if (gpu_ != nullptr && gpu_->SlabRetired(session, slab)) {
      return;
    }
    if (front_ != nullptr) {
      front_->SlabRetired(session, slab);
    }
  }
  void Attach(Front* front, GpuHandoff* gpu) {
    absl::MutexLock lock(&mutex_);
    front_ = front;
    gpu_ = gpu;
  }

 private:
  absl::Mutex mutex_;
  Front* front_ ABSL_GUARDED_BY(mutex_) = nullptr;
  GpuHandoff* gpu_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace terrace
