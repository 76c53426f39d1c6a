// What a GPU's device is told to do: regions, copies, slabs.
#include <cstring>

#include "absl/strings/str_cat.h"

#include "daemon/gpu/worker_gpu_device.h"

namespace terrace {
namespace {

// Descriptors do not tell.
bool MayBeTheSame(const GpuRegionMemory& one, const GpuRegionMemory& other) {
  return one.kind != GpuMemoryKind::kIpc || other.kind != GpuMemoryKind::kIpc ||
         std::memcmp(one.handle.reserved, other.handle.reserved, sizeof(one.handle.reserved)) == 0;
}

}  // namespace

void WorkerGpuDevice::AddRegion(uint64_t number, const std::shared_ptr<Region>& region) {
  if (stopping_) {
    return Refuse(*region, absl::CancelledError("the daemon stops"));
  }
  regions_[number] = region;
  CountRegions();
  region->held = true;
  const auto free = std::make_shared<Barrier>([this, number, region] {
    region->held = false;
    OpenIfFree(number, region);
  });
  std::erase_if(closing_, [&](const std::weak_ptr<Closing>& closing) {
    const std::shared_ptr<Closing> there = closing.lock();
    if (there != nullptr && MayBeTheSame(there->region->memory, region->memory)) {
      there->behind.push_back(free);
    }
    return there == nullptr;
  });
}

void WorkerGpuDevice::OpenIfFree(uint64_t number, const std::shared_ptr<Region>& region) {
  if (!region->held && regions_.contains(number) && seat_.has_value() && seat_->ready) {
    SendOpen(number, region);
  }
}

void WorkerGpuDevice::SendOpen(uint64_t number, const std::shared_ptr<Region>& region) {
  const std::shared_ptr<const SealedMemory> page = ProgressPage(number);
  const GpuRegionMemory& memory = region->memory;
  region->state = Region::State::kOpening;
  if (memory.tell_owner) {
    absl::StatusOr<Descriptor> pidfd = seat_->child.DuplicatePidfd();
    if (!pidfd.ok()) {
      // Not from here: whoever asks may be going through the regions.
      return Post([this, number, region, status = pidfd.status()] {
        Opened(number, *region, status);
      });
    }
    memory.tell_owner(*std::move(pidfd));
  }
  if (page != nullptr) {
    Queue(EncodeNumber(GpuMessage::kProgressPage, number), {page, &page->descriptor()});
  }
  const std::string geometry = EncodeGeometry(memory.geometry);
  for (size_t at = 0; at < geometry.size(); at += kMaxGeometryPiece) {
    Queue(Encode(GpuGeometryPiece{number, geometry.substr(at, kMaxGeometryPiece)}));
  }
  GpuOpenRegion open;
  open.call =
      Owe([this, number, region](const absl::Status& status) { Opened(number, *region, status); });
  open.region = number;
  open.kind = memory.kind;
  open.handle = memory.handle;
  open.allocation_bytes = memory.allocation_bytes;
  open.offset = memory.offset;
  open.bytes = memory.bytes;
  open.planes_per_layer = memory.planes_per_layer;
  // Once it has been opened its blocks may hold something.
  open.canary_block = region->opened ? memory.canary_block : std::nullopt;
  Queue(Encode(open), memory.kind == GpuMemoryKind::kShared
                          ? std::shared_ptr<const Descriptor>(region, &memory.descriptor)
                          : nullptr);
}

void WorkerGpuDevice::Opened(uint64_t number, Region& region, const absl::Status& status) {
  if (!regions_.contains(number)) {
    return;  // closed meanwhile, or given up
  }
  if (region.opened) {
    if (status.ok()) {
      region.state = Region::State::kOpen;
      std::exchange(region.opened, nullptr)(status);
    } else {
      regions_.erase(number);
      CountRegions();
      Refuse(region, status);
    }
  } else if (status.ok()) {
    region.state = Region::State::kOpen;
  } else if (!absl::IsUnavailable(status)) {
    region.state = Region::State::kFailed;
    Say(absl::StrCat("a region could not be opened again: ", status.message()));
  }
  if (status.ok()) {
    restarts_.Works();
    for (const auto& [token, copy] : std::exchange(region.waiting, {})) {
      SendCopy(token, copy);
    }
  } else if (region.state == Region::State::kFailed) {
    Refuse(region, absl::NotFoundError("the region's memory is gone"));
  }
  CountRegions();
}

void WorkerGpuDevice::Refuse(Region& region, const absl::Status& status) {
  for (const auto& [token, copy] : std::exchange(region.waiting, {})) {
    FinishCopy(*copy, status);
  }
  if (region.opened) {
    std::exchange(region.opened, nullptr)(status);
  }
}

void WorkerGpuDevice::CountRegions() {
  const absl::MutexLock lock(&mutex_);
  figures_.regions = regions_.size();
}

WorkerGpuDevice::BarrierPart WorkerGpuDevice::AwaitLeaving(std::function<void()> done) {
  auto barrier = std::make_shared<Barrier>(std::move(done));
  for (Leaving& leaving : leaving_) {
    leaving.at_end.emplace_back([barrier] {});
  }
  return barrier;
}

void WorkerGpuDevice::Close(uint64_t number, std::function<void()> done) {
  const auto found = regions_.find(number);
  if (found == regions_.end()) {
    AwaitLeaving(std::move(done));
    return;
  }
  const std::shared_ptr<Region> region = found->second;
  const auto closing = std::make_shared<Closing>(Closing{region, {}});
  closing_.push_back(closing);
  const BarrierPart barrier = AwaitLeaving([closing, done = std::move(done)] { done(); });
  regions_.erase(found);
  CountRegions();
  const bool there = seat_.has_value() && (region->state == Region::State::kOpen ||
                                           region->state == Region::State::kOpening);
  Refuse(*region, absl::CancelledError("the region is closed"));
  if (there) {
    GpuCloseRegion close;
    close.call = Owe([barrier](const absl::Status&) {});
    close.region = number;
    Queue(Encode(close));
  }
}

void WorkerGpuDevice::BeginCopy(uint64_t token, const std::shared_ptr<CopyCall>& copy) {
  const auto region = regions_.find(copy->call.region);
  if (region == regions_.end() || region->second->state == Region::State::kFailed) {
    return FinishCopy(*copy, absl::NotFoundError("the region's memory is gone"));
  }
  if (region->second->state == Region::State::kOpen) {
    return SendCopy(token, copy);
  }
  region->second->waiting[token] = copy;
}

void WorkerGpuDevice::SendCopy(uint64_t token, const std::shared_ptr<CopyCall>& copy) {
  GpuCopyCall& call = copy->call;
  if (absl::Status placed = Place(call); !placed.ok()) {
    return FinishCopy(*copy, placed);
  }
  seat_->owed[token] = {
      call.deadline, [this, copy](const absl::Status& status) { FinishCopy(*copy, status); }, copy};
  GpuCopy message;
  message.call = token;
  message.region = call.region;
  message.direction = call.direction;
  message.behind = call.behind;
  message.progress_slot = call.progress_slot;
  message.blocks = std::move(call.blocks);
  for (std::string& packet : Encode(message)) {
    Queue(std::move(packet));
  }
}

absl::Status WorkerGpuDevice::Place(GpuCopyCall& call) {
  std::optional<uint64_t> staging;
  if (call.staging != nullptr) {
    staging = seat_->staging->OffsetOf(*call.staging);
  }
  for (GpuBlock& block : call.blocks) {
    if (block.slab == kStagingSlab) {
      if (!staging.has_value()) {
        return absl::UnavailableError("the staging memory is of a worker that is gone");
      }
      block.offset += *staging;
      continue;
    }
    const SlabId slab{block.slab};
    if (seat_->slabs.contains(slab)) {
      continue;
    }
    absl::StatusOr<BlockStore::SlabGrant> grant = parts_.map_slab(call.tenant, slab);
    if (!grant.ok()) {
      return absl::UnavailableError(grant.status().message());
    }
    seat_->slabs.insert(slab);
    Queue(Encode(GpuSlab{block.slab, grant->bytes}),
          std::make_shared<const Descriptor>(std::move(grant->descriptor)));
  }
  return absl::OkStatus();
}

void WorkerGpuDevice::FinishCopy(CopyCall& copy, const absl::Status& status) {
  {
    const absl::MutexLock lock(&mutex_);
    --figures_.copies_in_flight;
  }
  copy.call.staging.reset();
  copy.done(!copy.ended_by.ok() && absl::IsCancelled(status) ? copy.ended_by : status);
}

void WorkerGpuDevice::CancelCopy(uint64_t token, absl::Status why) {
  for (const auto& [number, region] : regions_) {
    if (const auto waiting = region->waiting.find(token); waiting != region->waiting.end()) {
      const std::shared_ptr<CopyCall> copy = waiting->second;
      region->waiting.erase(waiting);
      return FinishCopy(*copy, why);
    }
  }
  const auto owed = seat_.has_value() ? seat_->owed.find(token) : decltype(seat_->owed.end())();
  if (!seat_.has_value() || owed == seat_->owed.end() || owed->second.copy == nullptr ||
      !owed->second.copy->ended_by.ok()) {
    return;
  }
  owed->second.copy->ended_by = std::move(why);
  owed->second.answer_by = clock_.Now() + options_.cancel_deadline;
  Queue(EncodeNumber(GpuMessage::kCancel, token));
}

void WorkerGpuDevice::Drop(SlabId slab, std::function<void()> done) {
  DropFromSeat(slab, AwaitLeaving(std::move(done)));
}

void WorkerGpuDevice::DropFromSeat(SlabId slab, const BarrierPart& barrier) {
  if (!seat_.has_value() || !seat_->slabs.contains(slab)) {
    return;
  }
  seat_->slabs.erase(slab);
  GpuDropSlab drop;
  drop.call = Owe([this, slab, barrier](const absl::Status& status) {
    if (status.ok() || absl::IsUnavailable(status)) {
      return;
    }
    // A copy that has just been answered for still names it.
    seat_->slabs.insert(slab);
    retries_.push_back(
        {clock_.Now() + kGpuDeviceTurn, [this, slab, barrier] { Drop(slab, [barrier] {}); }});
  });
  drop.slab = static_cast<uint32_t>(slab);
  Queue(Encode(drop));
}

}  // namespace terrace
