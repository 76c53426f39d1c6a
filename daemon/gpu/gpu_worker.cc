#include "daemon/gpu/gpu_worker.h"

#include <poll.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "daemon/gpu/found_device.h"
#include "daemon/gpu/gpu_frame.h"
#include "daemon/gpu/region_events.h"
#include "daemon/worker/worker_channel.h"
#include "daemon/worker/worker_setup.h"
#include "tiers/gpu/batch_trial.h"
#include "tiers/gpu/canary.h"
#include "tiers/gpu/copy_engine.h"
#include "tiers/gpu/copy_plan.h"
#include "tiers/gpu/imported_allocations.h"
#include "tiers/gpu/near_cpus.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr size_t kPacketRoom = 65536;

// Not to be found in a dump of this process, whatever the host does with those.
void KeepOutOfDumps(const Mapping& mapping) {
  madvise(mapping.data(), mapping.mapped_bytes(), MADV_DONTDUMP);
}

// Only its thread touches it, but for what the engine's thread calls. Never destroyed: the process
// ends with it.
class Worker {
 public:
  Worker(WorkerChannel channel, Mapping staging, EventDescriptor ended)
      : channel_(std::move(channel)),
        staging_(std::move(staging)),
        ended_event_(std::move(ended)) {}

  absl::Status Start(const cuda::DeviceUuid& device) {
    KeepOutOfDumps(staging_);
    if (absl::Status found = FindDevice(device, &device_); !found.ok()) {
      return found;
    }
    StayNear();
    if (const absl::Status tried = TryCopiesInBatches(context()); absl::IsUnavailable(tried)) {
      return tried;
    } else if (!tried.ok()) {
      device_.driver->ForgoBatches();
      single_reason_ = std::string(tried.message());
    }
    absl::StatusOr<std::unique_ptr<CopyEngine>> engine = CopyEngine::Start(context(), {});
    if (!engine.ok()) {
      return engine.status();
    }
    engine_ = *std::move(engine);
    return engine_
        ->AddHostMemory({staging_.data(), staging_.size()}, cuda::PinnedMemory::Access::kReadWrite)
        .status();
  }

  void SayReady(absl::Status started) const {
    GpuReady ready;
    ready.status = std::move(started);
    if (!ready.status.ok()) {
      return Send(Encode(ready));
    }
    ready.read_only_memory = context().Attribute(cuda::kAttributeReadOnlyHostRegister) != 0;
    ready.ordinal = device_.ordinal;
    int version = 0;
    (*device_.driver)->DriverGetVersion(&version);
    ready.driver_version = static_cast<uint32_t>(version);
    const CopyEngineFacts facts = engine_->facts();
    ready.load_piece_bytes = facts.gathered_piece_bytes_to_device;
    ready.save_piece_bytes = facts.gathered_piece_bytes_to_host;
    ready.plain_reason = facts.plain_reason;
    ready.single_reason = single_reason_;
    ready.node = node_;
    Send(Encode(ready));
  }

  [[noreturn]] void Serve() {
    std::string room(kPacketRoom, '\0');
    for (;;) {
      pollfd waited[] = {{channel_.get(), POLLIN, 0}, {ended_event_.get(), POLLIN, 0}};
      poll(waited, 2, -1);
      ForgetEnded();
      if ((waited[0].revents & (POLLIN | POLLHUP | POLLERR)) == 0) {
        continue;
      }
      absl::StatusOr<ReceivedPacket> packet =
          channel_.Receive(absl::MakeSpan(room), Waiting::kWait);
      if (!packet.ok() || packet->bytes.empty()) {
        LeaveWorker(packet.ok() ? 0 : kWorkerBroken);
      }
      if (!Handle(*packet)) {
        LeaveWorker(kWorkerBroken);
      }
    }
  }

 private:
  // Before any thread is started and any memory touched that copies go through.
  void StayNear() {
    const std::optional<NearCpus> near = FindNearCpus("/sys", context().PciBusId());
    if (near.has_value() && StayOn(near->cpus).ok()) {
      node_ = static_cast<uint32_t>(near->node);
    }
  }

  struct Slab {
    Mapping mapping;
    bool added = false;  // to the engine; where that failed it is tried again with the next copy
  };
  struct Region {
    std::shared_ptr<const cuda::ImportedMemory> memory;
    cuda::DevicePointer begin = 0;
    RegionGeometry geometry;
    uint32_t planes_per_layer = 1;
    Mapping progress;
    RegionEvents events;
    uint64_t copies = 0;              // that have not ended
    std::optional<uint64_t> closing;  // the call that closes it
  };
  struct Copying {
    uint64_t token = 0;
    uint64_t region = 0;
    RegionEvents::Held behind;  // as long as the engine may look at it
  };
  // What comes for a region before it is opened.
  struct Announced {
    std::string geometry;
    Mapping progress;
  };

  [[nodiscard]] const cuda::PrimaryContext& context() const { return *device_.context; }

  void Send(const std::string& packet) const {
    if (!channel_.Send(packet, Waiting::kWait).ok()) {
      LeaveWorker(0);
    }
  }
  void Done(uint64_t call, const absl::Status& status) const {
    Send(Encode(GpuDone{call, status}));
  }

  // False: the other side is no core of ours.
  bool Handle(const ReceivedPacket& packet) {
    const std::optional<GpuMessage> kind = KindOf(packet.bytes);
    switch (kind.value_or(GpuMessage::kReady)) {
      case GpuMessage::kAddSlab:
        return AddSlab(packet);
      case GpuMessage::kDropSlab:
        return DropSlab(packet);
      case GpuMessage::kProgressPage:
        return TakeProgressPage(packet);
      case GpuMessage::kGeometry:
        return TakeGeometry(packet);
      case GpuMessage::kOpenRegion:
        return OpenRegion(packet);
      case GpuMessage::kCloseRegion:
        return CloseRegion(packet);
      case GpuMessage::kCopy:
        return TakeCopy(packet);
      case GpuMessage::kCancel:
        return Cancel(packet);
      case GpuMessage::kLook:
        return Look(packet);
      default:
        return false;
    }
  }

  bool AddSlab(const ReceivedPacket& packet) {
    const std::optional<GpuSlab> message = DecodeGpuSlab(packet.bytes);
    if (!message.has_value() || !packet.passed.valid()) {
      return false;
    }
    absl::StatusOr<Mapping> mapping =
        Mapping::Map(packet.passed.get(), 0, message->bytes, MapAccess::kReadOnly);
    if (!mapping.ok() || slabs_.contains(message->slab)) {
      return true;
    }
    KeepOutOfDumps(*mapping);
    IsAdded(slabs_.emplace(message->slab, Slab{*std::move(mapping)}).first->second);
    return true;
  }

  bool IsAdded(Slab& slab) const {
    if (!slab.added) {
      slab.added = engine_
                       ->AddHostMemory({slab.mapping.data(), slab.mapping.size()},
                                       cuda::PinnedMemory::Access::kReadOnly)
                       .ok();
    }
    return slab.added;
  }

  bool DropSlab(const ReceivedPacket& packet) {
    const std::optional<GpuDropSlab> message = DecodeGpuDropSlab(packet.bytes);
    if (!message.has_value()) {
      return false;
    }
    absl::Status status;
    const auto slab = slabs_.find(message->slab);
    if (slab != slabs_.end()) {
      const Mapping& mapping = slab->second.mapping;
      status = slab->second.added ? engine_->RemoveHostMemory({mapping.data(), mapping.size()})
                                  : absl::OkStatus();
      if (status.ok()) {
        slabs_.erase(slab);
      }
    }
    Done(message->call, status);
    return true;
  }

  bool TakeProgressPage(const ReceivedPacket& packet) {
    const std::optional<uint64_t> region = DecodeGpuNumber(GpuMessage::kProgressPage, packet.bytes);
    if (!region.has_value() || !packet.passed.valid()) {
      return false;
    }
    absl::StatusOr<Mapping> page = Mapping::Map(
        packet.passed.get(), 0, kProgressSlots * sizeof(uint32_t), MapAccess::kReadWrite);
    if (page.ok()) {
      announced_[*region].progress = *std::move(page);
    }
    return true;
  }

  bool TakeGeometry(const ReceivedPacket& packet) {
    const std::optional<GpuGeometryPiece> piece = DecodeGpuGeometryPiece(packet.bytes);
    if (!piece.has_value()) {
      return false;
    }
    std::string& geometry = announced_[piece->region].geometry;
    geometry += piece->bytes;
    return geometry.size() <= kMaxGeometryBytes;
  }

  bool OpenRegion(const ReceivedPacket& packet) {
    const std::optional<GpuOpenRegion> message = DecodeGpuOpenRegion(packet.bytes);
    if (!message.has_value() ||
        (message->kind == GpuMemoryKind::kShared) != packet.passed.valid()) {
      return false;
    }
    Announced announced = std::move(announced_[message->region]);
    announced_.erase(message->region);
    absl::StatusOr<Region> region = MakeRegion(*message, std::move(announced), packet.passed);
    if (region.ok() && message->canary_block.has_value()) {
      const absl::Status sung =
          SendCanary(*device_.context, region->begin, region->geometry, *message->canary_block);
      region = sung.ok() ? std::move(region) : absl::StatusOr<Region>(sung);
    }
    if (region.ok()) {
      regions_.insert_or_assign(message->region, *std::move(region));
    }
    Done(message->call, region.status());
    return !absl::IsUnavailable(region.status());  // then the device is lost, and this process
  }

  absl::StatusOr<Region> MakeRegion(const GpuOpenRegion& message,
                                    Announced announced,
                                    const Descriptor& passed) {
    std::optional<RegionGeometry> geometry = DecodeGeometry(announced.geometry);
    if (!geometry.has_value()) {
      return absl::InternalError("geometry: not understood by the worker");
    }
    if (const absl::Status valid = ValidateGpuGeometry(*geometry, message.bytes).status();
        !valid.ok()) {
      return valid;
    }
    if (message.planes_per_layer == 0 || geometry->planes.size() % message.planes_per_layer != 0) {
      return absl::InvalidArgumentError("planes_per_layer: must divide the number of planes");
    }
    if (message.offset > message.allocation_bytes ||
        message.bytes > message.allocation_bytes - message.offset) {
      return absl::InvalidArgumentError("bytes: beyond the allocation");
    }
    absl::StatusOr<std::shared_ptr<const cuda::ImportedMemory>> memory =
        message.kind == GpuMemoryKind::kIpc
            ? allocations_.OpenIpc(context(), message.handle, message.allocation_bytes)
            : cuda::ImportedAllocations::MapShared(context(), passed, message.allocation_bytes);
    if (!memory.ok()) {
      return memory.status();
    }
    Region region;
    region.begin = (*memory)->address() + message.offset;
    region.memory = *std::move(memory);
    region.geometry = *std::move(geometry);
    region.planes_per_layer = message.planes_per_layer;
    region.progress = std::move(announced.progress);
    return region;
  }

  bool CloseRegion(const ReceivedPacket& packet) {
    const std::optional<GpuCloseRegion> message = DecodeGpuCloseRegion(packet.bytes);
    if (!message.has_value()) {
      return false;
    }
    const auto region = regions_.find(message->region);
    if (region == regions_.end()) {
      Done(message->call, absl::OkStatus());
      return true;
    }
    region->second.closing = message->call;
    {
      const absl::MutexLock lock(&mutex_);
      for (const auto& [call, copying] : copying_) {
        if (copying.region == message->region) {
          engine_->Cancel(copying.token);
        }
      }
    }
    CloseIfIdle(message->region);
    return true;
  }

  void CloseIfIdle(uint64_t number) {
    const auto region = regions_.find(number);
    if (region == regions_.end() || !region->second.closing.has_value() ||
        region->second.copies > 0) {
      return;
    }
    const uint64_t call = *region->second.closing;
    regions_.erase(region);
    Done(call, absl::OkStatus());
  }

  bool TakeCopy(const ReceivedPacket& packet) {
    std::optional<GpuCopyPacket> part = DecodeGpuCopy(packet.bytes);
    if (!part.has_value()) {
      return false;
    }
    const uint64_t call = part->copy.call;
    const auto [found, first] = assembling_.try_emplace(call);
    GpuCopy& copy = found->second;
    if (first) {
      copy = std::move(part->copy);
    } else {
      copy.blocks.insert(copy.blocks.end(), part->copy.blocks.begin(), part->copy.blocks.end());
    }
    if (part->more) {
      return copy.blocks.size() <= kMaxPiecesOfPlan;
    }
    const GpuCopy whole = std::move(copy);
    assembling_.erase(found);
    if (const absl::Status status = Submit(whole); !status.ok()) {
      Done(call, status);
    }
    return true;
  }

  // Where the block's payload lies here; nullptr: nowhere, or not all of it.
  char* HostPlace(const GpuBlock& block, cuda::CopyDirection direction) {
    const Mapping* mapping = nullptr;
    if (block.slab == kStagingSlab) {
      mapping = &staging_;
    } else if (const auto slab = slabs_.find(block.slab);
               slab != slabs_.end() && direction == cuda::CopyDirection::kToDevice &&
               IsAdded(slab->second)) {
      mapping = &slab->second.mapping;
    }
    if (mapping == nullptr || block.offset > mapping->size() ||
        block.bytes > mapping->size() - block.offset) {
      return nullptr;
    }
    return mapping->data() + block.offset;
  }

  absl::Status Submit(const GpuCopy& copy) {
    const auto found = regions_.find(copy.region);
    if (found == regions_.end() || found->second.closing.has_value()) {
      return absl::NotFoundError("region: not open in the worker");
    }
    Region& region = found->second;
    std::vector<BlockPlace> places;
    places.reserve(copy.blocks.size());
    for (const GpuBlock& block : copy.blocks) {
      char* const host = HostPlace(block, copy.direction);
      if (host == nullptr) {
        return absl::UnavailableError("host memory: the worker could not map it");
      }
      places.push_back({block.block, host, block.bytes});
    }
    DeviceTransfer transfer;
    transfer.direction = copy.direction;
    absl::StatusOr<CopyPlan> plan =
        PlanCopies({&region.geometry, region.begin, places, region.planes_per_layer});
    if (!plan.ok()) {
      return plan.status();
    }
    transfer.plan = *std::move(plan);
    RegionEvents::Held behind;
    if (copy.behind.has_value()) {
      absl::StatusOr<RegionEvents::Held> event = region.events.Open(context(), *copy.behind);
      if (!event.ok()) {
        return event.status();
      }
      behind = *std::move(event);
      transfer.behind = behind->get();
    }
    if (copy.progress_slot.has_value() && region.progress.size() != 0) {
      transfer.layers_landed =
          reinterpret_cast<std::atomic<uint32_t>*>(region.progress.data()) + *copy.progress_slot;
    }
    return Begin(copy, region, std::move(transfer), std::move(behind));
  }

  absl::Status Begin(const GpuCopy& copy,
                     Region& region,
                     DeviceTransfer transfer,
                     RegionEvents::Held behind) {
    const absl::MutexLock lock(&mutex_);
    const absl::StatusOr<uint64_t> token = engine_->Submit(
        std::move(transfer),
        [this, call = copy.call](const absl::Status& status) { CopyEnded(call, status); });
    if (!token.ok()) {
      return token.status();
    }
    copying_[copy.call] = {*token, copy.region, std::move(behind)};
    ++region.copies;
    return absl::OkStatus();
  }

  // On the engine's thread.
  void CopyEnded(uint64_t call, const absl::Status& status) {
    if (!status.ok() && !absl::IsCancelled(status) && !engine_->facts().failure.ok()) {
      Done(kLastWords, status);
      LeaveWorker(kWorkerBroken);
    }
    {
      const absl::MutexLock lock(&mutex_);
      ended_.push_back(call);
    }
    Done(call, status);
    ended_event_.Notify();
  }

  void ForgetEnded() {
    ended_event_.Clear();
    std::vector<Copying> ended;
    {
      const absl::MutexLock lock(&mutex_);
      for (const uint64_t call : std::exchange(ended_, {})) {
        ended.push_back(std::move(copying_.at(call)));
        copying_.erase(call);
      }
    }
    for (Copying& copying : ended) {
      copying.behind.reset();  // before its region, which may be closed now
      --regions_.at(copying.region).copies;
      CloseIfIdle(copying.region);
    }
  }

  bool Cancel(const ReceivedPacket& packet) {
    const std::optional<uint64_t> call = DecodeGpuNumber(GpuMessage::kCancel, packet.bytes);
    if (!call.has_value()) {
      return false;
    }
    const absl::MutexLock lock(&mutex_);
    if (const auto copying = copying_.find(*call); copying != copying_.end()) {
      engine_->Cancel(copying->second.token);
    }
    return true;
  }

  bool Look(const ReceivedPacket& packet) const {
    const std::optional<uint64_t> call = DecodeGpuNumber(GpuMessage::kLook, packet.bytes);
    if (!call.has_value()) {
      return false;
    }
    const CopyEngineFacts seen = engine_->facts();
    GpuSeen message;
    message.call = *call;
    message.facts = {seen.bytes_to_device, seen.bytes_to_host,       seen.bytes_through_ring,
                     seen.bytes_gathered,  seen.direct_memory_bytes, seen.ring_memory_bytes,
                     seen.transfers,       seen.ring_reason};
    Send(Encode(message));
    return true;
  }

  const WorkerChannel channel_;
  FoundDevice device_;
  uint32_t node_ = kNoNode;
  std::string single_reason_;  // why copies are enqueued one by one; "": they are not
  const Mapping staging_;
  const EventDescriptor ended_event_;
  std::unique_ptr<CopyEngine> engine_;
  cuda::ImportedAllocations allocations_;
  std::map<uint32_t, Slab> slabs_;
  std::map<uint64_t, Announced> announced_;
  std::map<uint64_t, Region> regions_;
  std::map<uint64_t, GpuCopy> assembling_;  // copies of which more packets come
  absl::Mutex mutex_;
  absl::flat_hash_map<uint64_t, Copying> copying_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> ended_ ABSL_GUARDED_BY(mutex_);
};

// Returns only what went wrong.
absl::Status Begin() {
  WorkerChannel channel{Descriptor(kWorkerSocket)};
  std::string room(kPacketRoom, '\0');
  absl::StatusOr<ReceivedPacket> packet = channel.Receive(absl::MakeSpan(room), Waiting::kWait);
  if (!packet.ok()) {
    return packet.status();
  }
  const std::optional<GpuGreeting> greeting = DecodeGpuGreeting(packet->bytes);
  if (!greeting.has_value() || !packet->passed.valid()) {
    return absl::InvalidArgumentError("the other side of the socket is not a core");
  }
  absl::StatusOr<Mapping> staging =
      Mapping::Map(packet->passed.get(), 0, greeting->staging_bytes, MapAccess::kReadWrite);
  absl::StatusOr<EventDescriptor> ended = EventDescriptor::Create();
  if (!staging.ok() || !ended.ok()) {
    return staging.ok() ? ended.status() : staging.status();
  }
  packet->passed = Descriptor();
  LetGoOfWorkersLog();
  // Lives as long as the process, because the engine's threads call it.
  Worker* const worker = new Worker(std::move(channel), *std::move(staging), *std::move(ended));
  const absl::Status started = worker->Start(greeting->device);
  worker->SayReady(started);
  if (!started.ok()) {
    LeaveWorker(0);  // the core knows, and says it
  }
  worker->Serve();
}

}  // namespace

int RunGpuWorker() {
  if (!IsWorkerSocket()) {
    return SayWorkersAreStartedByTerraced();
  }
  SetUpWorker("gpu worker");
  const absl::Status begun = Begin();
  std::fprintf(stderr, "terraced: GPU worker: %s\n", std::string(begun.message()).c_str());
  return kWorkerBroken;
}

}  // namespace terrace
