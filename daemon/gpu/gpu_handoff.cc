#include "daemon/gpu_handoff.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "daemon/gpu/gpu_call.h"
#include "daemon/gpu/gpu_get.h"
#include "daemon/gpu/gpu_put.h"
#include "daemon/gpu/session_memory.h"
#include "daemon/gpu/tenant_slabs.h"

namespace terrace {
namespace {

std::string NameOf(const cuda::DeviceUuid& device) {
  return {device.bytes, sizeof(device.bytes)};
}

// Shared by the door and by callbacks that come late.
class Handoff : public std::enable_shared_from_this<Handoff> {
 public:
  Handoff(GpuHandoff::Options options, GpuHandoff::Parts parts)
      : options_(std::move(options)), parts_(std::move(parts)), slabs_(*parts_.store) {}

  void Shut() {
    std::map<std::string, std::shared_ptr<GpuDevice>> devices;
    std::map<RegionKey, Region> regions;
    std::vector<std::shared_ptr<GpuCall>> calls;
    {
      const absl::MutexLock lock(&mutex_);
      shut_ = true;
      devices.swap(devices_);
      regions.swap(regions_);
      for (const auto& [number, call] : calls_) {
        calls.push_back(call.call);
      }
    }
    for (const std::shared_ptr<GpuCall>& call : calls) {
      if (call != nullptr) {
        call->Cancel();
      }
    }
    for (const auto& [name, device] : devices) {
      device->Stop();
    }
    slabs_.CloseAll();
  }

  void RegisterRegion(const Caller& caller,
                      GpuRegionSpec spec,
                      std::function<void(absl::StatusOr<GpuRegionGrant>)> done) {
    absl::Status status;
    const absl::StatusOr<uint64_t> payload = CheckGpuRegion(spec.memory);
    if (!payload.ok()) {
      return done(payload.status());
    }
    auto region = std::make_shared<GpuRegion>();
    region->tenant = caller.tenant;
    region->payload_bytes = *payload;
    region->block_count = spec.memory.geometry.block_count;
    region->block_pieces = 0;
    for (const RegionPlane& plane : spec.memory.geometry.planes) {
      region->block_pieces += static_cast<uint32_t>(plane.segments.size());
    }
    const RegionKey key{caller.session, spec.region_id};
    const std::string handle = spec.memory.kind == GpuMemoryKind::kIpc
                                   ? std::string(spec.memory.handle.reserved, cuda::kIpcHandleBytes)
                                   : std::string();
    std::shared_ptr<GpuDevice> given_up;
    SessionMemory::Use memory;
    {
      const absl::MutexLock lock(&mutex_);
      status = AdmitRegionLocked(key, handle, spec.device, *region, &given_up);
      if (status.ok()) {
        region->number = ++last_region_;
        memory = memory_.Begin(caller.session);
        regions_[key] = {region, handle, memory};
      }
    }
    if (given_up != nullptr) {
      given_up->Stop();
    }
    if (!status.ok()) {
      return done(status);
    }
    slabs_.RegionOpened(caller.tenant);
    region->device->OpenRegion(
        region->number, std::move(spec.memory),
        [self = shared_from_this(), key, region, done](const absl::Status& opened) {
          self->Opened(key, *region, opened, done);
        });
    bool kept = false;
    {
      const absl::MutexLock lock(&mutex_);
      const auto found = regions_.find(key);
      kept = found != regions_.end() && found->second.region == region && !found->second.closing;
    }
    if (!kept) {
      // The session has ended, perhaps before the device knew of the region.
      region->device->CloseRegion(region->number, [memory] {});
    }
  }

  [[nodiscard]] bool HasRegion(SessionId session, uint32_t region_id) const {
    const absl::MutexLock lock(&mutex_);
    return regions_.contains({session, region_id});
  }

  void UnregisterRegion(SessionId session, uint32_t region_id, std::function<void()> done) {
    Region region;
    {
      const absl::MutexLock lock(&mutex_);
      const auto found = regions_.find({session, region_id});
      if (found != regions_.end()) {
        region = found->second;
        regions_.erase(found);
      }
    }
    if (region.region == nullptr) {
      return done();
    }
    Close(region, AtEnd(std::move(done)));
  }

  void Get(const Caller& caller,
           GetCall call,
           std::vector<GpuOrder> orders,
           std::function<void(absl::StatusOr<GetResult>)> done) {
    GpuGetParts parts;
    parts.get = [store = parts_.store, tenant = caller.tenant](
                    GetCall asked, std::function<void(absl::StatusOr<GetResult>)> answered) {
      store->Get({tenant, kNoSession}, std::move(asked), std::move(answered));
    };
    parts.clock = parts_.clock;
    parts.tenant = caller.tenant;
    parts.orders = std::move(orders);
    uint64_t number = 0;
    bool known = true;
    {
      const absl::MutexLock lock(&mutex_);
      for (const RegionBlocks& blocks : call.regions) {
        const auto found = regions_.find({caller.session, blocks.region_id});
        known = known && found != regions_.end();
        parts.regions.push_back(known ? found->second.region : nullptr);
      }
      number = known ? AddCallLocked(caller, call.call_id) : 0;
    }
    if (!known) {
      return done(absl::NotFoundError("regions.region_id: not registered in this session"));
    }
    parts.call = std::move(call);
    parts.done = [self = shared_from_this(), number, done = std::move(done)](GetResult result) {
      uint64_t bytes = 0;
      for (const uint32_t payload : result.payload_bytes) {
        bytes += payload;
      }
      self->loaded_bytes_ += bytes;
      ++self->gets_;
      done(std::move(result));
      self->CallEnded(number);
    };
    Keep(number, BeginGpuGet(std::move(parts)));
  }

  void Put(const Caller& caller,
           PutCall call,
           const GpuOrder& order,
           std::function<void(absl::StatusOr<PutResult>)> done) {
    GpuPutParts parts;
    parts.put = [store = parts_.store, tenant = caller.tenant](
                    PutCall asked, std::function<void(absl::StatusOr<PutResult>)> answered) {
      store->Put({tenant, kNoSession}, std::move(asked), std::move(answered));
    };
    parts.clock = parts_.clock;
    parts.tenant = caller.tenant;
    parts.order = order;
    uint64_t number = 0;
    {
      const absl::MutexLock lock(&mutex_);
      const auto found = regions_.find({caller.session, call.region.region_id});
      if (found != regions_.end()) {
        parts.region = found->second.region;
        number = AddCallLocked(caller, call.call_id);
      }
    }
    if (parts.region == nullptr) {
      return done(absl::NotFoundError("region.region_id: not registered in this session"));
    }
    parts.held = parts_.store->InDram(caller.tenant, call.part);
    parts.call = std::move(call);
    parts.saved = [self = shared_from_this()](uint64_t bytes) { self->saved_bytes_ += bytes; };
    parts.done = [self = shared_from_this(), number,
                  done = std::move(done)](absl::StatusOr<PutResult> result) {
      ++self->puts_;
      done(std::move(result));
      self->CallEnded(number);
    };
    Keep(number, BeginGpuPut(std::move(parts)));
  }

  bool CancelCall(const Caller& caller, uint64_t call_id, std::function<void(bool)> done) {
    std::shared_ptr<GpuCall> call;
    {
      const absl::MutexLock lock(&mutex_);
      const auto number = call_ids_.find({caller.session, call_id});
      if (number == call_ids_.end()) {
        return false;
      }
      Call& found = calls_.at(number->second);
      found.cancels.push_back(std::move(done));
      found.cancelled = true;
      call = found.call;
    }
    if (call != nullptr) {
      call->Cancel();
    }
    return true;
  }

  void CloseSession(SessionId session, std::function<void()> done) {
    const std::shared_ptr<const void> closed = AtEnd(std::move(done));
    std::vector<Region> regions;
    std::vector<std::shared_ptr<GpuCall>> calls;
    {
      const absl::MutexLock lock(&mutex_);
      memory_.End(session, closed);
      for (auto it = regions_.lower_bound({session, 0});
           it != regions_.end() && it->first.session == session; ++it) {
        it->second.closing = true;
        regions.push_back(it->second);
      }
      for (auto& [number, call] : calls_) {
        if (call.session == session) {
          call.cancelled = true;
          calls.push_back(call.call);
        }
      }
    }
    for (const std::shared_ptr<GpuCall>& call : calls) {
      if (call != nullptr) {
        call->Cancel();
      }
    }
    for (const Region& region : regions) {
      Close(region, nullptr);
    }
    // Now that their devices know: another session may name their handles, and waits there until
    // they are closed.
    const absl::MutexLock lock(&mutex_);
    std::erase_if(regions_, [session](const auto& entry) {
      return entry.first.session == session && entry.second.closing;
    });
  }

  bool SlabRetired(SessionId session, SlabId slab) {
    if (!slabs_.Forget(session, slab)) {
      return false;
    }
    const auto unmapped =
        AtEnd([store = parts_.store, session, slab] { store->UnmapSlab(session, slab); });
    for (const std::shared_ptr<GpuDevice>& device : Devices()) {
      device->DropSlab(slab, [unmapped] {});
    }
    return true;
  }

  void Tick() {
    std::vector<std::shared_ptr<GpuCall>> calls;
    {
      const absl::MutexLock lock(&mutex_);
      for (const auto& [number, call] : calls_) {
        if (call.call != nullptr) {
          calls.push_back(call.call);
        }
      }
    }
    for (const std::shared_ptr<GpuCall>& call : calls) {
      call->Tick();
    }
  }

  [[nodiscard]] GpuFigures figures() const {
    GpuFigures figures;
    std::vector<std::shared_ptr<GpuDevice>> devices;
    {
      const absl::MutexLock lock(&mutex_);
      devices = DevicesLocked();
      figures.regions = regions_.size();
      figures.calls_in_flight = calls_.size();
    }
    for (const std::shared_ptr<GpuDevice>& device : devices) {
      figures.devices.push_back(device->figures());
    }
    figures.gets = gets_;
    figures.puts = puts_;
    figures.loaded_bytes = loaded_bytes_;
    figures.saved_bytes = saved_bytes_;
    return figures;
  }

 private:
  struct RegionKey {
    SessionId session = kNoSession;
    uint32_t region_id = 0;
    friend auto operator<=>(const RegionKey&, const RegionKey&) = default;
  };
  struct Region {
    std::shared_ptr<GpuRegion> region;
    std::string handle;    // of legacy IPC; "": none
    SessionMemory::Use memory;
    bool closing = false;  // its session has ended
  };
  struct Call {
    SessionId session = kNoSession;
    uint64_t call_id = 0;           // of the session; 0: none
    std::shared_ptr<GpuCall> call;  // nullptr: being begun
    bool cancelled = false;
    std::vector<std::function<void(bool)>> cancels;  // who waits for its end
  };
  absl::Status AdmitRegionLocked(const RegionKey& key,
                                 const std::string& handle,
                                 const cuda::DeviceUuid& uuid,
                                 GpuRegion& region,
                                 std::shared_ptr<GpuDevice>* given_up)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (shut_) {
      return absl::UnavailableError("the daemon stops");
    }
    if (regions_.contains(key)) {
      return absl::AlreadyExistsError("region_id: in use in this session");
    }
    uint32_t of_session = 0;
    for (auto it = regions_.lower_bound({key.session, 0});
         it != regions_.end() && it->first.session == key.session; ++it) {
      ++of_session;
    }
    if (of_session >= options_.max_regions_per_session) {
      return absl::ResourceExhaustedError(
          absl::StrCat("regions: at most ", options_.max_regions_per_session));
    }
    // A legacy handle is a number that whoever has seen it can say.
    for (const auto& [other, kept] : regions_) {
      if (!handle.empty() && kept.handle == handle && other.session != key.session) {
        return absl::AlreadyExistsError("handle: registered by another session");
      }
    }
    absl::StatusOr<std::shared_ptr<GpuDevice>> device = DeviceLocked(uuid, given_up);
    if (!device.ok()) {
      return device.status();
    }
    region.device = *std::move(device);
    return absl::OkStatus();
  }

  // *given_up: a device that has to be stopped, without the lock.
  absl::StatusOr<std::shared_ptr<GpuDevice>> DeviceLocked(const cuda::DeviceUuid& uuid,
                                                          std::shared_ptr<GpuDevice>* given_up)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto known = devices_.find(NameOf(uuid));
    if (known != devices_.end()) {
      return known->second;
    }
    // One that nobody names is no reason to refuse one that somebody does: a client can say any
    // uuid.
    const auto unused = std::find_if(devices_.begin(), devices_.end(), [](const auto& device) {
      return device.second.use_count() == 1;
    });
    if (devices_.size() >= kMaxGpus && unused == devices_.end()) {
      return absl::ResourceExhaustedError(absl::StrCat("device_uuid: at most ", kMaxGpus, " GPUs"));
    }
    if (devices_.size() >= kMaxGpus) {
      *given_up = std::move(unused->second);
      devices_.erase(unused);
    }
    GpuDeviceOptions options = options_.device;
    options.uuid = uuid;
    options.number = next_device_++;
    GpuDeviceParts parts;
    parts.clock = parts_.clock;
    parts.map_slab = [self = weak_from_this()](TenantId tenant, SlabId slab) {
      const std::shared_ptr<Handoff> handoff = self.lock();
      return handoff == nullptr
                 ? absl::StatusOr<BlockStore::SlabGrant>(absl::CancelledError("the daemon stops"))
                 : handoff->slabs_.Map(tenant, slab);
    };
    parts.say = [say = parts_.say, number = options.number](const std::string& event) {
      if (say) {
        say(absl::StrCat("gpu:", number, ": ", event));
      }
    };
    absl::StatusOr<std::unique_ptr<GpuDevice>> device = GpuDevice::Start(options, std::move(parts));
    if (!device.ok()) {
      return device.status();
    }
    return devices_[NameOf(uuid)] = *std::move(device);
  }

  [[nodiscard]] std::vector<std::shared_ptr<GpuDevice>> DevicesLocked() const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    std::vector<std::shared_ptr<GpuDevice>> devices;
    devices.reserve(devices_.size());
    for (const auto& [name, device] : devices_) {
      devices.push_back(device);
    }
    return devices;
  }

  void Opened(const RegionKey& key,
              const GpuRegion& region,
              const absl::Status& opened,
              const std::function<void(absl::StatusOr<GpuRegionGrant>)>& done) {
    absl::Status status = opened;
    GpuRegionGrant grant;
    if (status.ok()) {
      const std::shared_ptr<const SealedMemory> page = region.device->ProgressPage(region.number);
      absl::StatusOr<Descriptor> duplicate =
          page == nullptr ? absl::CancelledError("the region was closed meanwhile")
                          : page->descriptor().Duplicate();
      status = duplicate.status();
      grant.payload_bytes = region.payload_bytes;
      grant.progress_page = duplicate.ok() ? *std::move(duplicate) : Descriptor();
    }
    if (status.ok()) {
      return done(std::move(grant));
    }
    Region failed;
    {
      const absl::MutexLock lock(&mutex_);
      const auto kept = regions_.find(key);
      if (kept != regions_.end() && kept->second.region.get() == &region) {
        failed = kept->second;
        regions_.erase(kept);
      }
    }
    if (failed.region != nullptr) {
      Close(failed, nullptr);
    }
    done(status);
  }

  // Of a region that has left the table. `closed` is let go of when nothing can touch its memory.
  void Close(const Region& region, const std::shared_ptr<const void>& closed) {
    region.region->closed = true;
    const TenantId tenant = region.region->tenant;
    const auto counted = AtEnd([self = shared_from_this(), tenant] {
      if (self->slabs_.IsLastRegion(tenant)) {
        self->GiveBack(tenant);
      }
    });
    region.region->device->CloseRegion(region.region->number,
                                       [closed, counted, memory = region.memory] {});
  }

  void GiveBack(TenantId tenant) {
    const TenantSlabs::Mapped mapped = slabs_.Take(tenant);
    if (mapped.session == kNoSession) {
      return;  // another region has come meanwhile
    }
    const auto dropped =
        AtEnd([store = parts_.store, session = mapped.session] { store->ProcessGone(session); });
    for (const SlabId slab : mapped.slabs) {
      for (const std::shared_ptr<GpuDevice>& device : Devices()) {
        device->DropSlab(slab, [dropped] {});
      }
    }
  }

  [[nodiscard]] std::vector<std::shared_ptr<GpuDevice>> Devices() const {
    const absl::MutexLock lock(&mutex_);
    return DevicesLocked();
  }

  uint64_t AddCallLocked(const Caller& caller, uint64_t call_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const uint64_t number = ++last_call_;
    Call& call = calls_[number];
    call.session = caller.session;
    call.call_id = call_id;
    if (call_id != 0) {
      call_ids_[{caller.session, call_id}] = number;
    }
    return number;
  }

  void Keep(uint64_t number, std::shared_ptr<GpuCall> call) {
    bool cancelled = false;
    {
      const absl::MutexLock lock(&mutex_);
      const auto found = calls_.find(number);
      if (found != calls_.end()) {  // else it has ended already
        found->second.call = call;
        cancelled = found->second.cancelled || shut_;
      }
    }
    if (cancelled) {
      call->Cancel();
    }
  }

  void CallEnded(uint64_t number) {
    std::vector<std::function<void(bool)>> cancels;
    {
      const absl::MutexLock lock(&mutex_);
      const auto call = calls_.find(number);
      cancels = std::move(call->second.cancels);
      const auto id = call_ids_.find({call->second.session, call->second.call_id});
      if (id != call_ids_.end() && id->second == number) {
        call_ids_.erase(id);
      }
      calls_.erase(call);
    }
    for (const std::function<void(bool)>& cancel : cancels) {
      cancel(true);
    }
  }

  const GpuHandoff::Options options_;
  const GpuHandoff::Parts parts_;
  std::atomic<uint64_t> gets_{0};
  std::atomic<uint64_t> puts_{0};
  std::atomic<uint64_t> loaded_bytes_{0};
  std::atomic<uint64_t> saved_bytes_{0};

  TenantSlabs slabs_;
  SessionMemory memory_;

  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<GpuDevice>> devices_ ABSL_GUARDED_BY(mutex_);  // by uuid
  std::map<RegionKey, Region> regions_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Call> calls_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<SessionId, uint64_t>, uint64_t> call_ids_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_call_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_region_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t next_device_ ABSL_GUARDED_BY(mutex_) = 0;
  bool shut_ ABSL_GUARDED_BY(mutex_) = false;
};

class GpuHandoffDoor final : public GpuHandoff {
 public:
  GpuHandoffDoor(const Options& options, const Parts& parts)
      : handoff_(std::make_shared<Handoff>(options, parts)) {}
  GpuHandoffDoor(const GpuHandoffDoor&) = delete;
  GpuHandoffDoor& operator=(const GpuHandoffDoor&) = delete;
  ~GpuHandoffDoor() override { handoff_->Shut(); }

  void RegisterRegion(const Caller& caller,
                      GpuRegionSpec spec,
                      std::function<void(absl::StatusOr<GpuRegionGrant>)> done) override {
    handoff_->RegisterRegion(caller, std::move(spec), std::move(done));
  }
  [[nodiscard]] bool HasRegion(SessionId session, uint32_t region_id) const override {
    return handoff_->HasRegion(session, region_id);
  }
  void UnregisterRegion(SessionId session,
                        uint32_t region_id,
                        std::function<void()> done) override {
    handoff_->UnregisterRegion(session, region_id, std::move(done));
  }
  void Get(const Caller& caller,
           GetCall call,
           std::vector<GpuOrder> orders,
           std::function<void(absl::StatusOr<GetResult>)> done) override {
    handoff_->Get(caller, std::move(call), std::move(orders), std::move(done));
  }
  void Put(const Caller& caller,
           PutCall call,
           const GpuOrder& order,
           std::function<void(absl::StatusOr<PutResult>)> done) override {
    handoff_->Put(caller, std::move(call), order, std::move(done));
  }
  bool CancelCall(const Caller& caller, uint64_t call_id, std::function<void(bool)> done) override {
    return handoff_->CancelCall(caller, call_id, std::move(done));
  }
  void CloseSession(SessionId session, std::function<void()> done) override {
    handoff_->CloseSession(session, std::move(done));
  }
  bool SlabRetired(SessionId session, SlabId slab) override {
    return handoff_->SlabRetired(session, slab);
  }
  void Tick() override { handoff_->Tick(); }
  [[nodiscard]] GpuFigures figures() const override { return handoff_->figures(); }

 private:
  const std::shared_ptr<Handoff> handoff_;
};

}  // namespace

std::unique_ptr<GpuHandoff> GpuHandoff::Create(const Options& options, const Parts& parts) {
  return std::make_unique<GpuHandoffDoor>(options, parts);
}

}  // namespace terrace
