// The inside of GpuDevice: what its callers share with its thread (worker_gpu_device.cc), the
// worker's life and messages (worker_gpu_device_life.cc), and what it is told to do
// (worker_gpu_device_regions.cc).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/gpu/gpu_device.h"
#include "daemon/worker/bounce_room.h"
#include "daemon/worker/restart_rule.h"
#include "daemon/worker/worker_channel.h"
#include "daemon/worker/worker_child.h"

namespace terrace {

// Deadlines are looked at so often at least: the clock may not be the kernel's.
inline constexpr absl::Duration kGpuDeviceTurn = absl::Milliseconds(20);

class WorkerGpuDevice final : public GpuDevice {
 public:
  WorkerGpuDevice(const GpuDeviceOptions& options, GpuDeviceParts parts, EventDescriptor wake);
  WorkerGpuDevice(const WorkerGpuDevice&) = delete;
  WorkerGpuDevice& operator=(const WorkerGpuDevice&) = delete;
  ~WorkerGpuDevice() override;

  void Stop() override;
  void OpenRegion(uint64_t number,
                  GpuRegionMemory memory,
                  std::function<void(absl::Status)> done) override;
  void CloseRegion(uint64_t region, std::function<void()> done) override;
  std::shared_ptr<const SealedMemory> ProgressPage(uint64_t region) override;
  uint64_t Copy(GpuCopyCall call, std::function<void(absl::Status)> done) override;
  void Cancel(uint64_t token) override;
  std::shared_ptr<PoolBuffer> TakeStaging(uint64_t bytes) override;
  void DropSlab(SlabId slab, std::function<void()> done) override;
  [[nodiscard]] GpuDeviceFigures figures() const override;

 private:
  // Runs `done` when all that it waits for has ended. Confined to the device's thread.
  class Barrier {
   public:
    explicit Barrier(std::function<void()> done) : done_(std::move(done)) {}
    Barrier(const Barrier&) = delete;
    Barrier& operator=(const Barrier&) = delete;
    ~Barrier() { done_(); }

   private:
    const std::function<void()> done_;
  };
  using BarrierPart = std::shared_ptr<Barrier>;
  struct CopyCall {
    GpuCopyCall call;
    std::function<void(absl::Status)> done;
    absl::Status ended_by;  // what a cancel of ours is for
  };
  struct Region {
    enum class State : uint8_t { kClosed, kOpening, kOpen, kFailed };
    GpuRegionMemory memory;
    State state = State::kClosed;
    bool held = false;                                      // until what is being closed is
    std::function<void(absl::Status)> opened;               // until it has been, once
    std::map<uint64_t, std::shared_ptr<CopyCall>> waiting;  // for the region to be open
  };
  // A region that is being closed, and those that were added meanwhile and may lie in the same
  // memory: copies of the old one would go on beside calls of the new one.
  struct Closing {
    std::shared_ptr<const Region> region;
    std::vector<BarrierPart> behind;
  };
  // What the worker owes an answer to.
  struct Owed {
    absl::Duration answer_by;
    std::function<void(const absl::Status&)> done;
    std::shared_ptr<CopyCall> copy;  // of a copy
  };
  struct Outgoing {
    std::string packet;
    std::shared_ptr<const Descriptor> passed;
  };
  struct Seat {
    Seat(WorkerChild process,
         WorkerChannel socket,
         std::shared_ptr<BounceRoom> memory,
         absl::Duration now)
        : child(std::move(process)),
          channel(std::move(socket)),
          staging(std::move(memory)),
          started(now) {}
    WorkerChild child;
    WorkerChannel channel;
    std::shared_ptr<BounceRoom> staging;
    absl::Duration started;
    bool ready = false;
    std::deque<Outgoing> outgoing;
    std::map<uint64_t, Owed> owed;
    std::set<SlabId> slabs;
    absl::Duration look_at;
    std::string last_words;
  };
  struct Leaving {
    WorkerChild child;
    std::vector<std::function<void()>> at_end;
  };
  struct Retry {
    absl::Duration at;
    std::function<void()> run;
  };

  static constexpr size_t kPacketRoom = 65536;

  void Post(std::function<void()> work);
  uint64_t NextCall();
  void Say(const std::string& event) const;

  // The rest is the thread's, as are all members that no lock guards.

  // ---- worker_gpu_device_life.cc
  void Run();
  void End();
  void ReapLeaving();
  void RunRetries(absl::Duration now);
  void MaybeStart(absl::Duration now);
  absl::Status StartWorker(absl::Duration now);
  void MaybeEnd(absl::Duration now);
  void LoseWorker(const std::string& why);
  void NoteFault(const std::string& why);
  // Its place is free at once; what it owed ends when it is gone.
  void Abandon(const std::string& why);
  void FailFirstOpens(const absl::Status& status);
  void Queue(std::string packet, std::shared_ptr<const Descriptor> passed = nullptr);
  // An answer is owed.
  uint64_t Owe(std::function<void(const absl::Status&)> done);
  void SendOutgoing();
  void Wait(absl::Duration now);
  void Receive();
  void TakeReady(absl::Span<const char> bytes);
  // False: no message that is expected.
  bool TakeAnswer(absl::Span<const char> bytes);
  void Expire(absl::Duration now);

  // ---- worker_gpu_device_regions.cc
  void AddRegion(uint64_t number, const std::shared_ptr<Region>& region);
  // Unless it is held, or there is no worker yet.
  void OpenIfFree(uint64_t number, const std::shared_ptr<Region>& region);
  void SendOpen(uint64_t number, const std::shared_ptr<Region>& region);
  void Opened(uint64_t number, Region& region, const absl::Status& status);
  // Ends what waits for a region.
  void Refuse(Region& region, const absl::Status& status);
  void CountRegions();
  BarrierPart AwaitLeaving(std::function<void()> done);
  void Close(uint64_t number, std::function<void()> done);
  void BeginCopy(uint64_t token, const std::shared_ptr<CopyCall>& copy);
  void SendCopy(uint64_t token, const std::shared_ptr<CopyCall>& copy);
  // Names places as the present worker knows them.
  absl::Status Place(GpuCopyCall& call);
  void FinishCopy(CopyCall& copy, const absl::Status& status);
  void CancelCopy(uint64_t token, absl::Status why);
  void Drop(SlabId slab, std::function<void()> done);
  void DropFromSeat(SlabId slab, const BarrierPart& barrier);

  const GpuDeviceOptions options_;
  const GpuDeviceParts parts_;
  const Clock& clock_;
  const EventDescriptor wake_;

  mutable absl::Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<const SealedMemory>> pages_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<BounceRoom> staging_ ABSL_GUARDED_BY(mutex_);  // of the worker that serves
  uint64_t last_call_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_called_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // the thread is gone
  GpuDeviceFigures figures_ ABSL_GUARDED_BY(mutex_);

  std::string packet_;
  RestartRule restarts_;
  std::optional<Seat> seat_;
  std::vector<Leaving> leaving_;
  std::vector<Retry> retries_;
  std::vector<std::weak_ptr<Closing>> closing_;
  std::map<uint64_t, std::shared_ptr<Region>> regions_;
  std::optional<absl::Duration> idle_since_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace terrace
