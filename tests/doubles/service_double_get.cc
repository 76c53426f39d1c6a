// Get in its three deliveries, leases and Release, and calls in flight.
#include <algorithm>
#include <cstring>

#include "tests/doubles/request_limits.h"
#include "tests/doubles/service_double.h"

namespace terrace::doubles {
namespace {

constexpr absl::Duration kServerCap = absl::Seconds(30);
constexpr int kReleasesPerCall = 1024;

absl::Duration DeadlineOf(const Caller& caller, absl::Duration from) {
  const absl::Duration wanted =
      caller.deadline == absl::ZeroDuration() ? kServerCap : caller.deadline;
  return from + std::min(wanted, kServerCap);
}

}  // namespace

// What a get has delivered so far: budgets are spent in the order of the keys.
struct ServiceDouble::GetRun {
  const Caller& caller;
  const v1::GetRequest& request;
  v1::GetReply* reply;
  Lease lease{};
  uint64_t lease_budget = 0;
  bool inline_full = false;
  bool leases_full = false;
};

absl::Status ServiceDouble::CheckDelivery(const Caller& caller, const v1::GetRequest& request) {
  if (absl::Status status = CheckGet(request); !status.ok()) {
    return status;
  }
  const Session* session = SessionOf(caller);
  if (request.delivery() == v1::DELIVERY_LEASE) {
    if (absl::Status status = Require(v1::FEATURE_LEASES, "DELIVERY_LEASE"); !status.ok()) {
      return status;
    }
    if (session == nullptr || !session->leases) {
      return absl::FailedPreconditionError("delivery: DELIVERY_LEASE needs a session with a pidfd");
    }
  }
  if (request.delivery() != v1::DELIVERY_REGION) {
    return absl::OkStatus();
  }
  if (session == nullptr) {
    return absl::FailedPreconditionError("delivery: DELIVERY_REGION needs a session");
  }
  for (const v1::RegionBlocks& blocks : request.regions()) {
    const auto it = session->regions.find(blocks.region_id());
    if (it == session->regions.end()) {
      return absl::NotFoundError("regions.region_id: not registered in this session");
    }
    if (it->second.read_only) {
      return absl::FailedPreconditionError("regions.region_id: registered as read-only");
    }
  }
  return absl::OkStatus();
}

void ServiceDouble::AwaitKeys(const std::vector<BlockName>& names, absl::Duration deadline) {
  for (const BlockName& name : names) {
    while (storing_.contains(name) && Step()) {
    }
    BeginRead(name);
  }
  Settle();
  while (clock_.Now() < deadline) {
    std::optional<absl::Duration> next;
    for (const BlockName& name : names) {
      const auto it = blocks_.find(name);
      if (it != blocks_.end() && it->second.arrives) {
        next = std::min(next.value_or(*it->second.arrives), *it->second.arrives);
      }
    }
    if (!next) {
      return;
    }
    WaitUntil(std::min(*next, deadline));
  }
}

v1::GetOutcome ServiceDouble::Verify(const BlockName& name, const GetRun& run) {
  uint32_t tier = 0;
  const v1::KeyState state = StateOf(name, &tier);
  if (const auto fault = get_faults_.find(name);
      fault != get_faults_.end() && state != v1::KEY_STATE_MISS) {
    const v1::GetOutcome outcome = fault->second;
    get_faults_.erase(fault);
    if (outcome == v1::GET_OUTCOME_CORRUPT) {
      Remove(name);
    }
    return outcome;
  }
  if (state != v1::KEY_STATE_READY) {
    const bool late = run.request.wait_pending() != 0 && state != v1::KEY_STATE_MISS;
    return late ? v1::GET_OUTCOME_DEADLINE : v1::GET_OUTCOME_MISS;
  }
  Block& block = blocks_.at(name);
  if (std::memcmp(Bytes(*block.slot), block.payload.data(), block.payload.size()) != 0) {
    Remove(name);
    return v1::GET_OUTCOME_CORRUPT;
  }
  block.touch = next_touch_;
  return v1::GET_OUTCOME_OK;
}

v1::GetOutcome ServiceDouble::DeliverInto(const RegionDouble& region,
                                          uint32_t index,
                                          const std::string& payload) {
  if (index >= region.geometry.block_count() || payload.size() > region.payload_bytes) {
    return v1::GET_OUTCOME_INVALID;
  }
  return region.Scatter(index, payload) ? v1::GET_OUTCOME_OK : v1::GET_OUTCOME_REGION_FAILED;
}

v1::GetOutcome ServiceDouble::Deliver(GetRun& run,
                                      const BlockName& name,
                                      const v1::RegionBlocks* into,
                                      int key) {
  if (const v1::GetOutcome outcome = Verify(name, run); outcome != v1::GET_OUTCOME_OK) {
    return outcome;
  }
  Block& block = blocks_.at(name);
  const uint64_t bytes = block.payload.size();
  if (into != nullptr) {
    const RegionDouble& region = SessionOf(run.caller)->regions.at(into->region_id());
    return DeliverInto(region, into->block_indexes(key), block.payload);
  }
  if (run.request.delivery() == v1::DELIVERY_LEASE) {
    run.leases_full = run.leases_full || bytes > run.lease_budget;
    if (run.leases_full) {
      return v1::GET_OUTCOME_BUSY;
    }
    run.lease_budget -= bytes;
    ++slabs_.at(block.slot->slab).slots[block.slot->slot].leases;
    run.lease.slots.emplace_back(*block.slot);
    run.lease.bytes.push_back(bytes);
    run.reply->add_slab_ids(block.slot->slab);
    run.reply->add_slab_offsets(OffsetOf(*block.slot));
    return v1::GET_OUTCOME_OK;
  }
  run.inline_full = run.inline_full || run.reply->payload().size() + bytes > kInlineBytes;
  if (run.inline_full) {
    return v1::GET_OUTCOME_TRIMMED;
  }
  run.reply->mutable_payload()->append(Bytes(*block.slot), bytes);
  return v1::GET_OUTCOME_OK;
}

absl::Status ServiceDouble::RunGet(const Caller& caller,
                                   const v1::GetRequest& request,
                                   absl::Duration deadline,
                                   v1::GetReply* reply) {
  std::vector<Looked> parts(static_cast<size_t>(request.parts_size()));
  std::vector<BlockName> known;
  for (size_t p = 0; p < parts.size(); ++p) {
    if (absl::Status status = LookUp(caller, request.parts(static_cast<int>(p)), &parts[p]);
        !status.ok()) {
      return status;
    }
    for (size_t i = 0; i < parts[p].names.size(); ++i) {
      if (parts[p].ruled.held[i]) {
        known.push_back(parts[p].names[i]);
      }
    }
  }
  if (request.wait_pending() != 0) {
    AwaitKeys(known, deadline);
  }
  GetRun run{.caller = caller, .request = request, .reply = reply};
  run.lease_budget =
      LeaseLimit(caller.tenant) - std::min(LeaseLimit(caller.tenant), LeasedBytes(caller.session));
  for (size_t p = 0; p < parts.size(); ++p) {
    const bool to_region = request.delivery() == v1::DELIVERY_REGION;
    const v1::RegionBlocks* into = to_region ? &request.regions(static_cast<int>(p)) : nullptr;
    bool behind_miss = false;  // of a chain, what lies there could not be used
    for (size_t i = 0; i < parts[p].names.size(); ++i) {
      const bool valid = parts[p].states[i] != v1::KEY_STATE_INVALID;
      const bool opened = OpenedBy(caller, parts[p].names[i].namespace_digest) != nullptr;
      v1::GetOutcome outcome = valid ? v1::GET_OUTCOME_MISS : v1::GET_OUTCOME_INVALID;
      uint64_t bytes = 0;
      if (valid && opened && !behind_miss) {
        outcome = Deliver(run, parts[p].names[i], into, static_cast<int>(i));
      }
      if (outcome == v1::GET_OUTCOME_OK) {
        bytes = blocks_.at(parts[p].names[i]).payload.size();
      }
      behind_miss = behind_miss ||
                    (parts[p].ruled.rule == v1::RULE_PREFIX && outcome == v1::GET_OUTCOME_MISS);
      if (outcome != v1::GET_OUTCOME_OK && request.delivery() == v1::DELIVERY_LEASE) {
        run.lease.slots.emplace_back(std::nullopt);
        run.lease.bytes.push_back(0);
        reply->add_slab_ids(0);
        reply->add_slab_offsets(0);
      }
      reply->mutable_outcomes()->push_back(static_cast<char>(outcome));
      reply->add_payload_bytes(static_cast<uint32_t>(bytes));
    }
  }
  reply->set_boot_id(boot_id_);
  const bool leased =
      std::any_of(run.lease.slots.begin(), run.lease.slots.end(),
                  [](const std::optional<SlotRef>& slot) { return slot.has_value(); });
  if (leased) {
    reply->set_lease_id(NewId());
    run.lease.tenant = caller.tenant;
    run.lease.session = caller.session;
    leases_[reply->lease_id()] = std::move(run.lease);
  }
  return absl::OkStatus();
}

absl::Status ServiceDouble::Get(const Caller& caller,
                                const v1::GetRequest& request,
                                v1::GetReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckDelivery(caller, request); !status.ok()) {
    return status;
  }
  return RunGet(caller, request, DeadlineOf(caller, clock_.Now()), reply);
}

absl::Status ServiceDouble::GetStream(const Caller& caller,
                                      const v1::GetRequest& request,
                                      std::vector<v1::GetStreamReply>* stream) {
  if (absl::Status status = Require(v1::FEATURE_STREAMS, "GetStream"); !status.ok()) {
    return status;
  }
  if (request.delivery() != v1::DELIVERY_INLINE && request.delivery() != v1::DELIVERY_UNSPECIFIED) {
    return Invalid("delivery", "DELIVERY_INLINE in a stream");
  }
  v1::GetReply reply;
  if (absl::Status status = Get(caller, request, &reply); !status.ok()) {
    return status;
  }
  const std::string payload = std::move(*reply.mutable_payload());
  reply.clear_payload();
  *stream->emplace_back().mutable_header() = reply;
  for (size_t at = 0; at < payload.size(); at += kChunkBytes) {
    stream->emplace_back().set_chunk(payload.substr(at, kChunkBytes));
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- leases

uint64_t ServiceDouble::LeaseLimit(const std::string& tenant) const {
  const auto it = tenants_.find(tenant);
  const bool limited = it != tenants_.end() && it->second.limit != 0;
  return (limited ? std::min(it->second.limit, options_.dram_bytes) : options_.dram_bytes) / 4;
}

uint64_t ServiceDouble::LeasedBytes(uint64_t session) const {
  uint64_t total = 0;
  for (const auto& [id, lease] : leases_) {
    for (size_t i = 0; lease.session == session && i < lease.slots.size(); ++i) {
      total += lease.slots[i] ? lease.bytes[i] : 0;
    }
  }
  return total;
}

bool ServiceDouble::EndLease(Lease& lease, size_t position) {
  if (position >= lease.slots.size() || !lease.slots[position]) {
    return false;
  }
  const SlotRef ref = *lease.slots[position];
  --slabs_.at(ref.slab).slots[ref.slot].leases;
  lease.slots[position].reset();
  return true;
}

bool ServiceDouble::ReleaseLease(const Caller& caller, const v1::LeaseRelease& release) {
  const auto it = leases_.find(release.lease_id());
  if (it == leases_.end() || it->second.tenant != caller.tenant ||
      it->second.session != caller.session) {
    return false;
  }
  Lease& lease = it->second;
  bool shrank = false;
  if (release.key_positions().empty()) {
    for (size_t i = 0; i < lease.slots.size(); ++i) {
      shrank = EndLease(lease, i) || shrank;
    }
  }
  for (const uint32_t position : release.key_positions()) {
    shrank = EndLease(lease, position) || shrank;
  }
  if (std::none_of(lease.slots.begin(), lease.slots.end(),
                   [](const auto& slot) { return slot.has_value(); })) {
    leases_.erase(it);
  }
  return shrank;
}

absl::Status ServiceDouble::Release(const Caller& caller,
                                    const v1::ReleaseRequest& request,
                                    v1::ReleaseReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (request.leases_size() > kReleasesPerCall) {
    return Invalid("leases", "at most 1024");
  }
  if (request.hold_ids_size() > kReleasesPerCall) {
    return Invalid("hold_ids", "at most 1024");
  }
  uint32_t released = 0;
  for (const v1::LeaseRelease& release : request.leases()) {
    released += ReleaseLease(caller, release) ? 1 : 0;
  }
  for (const std::string& id : request.hold_ids()) {
    const auto it = holds_.find(id);
    if (it != holds_.end() && it->second.tenant == caller.tenant) {
      holds_.erase(it);
      ++released;
    }
  }
  reply->set_boot_id(boot_id_);
  reply->set_released(released);
  reply->set_not_found(static_cast<uint32_t>(request.leases_size() + request.hold_ids_size()) -
                       released);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- calls in flight

void ServiceDouble::SubmitGet(const Caller& caller,
                              v1::GetRequest request,
                              std::function<void(absl::Status, const v1::GetReply&)> done) {
  absl::Status status = Admit(caller);
  if (status.ok()) {
    status = CheckDelivery(caller, request);
  }
  if (!status.ok()) {
    done(status, {});
    return;
  }
  PendingCall call;
  call.caller = caller;
  call.deadline = DeadlineOf(caller, clock_.Now());
  call.get = std::move(request);
  call.get_done = std::move(done);
  calls_.push_back(std::move(call));
}

void ServiceDouble::SubmitPut(const Caller& caller,
                              v1::PutRequest request,
                              std::function<void(absl::Status, const v1::PutReply&)> done) {
  PendingCall call;
  call.caller = caller;
  call.put = std::move(request);
  if (absl::Status status = PreparePut(call); !status.ok()) {
    done(status, {});
    return;
  }
  call.put_done = std::move(done);
  calls_.push_back(std::move(call));
}

bool ServiceDouble::Step() {
  if (calls_.empty()) {
    return false;
  }
  PendingCall call = std::move(calls_.front());
  calls_.pop_front();
  ++next_touch_;
  Settle();
  if (call.get) {
    v1::GetReply reply;
    const bool late = clock_.Now() >= call.deadline;
    absl::Status status = absl::OkStatus();
    if (late) {
      AnswerAll(*call.get, v1::GET_OUTCOME_DEADLINE, &reply);
    } else {
      status = RunGet(call.caller, *call.get, call.deadline, &reply);
    }
    call.get_done(status, reply);
  } else {
    v1::PutReply reply;
    const absl::Status status = RunPut(call, &reply);
    call.put_done(status, reply);
  }
  return true;
}

void ServiceDouble::AnswerAll(const v1::GetRequest& request,
                              v1::GetOutcome outcome,
                              v1::GetReply* reply) const {
  const size_t keys = KeyCount(request.parts());
  reply->set_boot_id(boot_id_);
  reply->mutable_outcomes()->assign(keys, static_cast<char>(outcome));
  for (size_t i = 0; i < keys; ++i) {
    reply->add_payload_bytes(0);
  }
}

bool ServiceDouble::CancelCall(const Caller& caller) {
  for (auto it = calls_.begin(); it != calls_.end(); ++it) {
    if (it->caller.session != caller.session || it->caller.call_id != caller.call_id) {
      continue;
    }
    const PendingCall call = std::move(*it);
    calls_.erase(it);
    if (call.get) {
      v1::GetReply reply;
      AnswerAll(*call.get, v1::GET_OUTCOME_CANCELLED, &reply);
      call.get_done(absl::OkStatus(), reply);
    } else {
      v1::PutReply reply;
      AbandonPut(call, v1::REASON_CANCELLED, &reply);
      call.put_done(absl::OkStatus(), reply);
    }
    return true;
  }
  return std::erase_if(streams_, [&](const auto& stream) {
           return stream.second.session == caller.session &&
                  stream.second.call_id == caller.call_id;
         }) != 0;
}

absl::Status ServiceDouble::Cancel(const Caller& caller,
                                   const v1::CancelRequest& request,
                                   v1::CancelReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_CANCEL, "Cancel"); !status.ok()) {
    return status;
  }
  if ((request.ticket() == 0) == (request.call_id() == 0)) {
    return Invalid("ticket", "exactly one of ticket and call_id");
  }
  bool found = false;
  const auto it = tickets_.find(request.ticket());
  if (it != tickets_.end() && it->second.tenant == caller.tenant &&
      it->second.state == v1::TICKET_STATE_RUNNING) {
    found = true;
    CancelTicket(it->second);
  }
  if (request.call_id() != 0 && caller.session != 0) {
    Caller cancelled = caller;
    cancelled.call_id = request.call_id();
    found = CancelCall(cancelled) || found;
  }
  reply->set_boot_id(boot_id_);
  reply->set_found(found);
  return absl::OkStatus();
}

void ServiceDouble::CancelTicket(TicketRecord& ticket) {
  ticket.state = v1::TICKET_STATE_CANCELLED;
  ticket.ended = clock_.Now();
  for (const BlockName& name : ticket.waiting) {
    const bool wanted = std::any_of(tickets_.begin(), tickets_.end(), [&](const auto& other) {
      return other.second.state == v1::TICKET_STATE_RUNNING && other.second.waiting.contains(name);
    });
    if (const auto block = blocks_.find(name); !wanted && block != blocks_.end()) {
      block->second.arrives.reset();
    }
  }
}

}  // namespace terrace::doubles
