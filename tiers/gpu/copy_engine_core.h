// The inside of the copy engine: what callers share with its thread (copy_engine.cc), and the
// thread's own affairs (copy_engine_loop.cc).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

#include "tiers/gpu/copy_engine.h"
#include "tiers/gpu/gathering.h"
#include "tiers/gpu/host_copier.h"
#include "tiers/gpu/transfer_state.h"
#include "tiers/os/file_system.h"

namespace terrace {

class CopyEngineCore {
 public:
  CopyEngineCore(const cuda::PrimaryContext& context, CopyEngineOptions options)
      : context_(context),
        driver_(context.driver()),
        options_(std::move(options)),
        stage_bytes_(std::min(options_.stage_bytes, options_.max_bytes_in_flight / 4)) {}
  // Called once; Stop only after it succeeded.
  absl::Status Start();
  void Stop();

  absl::StatusOr<HostPath> AddHostMemory(absl::Span<char> memory,
                                         cuda::PinnedMemory::Access access);
  absl::Status RemoveHostMemory(absl::Span<char> memory);
  absl::StatusOr<uint64_t> Submit(DeviceTransfer transfer, std::function<void(absl::Status)> done);
  void Cancel(uint64_t token);
  CopyEngineFacts facts() const;

 private:
  using Transfer = std::shared_ptr<TransferState>;

  struct HostMemory {
    uint64_t bytes = 0;
    bool writable = false;
    bool ready = false;  // registration has come to an end
    HostPath path = HostPath::kRing;
    std::optional<cuda::PinnedMemory> pinned;
    uint32_t transfers = 0;  // that name it
    uint64_t last_named_by = 0;  // a token
  };
  using HostMemories = std::map<uintptr_t, HostMemory>;  // by where they begin

  // Two pinned halves, and who fills and empties them.
  struct Ring {
    AlignedBuffer memory;
    std::optional<cuda::PinnedMemory> pinned;
    std::unique_ptr<HostCopier> copier;
    enum class Use : uint8_t { kFree, kLoad, kSave };
    std::array<Use, 2> uses{};  // the engine's thread alone
  };

  // A batch on its way.
  struct Running {
    Transfer owner;
    std::shared_ptr<TransferBatch> batch;
    std::vector<cuda::CopyRange> copies;  // of the device, with memory that is pinned
    int half = -1;                        // of the ring
    std::optional<uint32_t> stage;        // for its small pieces
    uint64_t gathered_bytes = 0;
    cuda::Event landed = nullptr;
  };
  // One direction.
  struct Lane {
    cuda::CopyDirection direction = cuda::CopyDirection::kToDevice;
    std::optional<cuda::OwnedStream> stream;
    std::deque<Transfer> waiting;     // not begun, or in part
    std::deque<Running> with_driver;  // in the order of the stream
    uint64_t bytes_in_flight = 0;     // of the ring's copies too
    size_t batches_in_flight = 0;
  };
  struct Inbox {
    std::vector<Transfer> arrivals;
    std::vector<uint64_t> cancels;
    std::vector<Running> ring_copied;
    bool stop = false;
    [[nodiscard]] bool empty() const {
      return arrivals.empty() && cancels.empty() && ring_copied.empty() && !stop;
    }
  };
  enum class Begun : uint8_t { kAll, kNoRoom, kNoPlace };

  static constexpr size_t kMaxBatchesInFlight = 32;  // of a direction
  static constexpr size_t kMaxCopiesOfBatch = 1024;

  // copy_engine.cc
  absl::StatusOr<std::unique_ptr<Ring>> MakeRing() const;
  absl::Status ReserveMemory(absl::Span<char> memory, bool writable);
  absl::StatusOr<HostPath> AddToRing(absl::Span<char> memory, const absl::Status& reason);
  void DropMemory(absl::Span<char> memory);
  absl::Status CheckTransferLocked(const DeviceTransfer& transfer,
                                   uint64_t token,
                                   std::vector<HostPath>* paths,
                                   std::vector<uintptr_t>* named)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool Holds(const HostMemories::value_type& memory, const cuda::CopyRange& piece);
  HostMemories::iterator FindMemoryLocked(const cuda::CopyRange& piece)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // copy_engine_loop.cc: all on the engine's thread
  void Loop();
  Inbox TakeInbox();
  [[nodiscard]] bool HasToLook() const;
  void Accept(Inbox inbox);
  void CancelOne(uint64_t token);
  void Reap(Lane& lane);
  void BeginAll(Lane& lane);
  bool GateOpen(TransferState& transfer);
  Begun BeginOne(Lane& lane, const Transfer& transfer);
  bool TakePlaces(const Lane& lane, const TransferState& transfer, Running* running);
  int TakeHalf(const Lane& lane);
  void CopyByHost(const Lane& lane, Running running);
  void GiveToDriver(Lane& lane, Running running);
  void Land(Lane& lane, const Running& running);
  void Fail(cuda::Result result, absl::string_view what);
  void NoteEnd(const Transfer& transfer);
  void FinishEnded();
  Lane& LaneOf(const TransferState& transfer);
  Ring* ring();

  const cuda::PrimaryContext& context_;
  const cuda::CudaDriver& driver_;
  const CopyEngineOptions options_;
  const uint64_t stage_bytes_;

  mutable absl::Mutex mutex_;
  HostMemories memories_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Ring> ring_ ABSL_GUARDED_BY(mutex_);  // made once, then stays
  std::string ring_reason_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, std::vector<uintptr_t>> named_ ABSL_GUARDED_BY(mutex_);
  Inbox inbox_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> bytes_to_device_{0};
  std::atomic<uint64_t> bytes_to_host_{0};
  std::atomic<uint64_t> bytes_through_ring_{0};
  std::atomic<uint64_t> bytes_gathered_{0};

  // The engine's thread alone, but for what is constant.
  std::optional<Gathering> gathering_;
  std::array<Lane, 2> lanes_;  // loads, saves
  std::vector<cuda::OwnedEvent> events_;
  std::vector<cuda::Event> free_events_;
  absl::flat_hash_map<uint64_t, Transfer> live_;
  std::vector<Transfer> ended_;
  bool failed_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace terrace
