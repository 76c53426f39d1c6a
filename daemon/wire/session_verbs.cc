// The verbs of a session: those of the contract, which end in Calls, and those that only a session has.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "daemon/wire/call_status.h"
#include "daemon/wire/message_bytes.h"
#include "daemon/wire/peer_process.h"
#include "daemon/wire/session.h"

namespace terrace {
namespace {

constexpr uint32_t kProtocolMajor = 1;
constexpr uint32_t kProtocolMinor = 0;
constexpr size_t kMaxNameBytes = 64;
constexpr uint32_t kMaxPlanes = 1024;
constexpr uint32_t kMaxSegments = 1024;
constexpr uint64_t kRegionAlignment = 4096;
// Of one watch at a time, every kWatchPollInterval and whenever the peer takes what waited.
constexpr int kWatchSteps = 16;
// No events are added to more than so much that the peer has not taken.
constexpr uint64_t kWatchBacklogBytes = uint64_t{1} << 20;

// Whether the verb may read or write memory of the client until the store says that it is over.
template <typename Request>
bool TouchesMemory(const Request& /*request*/) {
  return false;
}
bool TouchesMemory(const v1::GetRequest& request) {
  return request.delivery() == v1::DELIVERY_REGION;
}
bool TouchesMemory(const v1::PutRequest& request) { return request.has_region(); }
// The answers of these say that memory is free again, and must not come early.
bool TouchesMemory(const v1::CancelRequest& /*request*/) { return true; }
bool TouchesMemory(const v1::UnregisterRegionRequest& /*request*/) { return true; }

// Payload that the reply may carry.
template <typename Request>
uint64_t InlineBytes(const Request& /*request*/) {
  return 0;
}
uint64_t InlineBytes(const v1::GetRequest& request) {
  const bool is_inline = request.delivery() == v1::DELIVERY_INLINE ||
                         request.delivery() == v1::DELIVERY_UNSPECIFIED;
  return is_inline ? kMaxInlineBytes : 0;
}

bool IsName(const std::string& text) {
  return text.size() <= kMaxNameBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
         });
}

absl::Status CheckHello(const v1::HelloRequest& request) {
  if (request.protocol_major() != kProtocolMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat("protocol_major: this server speaks ", kProtocolMajor, " to ", kProtocolMajor));
  }
  if (!IsName(request.client_name())) {
    return InvalidField("client_name", "[A-Za-z0-9._-], at most 64 bytes");
  }
  if (request.client_version().size() > kMaxNameBytes) {
    return InvalidField("client_version", "at most 64 bytes");
  }
  return absl::OkStatus();
}

absl::Status CheckGeometry(const v1::Geometry& geometry) {
  if (geometry.block_count() == 0) {
    return InvalidField("geometry.block_count", "from 1");
  }
  if (geometry.planes_size() < 1 || geometry.planes_size() > static_cast<int>(kMaxPlanes)) {
    return InvalidField("geometry.planes", "1 to 1024");
  }
  for (int i = 0; i < geometry.planes_size(); ++i) {
    const int segments = geometry.planes(i).segments_size();
    if (segments < 1 || segments > static_cast<int>(kMaxSegments)) {
      return InvalidField(absl::StrCat("geometry.planes[", i, "].segments"), "1 to 1024");
    }
  }
  return absl::OkStatus();
}

RegionGeometry GeometryFrom(const v1::Geometry& geometry) {
  RegionGeometry out;
  out.block_count = geometry.block_count();
  out.planes.reserve(static_cast<size_t>(geometry.planes_size()));
  for (const v1::Plane& plane : geometry.planes()) {
    RegionPlane& to = out.planes.emplace_back();
    to.offset = plane.offset();
    to.block_stride = plane.block_stride();
    to.segments.reserve(static_cast<size_t>(plane.segments_size()));
    for (const v1::Segment& segment : plane.segments()) {
      to.segments.push_back({segment.offset(), segment.bytes()});
    }
  }
  return out;
}

bool IsGpu(const v1::RegisterRegionRequest& request) {
  return request.kind() == v1::REGION_KIND_CUDA_IPC || request.kind() == v1::REGION_KIND_CUDA_VMM;
}

absl::Status CheckHostMemory(const v1::RegisterRegionRequest& request) {
  if (request.offset() % kRegionAlignment != 0) {
    return InvalidField("offset", "a multiple of 4096");
  }
  if (!request.handle().empty() || !request.device_uuid().empty()) {
    return InvalidField("handle", "only with GPU regions");
  }
  if (request.allocation_bytes() != 0 || request.planes_per_layer() != 0 ||
      request.canary_block() != 0) {
    return InvalidField("allocation_bytes",
                        "with planes_per_layer and canary_block only with GPU regions");
  }
  return absl::OkStatus();
}

absl::Status CheckGpuMemory(const v1::RegisterRegionRequest& request) {
  const size_t handle_bytes =
      request.kind() == v1::REGION_KIND_CUDA_IPC ? cuda::kIpcHandleBytes : 0;
  if (request.handle().size() != handle_bytes) {
    return InvalidField("handle", absl::StrCat(handle_bytes, " bytes with this kind"));
  }
  if (request.device_uuid().size() != sizeof(cuda::DeviceUuid::bytes)) {
    return InvalidField("device_uuid", "16 bytes");
  }
  if (request.read_only()) {
    return InvalidField("read_only", "only with host regions");
  }
  return absl::OkStatus();
}

// What must hold before the descriptor is looked at.
absl::Status CheckRegion(const v1::RegisterRegionRequest& request) {
  if (!v1::RegionKind_IsValid(request.kind())) {
    return InvalidField("kind", "unknown value");
  }
  if (request.region_id() == 0) {
    return InvalidField("region_id", "from 1");
  }
  if (request.bytes() == 0) {
    return InvalidField("bytes", "from 1");
  }
  if (absl::Status status = IsGpu(request) ? CheckGpuMemory(request) : CheckHostMemory(request);
      !status.ok()) {
    return status;
  }
  return CheckGeometry(request.geometry());
}

// What CheckRegion has passed.
GpuRegionSpec GpuSpecFrom(const v1::RegisterRegionRequest& request) {
  GpuRegionSpec spec;
  spec.region_id = request.region_id();
  std::memcpy(spec.device.bytes, request.device_uuid().data(), sizeof(spec.device.bytes));
  GpuRegionMemory& memory = spec.memory;
  memory.kind =
      request.kind() == v1::REGION_KIND_CUDA_IPC ? GpuMemoryKind::kIpc : GpuMemoryKind::kShared;
  if (memory.kind == GpuMemoryKind::kIpc) {
    std::memcpy(memory.handle.reserved, request.handle().data(), sizeof(memory.handle.reserved));
  }
  memory.allocation_bytes = request.allocation_bytes();
  memory.offset = request.offset();
  memory.bytes = request.bytes();
  memory.geometry = GeometryFrom(request.geometry());
  memory.planes_per_layer = request.planes_per_layer() == 0
                                ? static_cast<uint32_t>(request.geometry().planes_size())
                                : request.planes_per_layer();
  if (request.canary_block() != 0) {
    memory.canary_block = request.canary_block() - 1;
  }
  return spec;
}

// Memory only: a mapped file of a hung mount would hold up the copy threads. F_GET_SEALS knows shared memory and huge
// pages, sealed or not, from all else without asking any file system.
absl::StatusOr<GuardedRegion> MapRegion(const v1::RegisterRegionRequest& request, const Descriptor& fd) {
  struct stat found {};
  if (fcntl(fd.get(), F_GET_SEALS) < 0 || fstat(fd.get(), &found) != 0) {
    return InvalidField("descriptor", "a memfd or a file on tmpfs or hugetlbfs");
  }
  const auto size = static_cast<uint64_t>(std::max<off_t>(0, found.st_size));
  if (request.bytes() > size || request.offset() > size - request.bytes()) {
    return InvalidField("bytes", "at most what the descriptor holds from offset on");
  }
  const MapAccess access = request.read_only() ? MapAccess::kReadOnly : MapAccess::kReadWrite;
  return GuardedRegion::Map(fd.get(), request.offset(), request.bytes(), access);
}

}  // namespace

absl::Status Session::Parse(const Frame& frame, google::protobuf::Message* out) {
  absl::Status status = ParseMessage(frame.payload, out);
  if (IsUndecodable(status)) {
    faults_.Undecodable(shared_->clock.Now());
  }
  return status;
}

template <typename Request, typename Reply, typename Verb>
bool Session::Run(Frame& frame, google::protobuf::Arena& arena, Verb verb) {
  if (!frame.descriptors.empty()) {
    return Break(frame.header, "descriptor_count");
  }
  const std::shared_ptr<SessionCall> call = Begin(frame);
  if (call == nullptr) {
    return true;
  }
  auto* request = google::protobuf::Arena::CreateMessage<Request>(&arena);
  if (absl::Status status = Parse(frame, request); !status.ok()) {
    Finish(*call, status, v1::PingReply());
    return true;
  }
  if (TouchesMemory(*request)) {
    Unbound(*call);
  }
  if (const uint64_t bytes = InlineBytes(*request); bytes != 0) {
    Expect(*call, bytes);
  }
  CallDone<Reply> done = [call](const absl::Status& status, Reply& reply) {
    call->session->Finish(*call, status, reply);
  };
  std::invoke(verb, shared_->calls, call->context, *request, std::move(done));
  return true;
}

bool Session::Dispatch(Frame& frame, google::protobuf::Arena& arena) {
  switch (frame.header.method) {
    case v1::METHOD_HELLO:
      return Hello(frame, arena);
    case v1::METHOD_OPEN_NAMESPACE:
      return Run<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>(frame, arena, &Calls::OpenNamespace);
    case v1::METHOD_CLEAR_NAMESPACE:
      return Run<v1::ClearNamespaceRequest, v1::ClearNamespaceReply>(
          frame, arena, &Calls::ClearNamespace);
    case v1::METHOD_REGISTER_REGION:
      return RegisterRegion(frame, arena);
    case v1::METHOD_UNREGISTER_REGION:
      return UnregisterRegion(frame, arena);
    case v1::METHOD_PROBE:
      return Run<v1::ProbeRequest, v1::ProbeReply>(frame, arena, &Calls::Probe);
    case v1::METHOD_PREFETCH:
      return Run<v1::PrefetchRequest, v1::PrefetchReply>(frame, arena, &Calls::Prefetch);
    case v1::METHOD_TICKET:
      return Run<v1::TicketRequest, v1::TicketReply>(frame, arena, &Calls::Ticket);
    case v1::METHOD_GET:
      return Run<v1::GetRequest, v1::GetReply>(frame, arena, &Calls::Get);
    case v1::METHOD_RELEASE:
      return Run<v1::ReleaseRequest, v1::ReleaseReply>(frame, arena, &Calls::Release);
    case v1::METHOD_PUT:
      return Run<v1::PutRequest, v1::PutReply>(frame, arena, &Calls::Put);
    case v1::METHOD_FLUSH:
      return Run<v1::FlushRequest, v1::FlushReply>(frame, arena, &Calls::Flush);
    case v1::METHOD_DELETE:
      return Run<v1::DeleteRequest, v1::DeleteReply>(frame, arena, &Calls::Delete);
    case v1::METHOD_PIN:
      return Run<v1::PinRequest, v1::PinReply>(frame, arena, &Calls::Pin);
    case v1::METHOD_UNPIN:
      return Run<v1::UnpinRequest, v1::UnpinReply>(frame, arena, &Calls::Unpin);
    case v1::METHOD_CANCEL:
      return Run<v1::CancelRequest, v1::CancelReply>(
          frame, arena,
          [this](Calls& calls, CallContext& context, v1::CancelRequest& request,
                 CallDone<v1::CancelReply> done) {
            if (request.ticket() == 0 && watches_.erase(request.call_id()) != 0) {
              v1::CancelReply reply;
              reply.set_boot_id(shared_->boot_id);
              reply.set_found(true);
              return done(absl::OkStatus(), reply);
            }
            calls.Cancel(context, request, std::move(done));
          });
    case v1::METHOD_WATCH:
      return WatchEvents(frame, arena);
    case v1::METHOD_MAP_SLAB:
      return MapSlab(frame, arena);
    case v1::METHOD_PING:
      return Ping(frame, arena);
    default:
      if (!frame.descriptors.empty()) {
        return Break(frame.header, "descriptor_count");
      }
      ReplyNow(frame.header, NotImplemented("method"), v1::PingReply());
      return true;
  }
}

bool Session::Hello(Frame& frame, google::protobuf::Arena& arena) {
  auto* request = google::protobuf::Arena::CreateMessage<v1::HelloRequest>(&arena);
  absl::Status status = Parse(frame, request);
  if (status.ok()) {
    if (frame.descriptors.size() != (request->pidfd() ? 1U : 0U)) {
      return Break(frame.header, "descriptor_count");
    }
    status = CheckHello(*request);
  }
  if (status.ok() && id_ != kNoSession) {
    status = frame.payload == hello_
                 ? absl::OkStatus()
                 : absl::AlreadyExistsError("Hello: said before, and differently");
  } else if (status.ok() && !AcceptHello(frame, *request)) {
    return Break(frame.header, "descriptor");
  }
  ReplyNow(frame.header, status, HelloReplyNow());
  if (status.ok()) {
    // From now on, so that no push goes before the reply.
    shared_->directory.Add(id_, weak_from_this());
  }
  return true;
}

bool Session::AcceptHello(Frame& frame, const v1::HelloRequest& request) {
  Descriptor passed;
  if (request.pidfd()) {
    passed = std::move(frame.descriptors.front());
  }
  absl::StatusOr<PidDescriptor> process =
      ProveProcess(socket_.get(), credentials_, std::move(passed));
  if (!process.ok()) {
    return false;
  }
  process_ = *std::move(process);
  leases_ = process_.valid();
  new_process_ = leases_;
  id_ = shared_->store.OpenSession(tenant_,
                                   leases_ ? BlockStore::LeaseRight::kProvenByPidfd
                                           : BlockStore::LeaseRight::kNone);
  hello_.assign(frame.payload);
  knows_workers_ = std::count(request.features().begin(), request.features().end(),
                              v1::FEATURE_GPU_WORKERS) != 0;
  return true;
}

v1::HelloReply Session::HelloReplyNow() const {
  v1::HelloReply reply;
  reply.set_boot_id(shared_->boot_id);
  reply.set_protocol_major(kProtocolMajor);
  reply.set_protocol_minor(kProtocolMinor);
  reply.set_server_version(shared_->version);
  for (const v1::Feature feature : ServedFeatures(shared_->store, shared_->gpu != nullptr)) {
    reply.add_features(feature);
  }
  reply.set_leases(leases_);
  reply.set_lease_limit_bytes(leases_ ? shared_->store.LeaseLimitBytes(id_) : 0);
  reply.set_max_keys(kMaxKeysPerCall);
  reply.set_max_message_bytes(shared_->limits.message_bytes);
  reply.set_max_calls_in_flight(shared_->limits.calls_in_flight_per_uid);
  reply.set_session_id(static_cast<uint64_t>(id_));
  reply.set_tenant(tenant_alias_);
  return reply;
}

bool Session::RegisterRegion(Frame& frame, google::protobuf::Arena& arena) {
  auto* request = google::protobuf::Arena::CreateMessage<v1::RegisterRegionRequest>(&arena);
  v1::RegisterRegionReply reply;
  absl::Status status = Parse(frame, request);
  if (status.ok()) {
    const size_t wanted = request->kind() == v1::REGION_KIND_CUDA_IPC ? 0 : 1;
    if (frame.descriptors.size() != wanted) {
      return Break(frame.header, "descriptor_count");
    }
    status = IsGpu(*request) && shared_->gpu == nullptr ? NotImplemented("GPU regions")
                                                        : CheckRegion(*request);
  }
  if (status.ok() && IsGpu(*request)) {
    RegisterGpuRegion(frame, *request);
    return true;
  }
  if (status.ok() && shared_->gpu != nullptr && shared_->gpu->HasRegion(id_, request->region_id())) {
    status = absl::AlreadyExistsError("region_id: in use in this session");
  }
  RegionGeometry geometry;
  if (status.ok()) {
    geometry = GeometryFrom(request->geometry());
    status = ValidateGeometry(geometry, request->bytes()).status();
  }
  if (status.ok()) {
    absl::StatusOr<GuardedRegion> memory = MapRegion(*request, frame.descriptors.front());
    status = memory.status();
    if (status.ok()) {
      const absl::StatusOr<uint64_t> bytes = shared_->store.RegisterRegion(
          id_,
          {request->region_id(), *std::move(memory), std::move(geometry), request->read_only()});
      status = bytes.status();
      reply.set_payload_bytes(bytes.ok() ? *bytes : 0);
      if (status.ok()) {
        host_regions_.insert(request->region_id());
      }
    }
  }
  reply.set_boot_id(shared_->boot_id);
  ReplyNow(frame.header, status, reply);
  return true;
}

void Session::RegisterGpuRegion(Frame& frame, v1::RegisterRegionRequest& request) {
  const std::shared_ptr<SessionCall> call = Begin(frame);
  if (call == nullptr) {
    return;
  }
  if (host_regions_.contains(request.region_id())) {
    return Finish(*call, absl::AlreadyExistsError("region_id: in use in this session"), v1::PingReply());
  }
  Unbound(*call);
  GpuRegionSpec spec = GpuSpecFrom(request);
  if (!frame.descriptors.empty()) {
    spec.memory.descriptor = std::move(frame.descriptors.front());
  }
  if (knows_workers_) {
    spec.memory.tell_owner = TellerOfWorkers(request.region_id());
  }
  shared_->gpu->RegisterRegion(
      call->context.caller, std::move(spec),
      [call, boot_id = shared_->boot_id](absl::StatusOr<GpuRegionGrant> grant) {
        v1::RegisterRegionReply reply;
        reply.set_boot_id(boot_id);
        if (!grant.ok()) {
          return call->session->Finish(*call, grant.status(), reply);
        }
        reply.set_payload_bytes(grant->payload_bytes);
        reply.set_progress_slots(kProgressSlots);
        call->session->Finish(*call, absl::OkStatus(), reply, std::move(grant->progress_page));
      });
}

std::function<void(Descriptor)> Session::TellerOfWorkers(uint32_t region_id) {
  return [weak = weak_from_this(), shared = shared_, region_id](Descriptor pidfd) {
    if (!shared->gate.Enter()) {
      return;
    }
    if (const std::shared_ptr<Session> session = weak.lock(); session != nullptr) {
      v1::GpuWorkerNotice notice;
      notice.set_boot_id(shared->boot_id);
      notice.set_region_id(region_id);
      session->Push(v1::METHOD_GPU_WORKER_NOTICE, notice, std::move(pidfd));
    }
    shared->gate.Leave();
  };
}

bool Session::UnregisterRegion(Frame& frame, google::protobuf::Arena& arena) {
  return Run<v1::UnregisterRegionRequest, v1::UnregisterRegionReply>(
      frame,
      arena,
      [this](Calls& /*calls*/,
             CallContext& /*context*/,
             const v1::UnregisterRegionRequest& request,
             CallDone<v1::UnregisterRegionReply> done) {
        if (request.region_id() == 0) {
          return ::terrace::Refuse(InvalidField("region_id", "from 1"), done);
        }
        auto gone = [boot_id = shared_->boot_id, done = std::move(done)] {
          v1::UnregisterRegionReply reply;
          reply.set_boot_id(boot_id);
          done(absl::OkStatus(), reply);
        };
        if (shared_->gpu != nullptr && shared_->gpu->HasRegion(id_, request.region_id())) {
          return shared_->gpu->UnregisterRegion(id_, request.region_id(), std::move(gone));
        }
        host_regions_.erase(request.region_id());
        shared_->store.UnregisterRegion(id_, request.region_id(), std::move(gone));
      });
}

bool Session::MapSlab(Frame& frame, google::protobuf::Arena& arena) {
  if (!frame.descriptors.empty()) {
    return Break(frame.header, "descriptor_count");
  }
  auto* request = google::protobuf::Arena::CreateMessage<v1::MapSlabRequest>(&arena);
  v1::MapSlabReply reply;
  Descriptor descriptor;
  absl::Status status = Parse(frame, request);
  if (status.ok()) {
    absl::StatusOr<BlockStore::SlabGrant> grant =
        shared_->store.MapSlab(id_, SlabId{request->slab_id()});
    status = grant.status();
    if (grant.ok()) {
      reply.set_slab_bytes(grant->bytes);
      descriptor = std::move(grant->descriptor);
    }
  }
  reply.set_boot_id(shared_->boot_id);
  ReplyNow(frame.header, status, reply, std::move(descriptor));
  return true;
}

bool Session::WatchEvents(Frame& frame, google::protobuf::Arena& arena) {
  if (!frame.descriptors.empty()) {
    return Break(frame.header, "descriptor_count");
  }
  auto* request = google::protobuf::Arena::CreateMessage<v1::WatchRequest>(&arena);
  absl::Status status = Parse(frame, request);
  if (status.ok() && watches_.contains(frame.header.call_id)) {
    status = absl::AlreadyExistsError("call_id: a watch of this session has it");
  }
  v1::WatchReply reply;
  if (status.ok()) {
    CallContext context;
    context.caller = {tenant_, id_};
    context.call_id = frame.header.call_id;
    absl::StatusOr<std::unique_ptr<WatchFeed>> feed =
        shared_->calls.Watch(context, *request, shared_->clock);
    status = feed.status();
    if (feed.ok()) {
      reply.set_boot_id(shared_->boot_id);
      reply.set_publisher_id((*feed)->publisher_id());
      reply.set_call_id(context.call_id);
      watches_.emplace(context.call_id, *std::move(feed));
    }
  }
  ReplyNow(frame.header, status, reply);
  return true;
}

void Session::PushEvents() {
  for (const auto& [call_id, feed] : watches_) {
    for (int i = 0; i < kWatchSteps && socket_.backlog() <= kWatchBacklogBytes; ++i) {
      v1::WatchReply message;
      const WatchFeed::Step step = feed->Next(&message);
      if (step == WatchFeed::Step::kIdle) {
        break;
      }
      if (step == WatchFeed::Step::kMessage) {
        Push(v1::METHOD_WATCH, message);
      }
    }
  }
}

bool Session::Ping(Frame& frame, google::protobuf::Arena& arena) {
  if (!frame.descriptors.empty()) {
    return Break(frame.header, "descriptor_count");
  }
  auto* request = google::protobuf::Arena::CreateMessage<v1::PingRequest>(&arena);
  const absl::Status status = Parse(frame, request);
  v1::PingReply reply;
  reply.set_boot_id(shared_->boot_id);
  ReplyNow(frame.header, status, reply);
  return true;
}

}  // namespace terrace
