// Peers, sessions, regions, namespaces, the passing of time and restarts; the verbs of the data
// path lie in service_double_*.cc.
#include "tests/doubles/service_double.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "tests/doubles/request_limits.h"

namespace terrace::doubles {
namespace {

constexpr v1::Feature kAllFeatures[] = {
    v1::FEATURE_LEASES, v1::FEATURE_HOST_REGIONS, v1::FEATURE_HOLDS,      v1::FEATURE_PREFETCH,
    v1::FEATURE_PINS,   v1::FEATURE_DELETE,       v1::FEATURE_CLEAR,      v1::FEATURE_STREAMS,
    v1::FEATURE_WATCH,  v1::FEATURE_LOCAL_LEVELS, v1::FEATURE_POOL_LEVEL, v1::FEATURE_CANCEL,
};

// Any injective text of the record will do: a digest of the double means nothing outside it.
std::string TextOf(const v1::NamespaceRecord& record, bool of_family) {
  std::string text = absl::StrCat(record.model(), "\1", record.weights_revision(), "\1",
                                  record.kv_dtype(), "\1", record.quantization(), "\1",
                                  record.engine_format(), "\1", record.hash_algorithm(), "\1",
                                  record.hash_seed(), "\1", std::max(1U, record.shard_count()));
  absl::StrAppend(&text, "\1", record.sharding() == 0 ? v1::SHARDING_SHARDED : record.sharding(),
                  "\1", record.parallel());
  if (!of_family) {
    absl::StrAppend(&text, "\1", record.layout(), "\1", record.block_tokens(), "\1",
                    record.block_bytes(), "\1", record.group(), "\1", record.group_kind(), "\1",
                    record.shard_rank());
    absl::StrAppend(&text, "\1", record.key_suffix());
  }
  const std::map<std::string, std::string> sorted(record.labels().begin(), record.labels().end());
  for (const auto& [key, value] : sorted) {
    absl::StrAppend(&text, "\2", key, "\3", value);
  }
  return text;
}

uint64_t Fnv1a(std::string_view text, uint64_t hash) {
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

std::string DigestOf(std::string_view tenant, std::string_view text) {
  const std::string all = absl::StrCat(std::string(tenant), "\4", std::string(text));
  return absl::StrCat(absl::Hex(Fnv1a(all, 0xcbf29ce484222325), absl::kZeroPad16)).substr(0, 8) +
         absl::StrCat(absl::Hex(Fnv1a(all, 0x9e3779b97f4a7c15), absl::kZeroPad16)).substr(0, 8);
}

std::string FirstDifference(const v1::NamespaceRecord& a, const v1::NamespaceRecord& b) {
  const google::protobuf::Descriptor* type = a.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    v1::NamespaceRecord only_a;
    v1::NamespaceRecord only_b;
    only_a.CopyFrom(a);
    only_b.CopyFrom(b);
    for (int k = 0; k < type->field_count(); ++k) {
      if (k != i) {
        only_a.GetReflection()->ClearField(&only_a, type->field(k));
        only_b.GetReflection()->ClearField(&only_b, type->field(k));
      }
    }
    if (TextOf(only_a, false) != TextOf(only_b, false)) {
      return type->field(i)->name();
    }
  }
  return "";
}

}  // namespace

ServiceDouble::ServiceDouble(ManualClock& clock, Options options)
    : clock_(clock), options_(std::move(options)) {}

// ---------------------------------------------------------------- peers

Caller ServiceDouble::Connect(std::string tenant) {
  const uint64_t id = next_session_++;
  sessions_[id].tenant = tenant;
  return {.tenant = std::move(tenant), .session = id};
}

ServiceDouble::Session* ServiceDouble::SessionOf(const Caller& caller) {
  const auto it = sessions_.find(caller.session);
  return it == sessions_.end() ? nullptr : &it->second;
}

absl::Status ServiceDouble::Admit(const Caller& caller) {
  ++next_touch_;
  Settle();
  if (caller.session == 0) {
    return absl::OkStatus();
  }
  const Session* session = SessionOf(caller);
  if (session == nullptr || !session->connected) {
    return absl::UnavailableError("the connection is closed");
  }
  return session->greeted ? absl::OkStatus() : absl::FailedPreconditionError("Hello comes first");
}

absl::Status ServiceDouble::Require(v1::Feature feature, std::string_view verb) const {
  return Has(feature)
             ? absl::OkStatus()
             : absl::UnimplementedError(absl::StrCat(std::string(verb), ": not in the features"));
}

std::string ServiceDouble::NewId() {
  return absl::StrCat(absl::Hex(next_id_++, absl::kZeroPad16));  // 16 characters are 16 bytes
}

void ServiceDouble::EndCallsOf(uint64_t session) {
  std::deque<PendingCall> ended;
  for (auto it = calls_.begin(); it != calls_.end();) {
    if (it->caller.session == session) {
      ended.push_back(std::move(*it));
      it = calls_.erase(it);
    } else {
      ++it;
    }
  }
  for (const PendingCall& call : ended) {
    for (const BlockName& name : call.mine) {
      storing_.erase(name);
    }
    if (call.put_done) {
      call.put_done(absl::UnavailableError("the connection is closed"), {});
    }
    if (call.get_done) {
      call.get_done(absl::UnavailableError("the connection is closed"), {});
    }
  }
}

void ServiceDouble::Disconnect(const Caller& caller) {
  Session* session = SessionOf(caller);
  if (session == nullptr) {
    return;
  }
  session->connected = false;
  session->regions.clear();
  EndCallsOf(caller.session);
  std::erase_if(holds_, [&](const auto& hold) { return hold.second.session == caller.session; });
  std::erase_if(streams_,
                [&](const auto& stream) { return stream.second.session == caller.session; });
}

void ServiceDouble::ProcessGone(const Caller& caller) {
  Disconnect(caller);
  for (auto it = leases_.begin(); it != leases_.end();) {
    if (it->second.session != caller.session) {
      ++it;
      continue;
    }
    for (size_t i = 0; i < it->second.slots.size(); ++i) {
      EndLease(it->second, i);
    }
    it = leases_.erase(it);
  }
  sessions_.erase(caller.session);
}

// ---------------------------------------------------------------- session.proto

absl::Status ServiceDouble::Hello(const Caller& caller,
                                  const v1::HelloRequest& request,
                                  v1::HelloReply* reply) {
  Settle();
  Session* session = SessionOf(caller);
  if (session == nullptr) {
    return absl::FailedPreconditionError("Hello: on a session only");
  }
  if (request.protocol_major() != 1) {
    return absl::FailedPreconditionError("protocol_major: 1 to 1 is supported");
  }
  const bool name_ok = std::all_of(
      request.client_name().begin(), request.client_name().end(),
      [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
  if (!name_ok || request.client_name().size() > 64) {
    return Invalid("client_name", "[A-Za-z0-9._-], at most 64 bytes");
  }
  session->greeted = true;
  session->leases = request.pidfd() && Has(v1::FEATURE_LEASES);
  reply->set_boot_id(boot_id_);
  reply->set_protocol_major(1);
  reply->set_server_version("double");
  for (const v1::Feature feature : kAllFeatures) {
    const bool absent_tier =
        (feature == v1::FEATURE_LOCAL_LEVELS && HighestLevel() < v1::LEVEL_LOCAL_WRITTEN) ||
        (feature == v1::FEATURE_POOL_LEVEL && HighestLevel() < v1::LEVEL_POOL);
    if (Has(feature) && !absent_tier) {
      reply->add_features(feature);
    }
  }
  reply->set_leases(session->leases);
  reply->set_lease_limit_bytes(session->leases ? options_.dram_bytes / 4 : 0);
  reply->set_max_keys(kKeysPerCall);
  reply->set_max_message_bytes(kMessageBytes);
  reply->set_max_calls_in_flight(256);
  reply->set_session_id(caller.session);
  reply->set_tenant(caller.tenant);
  return absl::OkStatus();
}

absl::Status ServiceDouble::RegisterRegion(const Caller& caller,
                                           const v1::RegisterRegionRequest& request,
                                           SharedBytes memory,
                                           v1::RegisterRegionReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (caller.session == 0) {
    return absl::FailedPreconditionError("RegisterRegion: on a session only");
  }
  if (request.kind() != v1::REGION_KIND_UNSPECIFIED && request.kind() != v1::REGION_KIND_HOST) {
    return absl::UnimplementedError("kind: REGION_KIND_HOST only");
  }
  if (absl::Status status = Require(v1::FEATURE_HOST_REGIONS, "RegisterRegion"); !status.ok()) {
    return status;
  }
  if (request.region_id() == 0) {
    return Invalid("region_id", "from 1");
  }
  Session& session = *SessionOf(caller);
  if (session.regions.contains(request.region_id())) {
    return absl::AlreadyExistsError("region_id: in use in this session");
  }
  if (request.offset() % 4096 != 0) {
    return Invalid("offset", "a multiple of 4096");
  }
  if (request.bytes() == 0 || memory == nullptr || request.offset() > memory->size() ||
      request.bytes() > memory->size() - request.offset()) {
    return Invalid("bytes", "at most what the descriptor holds");
  }
  const absl::StatusOr<uint64_t> payload = CheckGeometry(request.geometry(), request.bytes());
  if (!payload.ok()) {
    return payload.status();
  }
  session.regions[request.region_id()] = {.memory = std::move(memory),
                                          .offset = request.offset(),
                                          .bytes = request.bytes(),
                                          .geometry = request.geometry(),
                                          .payload_bytes = *payload,
                                          .read_only = request.read_only()};
  reply->set_boot_id(boot_id_);
  reply->set_payload_bytes(*payload);
  return absl::OkStatus();
}

absl::Status ServiceDouble::UnregisterRegion(const Caller& caller,
                                             const v1::UnregisterRegionRequest& request,
                                             v1::UnregisterRegionReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (caller.session != 0) {
    SessionOf(caller)->regions.erase(request.region_id());
  }
  reply->set_boot_id(boot_id_);
  return absl::OkStatus();
}

absl::Status ServiceDouble::MapSlab(const Caller& caller,
                                    const v1::MapSlabRequest& request,
                                    v1::MapSlabReply* reply,
                                    std::shared_ptr<const std::vector<char>>* memory) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  const Session* session = SessionOf(caller);
  if (session == nullptr || !session->leases) {
    return absl::FailedPreconditionError("MapSlab: needs a session with a pidfd");
  }
  const auto it = slabs_.find(request.slab_id());
  if (it == slabs_.end() || it->second.tenant != caller.tenant) {
    return absl::NotFoundError("slab_id: no slab of this tenant");
  }
  *memory = it->second.memory;
  reply->set_boot_id(boot_id_);
  reply->set_slab_bytes(it->second.memory->size());
  return absl::OkStatus();
}

// ---------------------------------------------------------------- namespaces

ServiceDouble::Namespace* ServiceDouble::OpenedBy(const Caller& caller, const std::string& digest) {
  const auto it = namespaces_.find(digest);
  const bool ours =
      it != namespaces_.end() && it->second.open && it->second.tenant == caller.tenant;
  return ours ? &it->second : nullptr;
}

absl::Status ServiceDouble::OpenNamespace(const Caller& caller,
                                          const v1::OpenNamespaceRequest& request,
                                          v1::OpenNamespaceReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (!request.has_record()) {
    return Invalid("record", "required");
  }
  if (absl::Status status = CheckRecord(request.record()); !status.ok()) {
    return status;
  }
  const std::string text = TextOf(request.record(), /*of_family=*/false);
  const std::string digest =
      collide_with_.empty() ? DigestOf(caller.tenant, text) : std::exchange(collide_with_, "");
  Namespace& known = namespaces_[digest];
  if (known.tenant.empty()) {
    known.tenant = caller.tenant;
    known.record = request.record();
    known.family = DigestOf(caller.tenant, TextOf(request.record(), /*of_family=*/true));
  } else if (TextOf(known.record, false) != text) {
    return absl::FailedPreconditionError(
        absl::StrCat("record.", FirstDifference(known.record, request.record()),
                     ": differs from the known record"));
  }
  known.open = true;
  reply->set_boot_id(boot_id_);
  reply->set_namespace_digest(digest);
  reply->set_generation(known.generation);
  reply->set_family_digest(known.family);
  return absl::OkStatus();
}

absl::Status ServiceDouble::ClearNamespace(const Caller& caller,
                                           const v1::ClearNamespaceRequest& request,
                                           v1::ClearNamespaceReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_CLEAR, "ClearNamespace"); !status.ok()) {
    return status;
  }
  Namespace* opened = OpenedBy(caller, request.namespace_digest());
  if (opened == nullptr) {
    return absl::NotFoundError("namespace_digest: not opened");
  }
  ++opened->generation;
  for (auto it = blocks_.begin(); it != blocks_.end();) {
    if (it->first.namespace_digest == request.namespace_digest()) {
      ReportToTickets(it->first, std::nullopt);
      FreeSlot(it->second);
      it = blocks_.erase(it);
    } else {
      ++it;
    }
  }
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_CLEARED);
  event.set_namespace_digest(request.namespace_digest());
  PublishEvent(caller.tenant, event);
  reply->set_boot_id(boot_id_);
  reply->set_generation(opened->generation);
  return absl::OkStatus();
}

BlockName ServiceDouble::NameOf(const std::string& digest,
                                std::string_view salt,
                                std::string_view key) const {
  const auto it = namespaces_.find(digest);
  const uint64_t generation = it == namespaces_.end() ? 0 : it->second.generation;
  return {digest, generation, std::string(salt), std::string(key)};
}

// ---------------------------------------------------------------- time and restarts

void ServiceDouble::Settle() {
  const absl::Duration now = clock_.Now();
  while (true) {
    Block* due = nullptr;
    BlockName name;
    for (auto& [candidate, block] : blocks_) {
      const bool earlier = block.arrives && *block.arrives <= now &&
                           (due == nullptr || *block.arrives < *due->arrives);
      if (earlier) {
        due = &block;
        name = candidate;
      }
    }
    Expire(due == nullptr ? now : *due->arrives);
    if (due == nullptr) {
      return;
    }
    Arrive(name, *due);
  }
}

void ServiceDouble::Expire(absl::Duration now) {
  for (auto& [id, ticket] : tickets_) {
    if (ticket.state == v1::TICKET_STATE_RUNNING && ticket.deadline <= now) {
      ticket.state = v1::TICKET_STATE_EXPIRED;
      ticket.ended = ticket.deadline;
    }
  }
  std::erase_if(tickets_, [&](const auto& ticket) {
    return ticket.second.ended && *ticket.second.ended + absl::Seconds(60) < now;
  });
  std::erase_if(holds_, [&](const auto& hold) { return hold.second.until <= now; });
  for (auto& [name, block] : blocks_) {
    if (block.pinned_until && *block.pinned_until <= now) {
      block.pinned_until.reset();
    }
  }
}

void ServiceDouble::WaitUntil(absl::Duration time) {
  const absl::Duration now = clock_.Now();
  if (time > now) {
    clock_.Advance(time - now);
  }
  Settle();
}

void ServiceDouble::Restart(Survives level) {
  while (!sessions_.empty()) {
    const uint64_t id = sessions_.begin()->first;
    EndCallsOf(id);
    sessions_.erase(id);
  }
  EndCallsOf(0);
  holds_.clear();
  leases_.clear();
  tickets_.clear();
  streams_.clear();
  slabs_.clear();
  storing_.clear();
  const v1::Level needed =
      level == Survives::kWritten ? v1::LEVEL_LOCAL_WRITTEN : v1::LEVEL_LOCAL_SYNCED;
  std::erase_if(blocks_, [&](const auto& block) { return block.second.level < needed; });
  for (auto& [name, block] : blocks_) {
    block.slot.reset();
    block.arrives.reset();
  }
  for (auto& [digest, known] : namespaces_) {
    known.open = false;
  }
  for (auto& [name, tenant] : tenants_) {
    tenant.events.clear();
    tenant.newest = 0;
  }
  ++boot_id_;
  ++publisher_id_;
}

}  // namespace terrace::doubles
