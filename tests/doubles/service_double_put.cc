// Put, Flush, Delete, Pin and Unpin.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"

#include "tests/doubles/request_limits.h"
#include "tests/doubles/service_double.h"

namespace terrace::doubles {
namespace {

constexpr absl::Duration kServerCap = absl::Seconds(30);
constexpr uint32_t kMaxPinS = 2'592'000;

}  // namespace

// A put while it runs.
struct ServiceDouble::PutRun {
  const PendingCall& call;
  const v1::PutRequest& request;
  const Namespace& into;
  Looked looked{};
  std::vector<uint64_t> sizes{};
  size_t inline_at = 0;  // where the present key's inline payload begins
  const RegionDouble* region = nullptr;
  v1::PutReply* reply;
};

struct ServiceDouble::PutAnswer {
  v1::PutOutcome outcome = v1::PUT_OUTCOME_UNSPECIFIED;
  v1::Reason reason = v1::REASON_NONE;
  v1::Level level = v1::LEVEL_UNSPECIFIED;
};

v1::Level ServiceDouble::HighestLevel() const {
  if (options_.pool_tier) {
    return v1::LEVEL_POOL;
  }
  return options_.local_tier ? v1::LEVEL_LOCAL_SYNCED : v1::LEVEL_DRAM;
}

absl::Status ServiceDouble::PreparePut(PendingCall& call) {
  if (absl::Status status = Admit(call.caller); !status.ok()) {
    return status;
  }
  const v1::PutRequest& request = *call.put;
  if (absl::Status status = CheckPart(request.part(), "part"); !status.ok()) {
    return status;
  }
  const Namespace* into = OpenedBy(call.caller, request.part().namespace_digest());
  if (into == nullptr) {
    return absl::NotFoundError("part.namespace_digest: not opened");
  }
  if (absl::Status status = CheckPut(request, into->record.block_bytes()); !status.ok()) {
    return status;
  }
  if (request.wait_for() > HighestLevel()) {
    return absl::UnimplementedError("wait_for: not in the features");
  }
  if (request.has_region()) {
    const Session* session = SessionOf(call.caller);
    if (session == nullptr) {
      return absl::FailedPreconditionError("region: on a session only");
    }
    if (!session->regions.contains(request.region().region_id())) {
      return absl::NotFoundError("region.region_id: not registered in this session");
    }
  }
  Looked looked{};
  if (absl::Status status = LookUp(call.caller, request.part(), &looked); !status.ok()) {
    return status;
  }
  call.number = next_id_++;
  const absl::Duration wanted =
      call.caller.deadline == absl::ZeroDuration() ? kServerCap : call.caller.deadline;
  call.deadline = clock_.Now() + std::min(wanted, kServerCap);
  call.generation = into->generation;
  for (size_t i = 0; i < looked.names.size(); ++i) {
    const BlockName& name = looked.names[i];
    if (storing_.contains(name) && !call.mine.contains(name)) {
      call.joined.insert(name);
    } else if (looked.states[i] == v1::KEY_STATE_MISS) {
      call.mine.insert(name);
      storing_[name] = call.number;
    }
  }
  return absl::OkStatus();
}

absl::Status ServiceDouble::Put(const Caller& caller,
                                const v1::PutRequest& request,
                                v1::PutReply* reply) {
  PendingCall call;
  call.caller = caller;
  call.put = request;
  if (absl::Status status = PreparePut(call); !status.ok()) {
    return status;
  }
  while (!call.joined.empty() &&
         Step()) {  // single flight: the earlier put of the same key ends first
    std::erase_if(call.joined, [&](const BlockName& name) { return blocks_.contains(name); });
    const bool over = std::none_of(call.joined.begin(), call.joined.end(),
                                   [&](const BlockName& name) { return storing_.contains(name); });
    if (over) {
      break;
    }
  }
  return RunPut(call, reply);
}

void ServiceDouble::AbandonPut(const PendingCall& call, v1::Reason reason, v1::PutReply* reply) {
  for (const BlockName& name : call.mine) {
    storing_.erase(name);
  }
  const size_t keys = call.put->part().keys().size() / KeyBytes(call.put->part());
  reply->set_boot_id(boot_id_);
  reply->mutable_outcomes()->assign(keys, static_cast<char>(v1::PUT_OUTCOME_FAILED));
  reply->mutable_reasons()->assign(keys, static_cast<char>(reason));
  reply->mutable_levels()->assign(keys, static_cast<char>(v1::LEVEL_UNSPECIFIED));
}

absl::Status ServiceDouble::RunPut(const PendingCall& call, v1::PutReply* reply) {
  if (clock_.Now() >= call.deadline) {
    AbandonPut(call, v1::REASON_DEADLINE, reply);
    return absl::OkStatus();
  }
  const v1::PutRequest& request = *call.put;
  const Namespace& into = namespaces_.at(request.part().namespace_digest());
  if (into.generation != call.generation) {
    AbandonPut(call, v1::REASON_CLEARED, reply);
    return absl::OkStatus();
  }
  PutRun run{.call = call, .request = request, .into = into, .reply = reply};
  if (absl::Status status = LookUp(call.caller, request.part(), &run.looked); !status.ok()) {
    return status;
  }
  run.sizes = PayloadSizes(request, into.record.block_bytes());
  if (request.has_region()) {
    const auto& regions = SessionOf(call.caller)->regions;
    const auto it = regions.find(request.region().region_id());
    if (it == regions.end()) {  // unregistered meanwhile
      AbandonPut(call, v1::REASON_REGION_FAILED, reply);
      return absl::OkStatus();
    }
    run.region = &it->second;
  }
  for (size_t i = 0; i < run.looked.keys.size(); ++i) {
    const PutAnswer answer = PutKey(run, i);
    run.inline_at += request.has_region() ? 0 : run.sizes[i];
    storing_.erase(run.looked.names[i]);
    reply->mutable_outcomes()->push_back(static_cast<char>(answer.outcome));
    reply->mutable_reasons()->push_back(static_cast<char>(answer.reason));
    reply->mutable_levels()->push_back(static_cast<char>(answer.level));
  }
  reply->set_boot_id(boot_id_);
  return absl::OkStatus();
}

bool ServiceDouble::ReadSource(const PutRun& run,
                               size_t index,
                               std::string* payload,
                               v1::Reason* reason) {
  const uint64_t bytes = run.sizes[index];
  *reason = v1::REASON_INVALID;
  if (bytes < 1 || bytes > run.into.record.block_bytes()) {
    return false;
  }
  if (run.region == nullptr) {
    *payload = run.request.payload().substr(run.inline_at, bytes);
    return true;
  }
  const uint32_t block = run.request.region().block_indexes(static_cast<int>(index));
  if (block >= run.region->geometry.block_count() || bytes > run.region->payload_bytes) {
    return false;
  }
  *reason = v1::REASON_REGION_FAILED;
  return run.region->Gather(block, bytes, payload);
}

ServiceDouble::PutAnswer ServiceDouble::PutKey(const PutRun& run, size_t index) {
  const BlockName& name = run.looked.names[index];
  if (run.looked.states[index] == v1::KEY_STATE_INVALID) {
    return {v1::PUT_OUTCOME_FAILED, v1::REASON_INVALID};
  }
  if (const auto fault = put_faults_.find(name); fault != put_faults_.end()) {
    const PutAnswer answer = {fault->second.outcome, fault->second.reason};
    put_faults_.erase(fault);
    return answer;
  }
  if (const auto it = blocks_.find(name); it != blocks_.end()) {
    it->second.touch = next_touch_;
    it->second.level = std::max(it->second.level, run.request.wait_for());
    return {v1::PUT_OUTCOME_DUPLICATE, v1::REASON_NONE, it->second.level};
  }
  if (run.call.joined.contains(name)) {
    return {v1::PUT_OUTCOME_FAILED, v1::REASON_TOO_LATE};
  }
  if (draining_) {
    return {v1::PUT_OUTCOME_DECLINED, v1::REASON_DRAINING};
  }
  Block block;
  v1::Reason reason = v1::REASON_NONE;
  if (!ReadSource(run, index, &block.payload, &reason)) {
    return {v1::PUT_OUTCOME_FAILED, reason};
  }
  if (!MakeRoom(run.into.tenant, SlotBytes(block.payload.size()), &reason)) {
    return {v1::PUT_OUTCOME_DECLINED, reason};
  }
  block.tenant = run.into.tenant;
  block.parent = index == 0 ? run.request.parent() : run.looked.keys[index - 1];
  if (run.looked.ruled.rule != v1::RULE_PREFIX) {
    block.parent.clear();
  }
  block.first_token = run.looked.ruled.BeginOf(index);
  if (run.request.metadata_size() != 0) {
    block.metadata = run.request.metadata(static_cast<int>(index));
  }
  block.slot = TakeSlot(block.tenant, SlotBytes(block.payload.size()));
  block.touch = next_touch_;
  std::copy(block.payload.begin(), block.payload.end(), Bytes(*block.slot));
  Block& stored = blocks_[name] = std::move(block);
  stored.level = std::max(stored.level, run.request.wait_for());
  Publish(name, stored, v1::EVENT_KIND_STORED, "g2");
  return {v1::PUT_OUTCOME_STORED, v1::REASON_NONE, stored.level};
}

absl::Status ServiceDouble::PutStream(const Caller& caller,
                                      const std::vector<v1::PutStreamRequest>& stream,
                                      v1::PutReply* reply) {
  if (absl::Status status = Require(v1::FEATURE_STREAMS, "PutStream"); !status.ok()) {
    return status;
  }
  if (stream.empty() || !stream.front().has_request()) {
    return Invalid("request", "in the first message");
  }
  v1::PutRequest request = stream.front().request();
  if (!request.payload().empty() || request.has_region()) {
    return Invalid("request.payload", "empty in a stream; no region");
  }
  for (size_t i = 0; i < stream.size(); ++i) {
    if (i != 0 && stream[i].has_request()) {
      return Invalid("request", "in the first message only");
    }
    if (stream[i].chunk().size() > kChunkBytes) {
      return Invalid("chunk", "at most 1048576 bytes");
    }
    request.mutable_payload()->append(stream[i].chunk());
  }
  return Put(caller, request, reply);
}

absl::Status ServiceDouble::Flush(const Caller& caller,
                                  const v1::FlushRequest& request,
                                  v1::FlushReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (!v1::Level_IsValid(request.level())) {
    return Invalid("level", "a known value");
  }
  if (request.level() > HighestLevel()) {
    return absl::UnimplementedError("level: not in the features");
  }
  for (auto& [name, block] : blocks_) {
    if (block.tenant == caller.tenant) {
      block.level = std::max(block.level, request.level());
    }
  }
  reply->set_boot_id(boot_id_);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- delete and pin

absl::Status ServiceDouble::NamesOf(const Caller& caller,
                                    const v1::Part& part,
                                    std::vector<BlockName>* names) {
  if (absl::Status status = CheckPart(part, "part"); !status.ok()) {
    return status;
  }
  if (OpenedBy(caller, part.namespace_digest()) == nullptr) {
    return absl::NotFoundError("part.namespace_digest: not opened");
  }
  for (const std::string& key : SplitKeys(part)) {
    names->push_back(NameOf(part.namespace_digest(), part.salt(), key));
  }
  return absl::OkStatus();
}

absl::Status ServiceDouble::Delete(const Caller& caller,
                                   const v1::DeleteRequest& request,
                                   v1::DeleteReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_DELETE, "Delete"); !status.ok()) {
    return status;
  }
  std::vector<BlockName> names;
  if (absl::Status status = NamesOf(caller, request.part(), &names); !status.ok()) {
    return status;
  }
  for (const BlockName& name : names) {
    if (blocks_.contains(name)) {
      Remove(name);
      reply->set_deleted(reply->deleted() + 1);
    } else {
      reply->set_not_found(reply->not_found() + 1);
    }
  }
  reply->set_boot_id(boot_id_);
  return absl::OkStatus();
}

absl::Status ServiceDouble::Pin(const Caller& caller,
                                const v1::PinRequest& request,
                                v1::PinReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_PINS, "Pin"); !status.ok()) {
    return status;
  }
  if (request.ttl_s() > kMaxPinS) {
    return Invalid("ttl_s", "at most 2592000");
  }
  std::vector<BlockName> names;
  if (absl::Status status = NamesOf(caller, request.part(), &names); !status.ok()) {
    return status;
  }
  uint64_t pinned = 0;
  for (const auto& [name, block] : blocks_) {
    pinned += block.tenant == caller.tenant && block.pinned_until ? block.payload.size() : 0;
  }
  const uint64_t budget = LeaseLimit(caller.tenant);  // a quarter of the tenant's DRAM too
  for (const BlockName& name : names) {
    const auto it = blocks_.find(name);
    v1::Reason reason = v1::REASON_NONE;
    if (it == blocks_.end()) {
      reason = v1::REASON_NOT_PRESENT;
    } else if (!it->second.pinned_until && pinned + it->second.payload.size() > budget) {
      reason = v1::REASON_QUOTA;
    } else {
      pinned += it->second.pinned_until ? 0 : it->second.payload.size();
      const absl::Duration length =
          request.ttl_s() == 0 ? absl::InfiniteDuration() : absl::Seconds(request.ttl_s());
      it->second.pinned_until = clock_.Now() + length;
    }
    reply->mutable_reasons()->push_back(static_cast<char>(reason));
  }
  reply->set_boot_id(boot_id_);
  reply->set_pinned_bytes(pinned);
  reply->set_budget_bytes(budget);
  return absl::OkStatus();
}

absl::Status ServiceDouble::Unpin(const Caller& caller,
                                  const v1::UnpinRequest& request,
                                  v1::UnpinReply* reply) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_PINS, "Unpin"); !status.ok()) {
    return status;
  }
  std::vector<BlockName> names;
  if (absl::Status status = NamesOf(caller, request.part(), &names); !status.ok()) {
    return status;
  }
  for (const BlockName& name : names) {
    const auto it = blocks_.find(name);
    if (it != blocks_.end() && it->second.pinned_until) {
      it->second.pinned_until.reset();
      reply->set_unpinned(reply->unpinned() + 1);
    }
  }
  reply->set_boot_id(boot_id_);
  return absl::OkStatus();
}

}  // namespace terrace::doubles
