#include "daemon/gpu/gpu_call.h"

#include <vector>

namespace terrace {

void GpuCall::Pump() {
  {
    const absl::MutexLock lock(&mutex_);
    again_ = true;
    if (std::exchange(pumping_, true)) {
      return;
    }
  }
  for (;;) {
    {
      const absl::MutexLock lock(&mutex_);
      again_ = false;
    }
    Work();
    const absl::MutexLock lock(&mutex_);
    if (!ended_ && IsOverLocked()) {
      ended_ = true;
      break;
    }
    if (!again_) {
      pumping_ = false;
      return;
    }
  }
  Finish();  // pumping_ stays: nothing is left to do
}

void GpuCall::Cancel() {
  std::vector<AskedCopy> copies;
  {
    const absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    StopLocked();
    for (const auto& [id, copy] : copies_) {
      copies.push_back(copy);
    }
  }
  for (const AskedCopy& copy : copies) {
    if (copy.token != 0) {
      copy.device->Cancel(copy.token);
    }
  }
  Pump();
}

void GpuCall::Copy(const std::shared_ptr<GpuDevice>& device,
                   GpuCopyCall call,
                   std::function<void(const absl::Status&)> done) {
  uint64_t id = 0;
  {
    const absl::MutexLock lock(&mutex_);
    id = ++last_copy_;
    copies_[id] = {device, 0};
  }
  const uint64_t token = device->Copy(
      std::move(call),
      [self = shared_from_this(), id, done = std::move(done)](const absl::Status& status) {
        {
          const absl::MutexLock lock(&self->mutex_);
          self->copies_.erase(id);
        }
        done(status);
        self->Pump();
      });
  bool cancelled = false;
  {
    const absl::MutexLock lock(&mutex_);
    if (const auto copy = copies_.find(id); copy != copies_.end()) {
      copy->second.token = token;
      cancelled = cancelled_;
    }
  }
  if (cancelled) {
    device->Cancel(token);
  }
}

}  // namespace terrace
