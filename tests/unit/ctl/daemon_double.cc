#include "tests/unit/ctl/daemon_double.h"

#include <cstdlib>
#include <filesystem>

#include "absl/time/clock.h"

#include "tools/ctl/command_line.h"

namespace terrace::ctl {
namespace {

constexpr size_t kMaxInline = size_t{3} << 20;

std::string KeyAt(const v1::Part& part, size_t i) {
  return part.keys().substr(i * part.key_bytes(), part.key_bytes());
}
size_t KeyCount(const v1::Part& part) {
  return part.key_bytes() == 0 ? 0 : part.keys().size() / part.key_bytes();
}
std::string Identity(const v1::Part& part, size_t i) {
  return part.namespace_digest() + part.salt() + "/" + KeyAt(part, i);
}

}  // namespace

grpc::Status DaemonDouble::State::Enter(const std::string& method,
                                        const google::protobuf::Message& request,
                                        const grpc::ServerContext* context) {
  bool hang = false;
  {
    const absl::MutexLock lock(&mutex);
    requests[method] = request.SerializeAsString();
    hang = hanging == method;
    const auto failure = failures.find(method);
    if (failure != failures.end()) {
      return failure->second;
    }
  }
  while (hang && !context->IsCancelled()) {
    absl::SleepFor(absl::Milliseconds(1));  // a hung daemon; ends with the client's deadline
  }
  return grpc::Status::OK;
}

class DaemonDouble::CacheService final : public v1::Cache::Service {
 public:
  explicit CacheService(State& state) : state_(state) {}

  grpc::Status OpenNamespace(grpc::ServerContext* context,
                             const v1::OpenNamespaceRequest* request,
                             v1::OpenNamespaceReply* reply) override {
    if (grpc::Status status = state_.Enter("OpenNamespace", *request, context); !status.ok()) {
      return status;
    }
    if (request->record().model().empty()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "record.model is required"};
    }
    const std::string digest = KeyOfText(request->record().SerializeAsString()).substr(0, 16);
    const absl::MutexLock lock(&state_.mutex);
    state_.namespaces[digest] = request->record();
    reply->set_boot_id(kBootId);
    reply->set_namespace_digest(digest);
    reply->set_generation(1);
    return grpc::Status::OK;
  }

  grpc::Status Probe(grpc::ServerContext* context,
                     const v1::ProbeRequest* request,
                     v1::ProbeReply* reply) override {
    if (grpc::Status status = state_.Enter("Probe", *request, context); !status.ok()) {
      return status;
    }
    const absl::MutexLock lock(&state_.mutex);
    reply->set_boot_id(kBootId);
    uint32_t hits = 0;
    const v1::Part& part = request->parts(0);
    for (size_t i = 0; i < KeyCount(part); ++i) {
      const bool held = state_.blocks.count(Identity(part, i)) > 0;
      hits += held ? 1 : 0;
      reply->mutable_states()->push_back(held ? '\x01' : '\x00');
    }
    reply->add_part_hits(hits);
    if (request->hold_ms() > 0 && hits > 0) {
      reply->set_hold_id(std::string(16, '\x77'));
      reply->set_hold_ms(request->hold_ms());
    }
    return grpc::Status::OK;
  }

  grpc::Status Put(grpc::ServerContext* context,
                   const v1::PutRequest* request,
                   v1::PutReply* reply) override {
    if (grpc::Status status = state_.Enter("Put", *request, context); !status.ok()) {
      return status;
    }
    Store(*request, request->payload(), reply);
    return grpc::Status::OK;
  }

  grpc::Status PutStream(grpc::ServerContext* context,
                         grpc::ServerReader<v1::PutStreamRequest>* reader,
                         v1::PutReply* reply) override {
    v1::PutStreamRequest message;
    reader->Read(&message);
    const v1::PutRequest request = message.request();
    if (grpc::Status status = state_.Enter("PutStream", request, context); !status.ok()) {
      return status;
    }
    std::string payload;
    while (reader->Read(&message)) {
      if (message.chunk().size() > (size_t{1} << 20)) {
        return {grpc::StatusCode::INVALID_ARGUMENT, "chunk over 1 MiB"};
      }
      payload += message.chunk();
    }
    Store(request, payload, reply);
    return grpc::Status::OK;
  }

  grpc::Status Get(grpc::ServerContext* context,
                   const v1::GetRequest* request,
                   v1::GetReply* reply) override {
    if (grpc::Status status = state_.Enter("Get", *request, context); !status.ok()) {
      return status;
    }
    Read(*request, kMaxInline, reply);
    return grpc::Status::OK;
  }

  grpc::Status GetStream(grpc::ServerContext* context,
                         const v1::GetRequest* request,
                         grpc::ServerWriter<v1::GetStreamReply>* writer) override {
    if (grpc::Status status = state_.Enter("GetStream", *request, context); !status.ok()) {
      return status;
    }
    v1::GetReply reply;
    Read(*request, ~size_t{0}, &reply);
    const std::string payload = reply.payload();
    v1::GetStreamReply message;
    reply.clear_payload();
    *message.mutable_header() = reply;
    writer->Write(message);
    message.Clear();
    for (size_t at = 0; at < payload.size(); at += size_t{1} << 20) {
      message.set_chunk(payload.substr(at, size_t{1} << 20));
      writer->Write(message);
    }
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context,
                     const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchReply>* writer) override {
    if (grpc::Status status = state_.Enter("Watch", *request, context); !status.ok()) {
      return status;
    }
    const auto add = [](v1::WatchReply* message, v1::EventKind kind, uint64_t sequence) {
      message->set_publisher_id(0xab);
      v1::Event* event = message->add_events();
      event->set_kind(kind);
      event->set_sequence(sequence);
      return event;
    };
    const auto name = [](v1::Event* event, size_t keys) {
      event->set_namespace_digest(std::string(16, 'n'));
      event->set_key_bytes(32);
      event->set_keys(std::string(32 * keys, 'a'));
      event->set_tier("g2");
    };
    v1::WatchReply message;
    message.add_namespaces()->set_namespace_digest(std::string(16, 'n'));
    message.mutable_namespaces(0)->mutable_record()->set_model("m");
    v1::Event* stored = add(&message, v1::EVENT_KIND_STORED, 7);
    name(stored, 2);
    stored->set_parent(std::string(32, 'p'));
    stored->set_first_token(32);
    add(&message, v1::EVENT_KIND_SNAPSHOT_END, 7);
    writer->Write(message);
    message.Clear();
    add(&message, v1::EVENT_KIND_HEARTBEAT, 7);
    writer->Write(message);
    message.Clear();
    name(add(&message, v1::EVENT_KIND_REMOVED, 8), 1);
    add(&message, v1::EVENT_KIND_CLEARED, 9)->set_namespace_digest(std::string(16, 'n'));
    add(&message, v1::EVENT_KIND_GAP, 12);
    writer->Write(message);
    while (!context->IsCancelled()) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    return grpc::Status::OK;
  }

  grpc::Status Prefetch(grpc::ServerContext* context,
                        const v1::PrefetchRequest* request,
                        v1::PrefetchReply* reply) override {
    if (grpc::Status status = state_.Enter("Prefetch", *request, context); !status.ok()) {
      return status;
    }
    reply->set_boot_id(kBootId);
    reply->set_ticket(42);
    reply->set_keys_moving(static_cast<uint32_t>(KeyCount(request->parts(0))));
    return grpc::Status::OK;
  }

  grpc::Status Ticket(grpc::ServerContext* context,
                      const v1::TicketRequest* request,
                      v1::TicketReply* reply) override {
    if (grpc::Status status = state_.Enter("Ticket", *request, context); !status.ok()) {
      return status;
    }
    reply->set_boot_id(kBootId);
    reply->set_state(v1::TICKET_STATE_DONE);
    reply->set_keys_total(1);
    reply->set_keys_arrived(1);
    return grpc::Status::OK;
  }

  grpc::Status Delete(grpc::ServerContext* context,
                      const v1::DeleteRequest* request,
                      v1::DeleteReply* reply) override {
    if (grpc::Status status = state_.Enter("Delete", *request, context); !status.ok()) {
      return status;
    }
    const absl::MutexLock lock(&state_.mutex);
    reply->set_boot_id(kBootId);
    for (size_t i = 0; i < KeyCount(request->part()); ++i) {
      const size_t erased = state_.blocks.erase(Identity(request->part(), i));
      reply->set_deleted(reply->deleted() + static_cast<uint32_t>(erased));
      reply->set_not_found(reply->not_found() + static_cast<uint32_t>(1 - erased));
    }
    return grpc::Status::OK;
  }

  grpc::Status Pin(grpc::ServerContext* context,
                   const v1::PinRequest* request,
                   v1::PinReply* reply) override {
    if (grpc::Status status = state_.Enter("Pin", *request, context); !status.ok()) {
      return status;
    }
    const absl::MutexLock lock(&state_.mutex);
    reply->set_boot_id(kBootId);
    for (size_t i = 0; i < KeyCount(request->part()); ++i) {
      const bool held = state_.blocks.count(Identity(request->part(), i)) > 0;
      reply->mutable_reasons()->push_back(
          static_cast<char>(held ? v1::REASON_NONE : v1::REASON_NOT_PRESENT));
    }
    return grpc::Status::OK;
  }

  grpc::Status Unpin(grpc::ServerContext* context,
                     const v1::UnpinRequest* request,
                     v1::UnpinReply* reply) override {
    if (grpc::Status status = state_.Enter("Unpin", *request, context); !status.ok()) {
      return status;
    }
    reply->set_boot_id(kBootId);
    reply->set_unpinned(1);
    return grpc::Status::OK;
  }

 private:
  void Store(const v1::PutRequest& request, const std::string& payload, v1::PutReply* reply) {
    const absl::MutexLock lock(&state_.mutex);
    reply->set_boot_id(kBootId);
    size_t at = 0;
    for (size_t i = 0; i < KeyCount(request.part()); ++i) {
      const size_t bytes = request.payload_bytes(static_cast<int>(i));
      const bool inserted =
          state_.blocks.emplace(Identity(request.part(), i), payload.substr(at, bytes)).second;
      at += bytes;
      reply->mutable_outcomes()->push_back(
          static_cast<char>(inserted ? v1::PUT_OUTCOME_STORED : v1::PUT_OUTCOME_DUPLICATE));
      reply->mutable_reasons()->push_back(static_cast<char>(v1::REASON_NONE));
      reply->mutable_levels()->push_back(static_cast<char>(v1::LEVEL_DRAM));
    }
  }

  void Read(const v1::GetRequest& request, size_t limit, v1::GetReply* reply) {
    const absl::MutexLock lock(&state_.mutex);
    reply->set_boot_id(kBootId);
    const v1::Part& part = request.parts(0);
    for (size_t i = 0; i < KeyCount(part); ++i) {
      const auto block = state_.blocks.find(Identity(part, i));
      v1::GetOutcome outcome = v1::GET_OUTCOME_MISS;
      if (block != state_.blocks.end()) {
        const bool fits = reply->payload().size() + block->second.size() <= limit;
        outcome = fits ? v1::GET_OUTCOME_OK : v1::GET_OUTCOME_TRIMMED;
      }
      const bool delivered = outcome == v1::GET_OUTCOME_OK;
      reply->mutable_outcomes()->push_back(static_cast<char>(outcome));
      reply->add_payload_bytes(delivered ? static_cast<uint32_t>(block->second.size()) : 0);
      if (delivered) {
        reply->mutable_payload()->append(block->second);
      }
    }
  }

  State& state_;
};

class DaemonDouble::AdminService final : public v1::Admin::Service {
 public:
  explicit AdminService(State& state) : state_(state) {}

  grpc::Status Status(grpc::ServerContext* context,
                      const v1::StatusRequest* request,
                      v1::StatusReply* reply) override {
    {
      const absl::MutexLock lock(&state_.mutex);
      reply->set_boot_id(kBootId);
      reply->set_version(std::string(Version()));
      reply->set_uptime_ms(65'000);
      reply->set_blocks(state_.blocks.size());
      reply->add_features(v1::FEATURE_LEASES);
    }
    return state_.Enter("Status", *request, context);
  }
  grpc::Status Tiers(grpc::ServerContext* context,
                     const v1::TiersRequest* request,
                     v1::TiersReply* reply) override {
    reply->set_boot_id(kBootId);
    v1::TierStatus* tier = reply->add_tiers();
    tier->set_name("g2");
    tier->set_kind("dram");
    tier->set_state("ready");
    tier->set_capacity_bytes(1 << 30);
    v1::TierStatus* local = reply->add_tiers();
    local->set_name("g3");
    local->set_kind("local");
    local->set_state("ready");
    v1::DriveStatus* drive = local->add_drives();
    drive->set_path("/drives/0");
    drive->set_state("ready");
    drive->set_direct(true);
    drive->set_blocks(17);
    drive = local->add_drives();
    drive->set_path("/drives/1");
    drive->set_state("away");
    drive->set_problem("no such folder");
    v1::TierStatus* shared = reply->add_tiers();
    shared->set_name("g4");
    shared->set_kind("shared");
    shared->set_state("suspended");
    shared->set_segments(12);
    return state_.Enter("Tiers", *request, context);
  }
  grpc::Status Pool(grpc::ServerContext* context,
                    const v1::PoolRequest* request,
                    v1::PoolReply* reply) override {
    reply->set_boot_id(kBootId);
    if (!request->tier().empty() && request->tier() != "g4") {
      return {grpc::StatusCode::NOT_FOUND, "tier: no shared one of this name"};
    }
    v1::PoolStatus* pool = reply->add_pools();
    pool->set_tier("g4");
    pool->set_state("suspended");
    pool->set_last_fault("the mount does not answer");
    pool->set_auth("encrypt");
    pool->set_forged(6);
    v1::PoolDrop* drop = pool->add_drops();
    drop->set_reason("busy");
    drop->set_blocks(3);
    pool->mutable_worker()->set_serving(true);
    pool->mutable_worker()->set_pid(4242);
    pool->mutable_worker()->set_stuck(1);
    v1::PoolNode* node = pool->add_nodes();
    node->set_node(std::string(16, '\1'));
    node->set_self(true);
    if (request->reclaim_bytes() > 4096) {  // no file is so small
      v1::PoolSegment* segment = pool->add_reclaim();
      segment->set_path("nodes/01/s1");
      segment->set_bytes(request->reclaim_bytes());
      segment->set_heat(1.25);
      pool->add_reclaim()->set_path("nodes/01/s2");
    }
    return state_.Enter("Pool", *request, context);
  }
  grpc::Status Tenants(grpc::ServerContext* context,
                       const v1::TenantsRequest* request,
                       v1::TenantsReply* reply) override {
    {
      const absl::MutexLock lock(&state_.mutex);
      reply->set_boot_id(kBootId);
      v1::TenantStatus* tenant = reply->add_tenants();
      tenant->set_tenant("default");
      tenant->set_guaranteed_bytes(state_.guaranteed);
      tenant->set_limit_bytes(state_.limit);
    }
    return state_.Enter("Tenants", *request, context);
  }
  grpc::Status Namespaces(grpc::ServerContext* context,
                          const v1::NamespacesRequest* request,
                          v1::NamespacesReply* reply) override {
    {
      const absl::MutexLock lock(&state_.mutex);
      reply->set_boot_id(kBootId);
      for (const auto& [digest, record] : state_.namespaces) {
        v1::NamespaceStatus* ns = reply->add_namespaces();
        ns->set_tenant("default");
        ns->set_namespace_digest(digest);
        *ns->mutable_record() = record;
      }
    }
    return state_.Enter("Namespaces", *request, context);
  }
  grpc::Status Explain(grpc::ServerContext* context,
                       const v1::ExplainRequest* request,
                       v1::ExplainReply* reply) override {
    reply->set_boot_id(kBootId);
    reply->set_text("It was never stored.");
    return state_.Enter("Explain", *request, context);
  }
  grpc::Status SetQuota(grpc::ServerContext* context,
                        const v1::SetQuotaRequest* request,
                        v1::SetQuotaReply* reply) override {
    {
      const absl::MutexLock lock(&state_.mutex);
      reply->set_boot_id(kBootId);
      state_.guaranteed = request->guaranteed_bytes();
      state_.limit = request->limit_bytes();
    }
    return state_.Enter("SetQuota", *request, context);
  }
  grpc::Status Evict(grpc::ServerContext* context,
                     const v1::EvictRequest* request,
                     v1::EvictReply* reply) override {
    reply->set_evicted_blocks(2);
    reply->set_used_bytes(request->target_used_bytes());
    return state_.Enter("Evict", *request, context);
  }
  grpc::Status Drain(grpc::ServerContext* context,
                     const v1::DrainRequest* request,
                     v1::DrainReply* /*reply*/) override {
    return state_.Enter("Drain", *request, context);
  }
  grpc::Status Verify(grpc::ServerContext* context,
                      const v1::VerifyRequest* request,
                      v1::VerifyReply* reply) override {
    {
      const absl::MutexLock lock(&state_.mutex);
      reply->set_blocks(state_.blocks.size());
      reply->set_corrupt(state_.corrupt);
    }
    return state_.Enter("Verify", *request, context);
  }
  grpc::Status Reload(grpc::ServerContext* context,
                      const v1::ReloadRequest* request,
                      v1::ReloadReply* reply) override {
    reply->add_changed("log.level");
    return state_.Enter("Reload", *request, context);
  }

 private:
  State& state_;
};

DaemonDouble::DaemonDouble()
    : cache_(std::make_unique<CacheService>(state_)),
      admin_(std::make_unique<AdminService>(state_)) {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/terrace-ctl-XXXXXX";
  dir_ = mkdtemp(pattern.data());
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + dir_ + "/terrace.sock", grpc::InsecureServerCredentials());
  builder.AddListeningPort("unix:" + dir_ + "/admin.sock", grpc::InsecureServerCredentials());
  builder.RegisterService(cache_.get());
  builder.RegisterService(admin_.get());
  server_ = builder.BuildAndStart();
}

DaemonDouble::~DaemonDouble() {
  if (server_ != nullptr) {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  }
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void DaemonDouble::Fail(const std::string& method, grpc::Status status) {
  const absl::MutexLock lock(&state_.mutex);
  state_.failures[method] = std::move(status);
}

void DaemonDouble::Hang(const std::string& method) {
  const absl::MutexLock lock(&state_.mutex);
  state_.hanging = method;
}

std::string DaemonDouble::LastRequest(const std::string& method) {
  const absl::MutexLock lock(&state_.mutex);
  return state_.requests[method];
}

void DaemonDouble::SetCorrupt(uint64_t corrupt) {
  const absl::MutexLock lock(&state_.mutex);
  state_.corrupt = corrupt;
}

}  // namespace terrace::ctl
