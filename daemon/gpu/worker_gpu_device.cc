// What callers see of a GPU's device: their wishes are handed to its thread.
#include "daemon/gpu/worker_gpu_device.h"

namespace terrace {

WorkerGpuDevice::WorkerGpuDevice(const GpuDeviceOptions& options,
                                 GpuDeviceParts parts,
                                 EventDescriptor wake)
    : options_(options),
      parts_(std::move(parts)),
      clock_(*parts_.clock),
      wake_(std::move(wake)),
      packet_(kPacketRoom, '\0'),
      restarts_(options.first_backoff, options.max_backoff),
      thread_([this] { Run(); }) {}

WorkerGpuDevice::~WorkerGpuDevice() {
  Stop();
}

void WorkerGpuDevice::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    if (std::exchange(stop_called_, true)) {
      return;
    }
    posted_.emplace_back([this] { stopping_ = true; });
  }
  wake_.Notify();
  thread_.join();
}

void WorkerGpuDevice::OpenRegion(uint64_t number,
                                 GpuRegionMemory memory,
                                 std::function<void(absl::Status)> done) {
  SealedMemory::Options options;
  options.bytes = kProgressSlots * sizeof(uint32_t);
  options.huge_pages = false;
  options.reserved_pages = false;
  options.writers = SealedMemory::Writers::kWhoeverMapsIt;
  absl::StatusOr<SealedMemory> page = SealedMemory::Create(options);
  if (!page.ok()) {
    return done(page.status());
  }
  auto region = std::make_shared<Region>();
  region->memory = std::move(memory);
  region->opened = std::move(done);
  {
    const absl::MutexLock lock(&mutex_);
    pages_[number] = std::make_shared<const SealedMemory>(*std::move(page));
  }
  Post([this, number, region] { AddRegion(number, region); });
}

void WorkerGpuDevice::CloseRegion(uint64_t region, std::function<void()> done) {
  {
    const absl::MutexLock lock(&mutex_);
    pages_.erase(region);
  }
  Post([this, region, done = std::move(done)]() mutable { Close(region, std::move(done)); });
}

std::shared_ptr<const SealedMemory> WorkerGpuDevice::ProgressPage(uint64_t region) {
  const absl::MutexLock lock(&mutex_);
  const auto page = pages_.find(region);
  return page == pages_.end() ? nullptr : page->second;
}

uint64_t WorkerGpuDevice::Copy(GpuCopyCall call, std::function<void(absl::Status)> done) {
  const uint64_t token = NextCall();
  auto copy = std::make_shared<CopyCall>();
  copy->call = std::move(call);
  copy->done = std::move(done);
  {
    const absl::MutexLock lock(&mutex_);
    ++figures_.copies_in_flight;
  }
  Post([this, token, copy] { BeginCopy(token, copy); });
  return token;
}

void WorkerGpuDevice::Cancel(uint64_t token) {
  Post([this, token] { CancelCopy(token, absl::CancelledError("cancelled")); });
}

std::shared_ptr<PoolBuffer> WorkerGpuDevice::TakeStaging(uint64_t bytes) {
  std::shared_ptr<BounceRoom> staging;
  {
    const absl::MutexLock lock(&mutex_);
    staging = staging_;
  }
  return staging == nullptr ? nullptr : staging->Take(bytes);
}

void WorkerGpuDevice::DropSlab(SlabId slab, std::function<void()> done) {
  Post([this, slab, done = std::move(done)]() mutable { Drop(slab, std::move(done)); });
}

GpuDeviceFigures WorkerGpuDevice::figures() const {
  const absl::MutexLock lock(&mutex_);
  GpuDeviceFigures figures = figures_;
  figures.number = options_.number;
  figures.staging_bytes_used = staging_ == nullptr ? 0 : staging_->used();
  return figures;
}

void WorkerGpuDevice::Post(std::function<void()> work) {
  bool stopped = false;
  {
    const absl::MutexLock lock(&mutex_);
    stopped = stopped_;
    if (!stopped) {
      posted_.push_back(work);
    }
  }
  if (stopped) {
    return work();  // nothing of the thread's changes any more
  }
  wake_.Notify();
}

uint64_t WorkerGpuDevice::NextCall() {
  const absl::MutexLock lock(&mutex_);
  return ++last_call_;
}

void WorkerGpuDevice::Say(const std::string& event) const {
  if (parts_.say) {
    parts_.say(event);
  }
}

absl::StatusOr<std::unique_ptr<GpuDevice>> GpuDevice::Start(const GpuDeviceOptions& options,
                                                            GpuDeviceParts parts) {
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!wake.ok()) {
    return wake.status();
  }
  return std::make_unique<WorkerGpuDevice>(options, std::move(parts), *std::move(wake));
}

}  // namespace terrace
