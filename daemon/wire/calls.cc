// Namespaces and the small verbs. Reading is in calls_read.cc, storing in calls_write.cc.
#include "daemon/wire/calls.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "daemon/wire/call_status.h"
#include "daemon/wire/part_checks.h"

namespace terrace {
namespace {

constexpr uint32_t kHeartbeatMs = 1000;
constexpr uint32_t kMaxHeartbeatMs = 60'000;
constexpr uint32_t kMaxWatchedNamespaces = 16384;
constexpr uint32_t kWatchRetryMs = 1000;

}  // namespace

std::vector<v1::Feature> ServedFeatures(const BlockStore& store, bool gpu) {
  std::vector<v1::Feature> features{
      v1::FEATURE_LEASES, v1::FEATURE_HOST_REGIONS, v1::FEATURE_HOLDS, v1::FEATURE_PREFETCH,
      v1::FEATURE_PINS,   v1::FEATURE_DELETE,       v1::FEATURE_CLEAR, v1::FEATURE_STREAMS,
      v1::FEATURE_CANCEL, v1::FEATURE_WATCH};
  if (gpu) {
    features.push_back(v1::FEATURE_GPU_REGIONS);
    features.push_back(v1::FEATURE_GPU_WORKERS);
  }
  if (store.HighestLevel() >= Level::kLocalSynced) {
    features.push_back(v1::FEATURE_LOCAL_LEVELS);
  }
  if (store.HighestLevel() >= Level::kPool) {
    features.push_back(v1::FEATURE_POOL_LEVEL);
  }
  return features;
}

absl::Duration Calls::CapOf(v1::Method method) const {
  switch (method) {
    case v1::METHOD_PROBE:
      return limits_.probe_cap;
    case v1::METHOD_GET:
      return limits_.get_cap;
    case v1::METHOD_PUT:
      return limits_.put_cap;
    default:
      return limits_.other_cap;
  }
}

void Calls::OpenNamespace(CallContext& context,
                          v1::OpenNamespaceRequest& request,
                          const CallDone<v1::OpenNamespaceReply>& done) {
  if (!request.has_record()) {
    return Refuse(InvalidField("record", "required"), done);
  }
  if (absl::Status status = CheckRecord(request.record()); !status.ok()) {
    return Refuse(status, done);
  }
  const NamespaceRecord record = RecordFrom(request.record());
  if (absl::Status status = ValidateRecord(record); !status.ok()) {
    return Refuse(status, done);
  }
  absl::StatusOr<OpenedNamespace> opened = store_.OpenNamespace(context.caller, record);
  if (!opened.ok()) {
    return Refuse(opened.status(), done);
  }
  {
    absl::MutexLock lock(&opened_mutex_);
    opened_[{context.caller.tenant, opened->digest}] = {record.block_bytes, record.block_tokens};
    DropForgottenLocked();
  }
  v1::OpenNamespaceReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_namespace_digest(opened->digest.ToBytes());
  reply.set_family_digest(opened->family.ToBytes());
  reply.set_generation(opened->generation);
  reply.set_pending(opened->pending);
  done(absl::OkStatus(), reply);
}

void Calls::DropForgottenLocked() {
  if (opened_.size() < look_at_) {
    return;
  }
  absl::flat_hash_set<Digest128> known;
  for (const NamespaceUsage& ns : store_.Namespaces()) {
    known.insert(ns.digest);
  }
  absl::erase_if(opened_,
                 [&known](const auto& opened) { return !known.contains(opened.first.second); });
  look_at_ = std::max(kLeastOpened, 2 * opened_.size());
}

void Calls::ClearNamespace(CallContext& context,
                           v1::ClearNamespaceRequest& request,
                           CallDone<v1::ClearNamespaceReply> done) {
  if (absl::Status status = CheckDigest(request.namespace_digest(), "namespace_digest");
      !status.ok()) {
    return Refuse(status, done);
  }
  store_.ClearNamespace(context.caller.tenant, DigestFrom(request.namespace_digest()),
                        [boot_id = boot_id_,
                         done = std::move(done)](const absl::StatusOr<ClearedNamespace>& cleared) {
                          if (!cleared.ok()) {
                            return Refuse(cleared.status(), done);
                          }
                          v1::ClearNamespaceReply reply;
                          reply.set_boot_id(boot_id);
                          reply.set_generation(cleared->generation);
                          reply.set_pending(cleared->pending);
                          done(absl::OkStatus(), reply);
                        });
}

void Calls::Release(CallContext& context,
                    v1::ReleaseRequest& request,
                    const CallDone<v1::ReleaseReply>& done) {
  if (request.leases_size() > static_cast<int>(kMaxReleases)) {
    return Refuse(InvalidField("leases", "at most 1024"), done);
  }
  if (request.hold_ids_size() > static_cast<int>(kMaxReleases)) {
    return Refuse(InvalidField("hold_ids", "at most 1024"), done);
  }
  for (int i = 0; i < request.leases_size(); ++i) {
    const v1::LeaseRelease& lease = request.leases(i);
    const FieldPath path{"leases", i};
    if (lease.lease_id().size() != kDigestBytes) {
      return Refuse(InvalidField(path.Text("lease_id"), "16 bytes"), done);
    }
    if (lease.key_positions_size() > static_cast<int>(kMaxKeysPerCall)) {
      return Refuse(InvalidField(path.Text("key_positions"), "at most 16384"), done);
    }
  }
  for (int i = 0; i < request.hold_ids_size(); ++i) {
    const FieldPath path{"hold_ids", i};
    if (request.hold_ids(i).size() != kDigestBytes) {
      return Refuse(InvalidField(path.Text(), "16 bytes"), done);
    }
  }
  std::vector<LeaseRelease> leases;
  leases.reserve(static_cast<size_t>(request.leases_size()));
  for (const v1::LeaseRelease& lease : request.leases()) {
    leases.push_back({DigestFrom(lease.lease_id()),
                      {lease.key_positions().begin(), lease.key_positions().end()}});
  }
  std::vector<Digest128> holds;
  holds.reserve(static_cast<size_t>(request.hold_ids_size()));
  for (const std::string& hold : request.hold_ids()) {
    holds.push_back(DigestFrom(hold));
  }
  context.keys = static_cast<uint32_t>(leases.size() + holds.size());
  const ReleaseResult result = store_.Release(context.caller, leases, holds);
  v1::ReleaseReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_released(result.released);
  reply.set_not_found(result.not_found);
  done(absl::OkStatus(), reply);
}

void Calls::Flush(CallContext& context, v1::FlushRequest& request, CallDone<v1::FlushReply> done) {
  if (absl::Status status = CheckLevel(request.level(), store_.HighestLevel(), "level");
      !status.ok()) {
    return Refuse(status, done);
  }
  store_.Flush(context.caller.tenant, LevelFrom(request.level()),
               context.Deadline(limits_.other_cap),
               [boot_id = boot_id_, done = std::move(done)](const absl::Status& status) {
                 v1::FlushReply reply;
                 if (status.ok()) {
                   reply.set_boot_id(boot_id);
                 }
                 done(status, reply);
               });
}

absl::StatusOr<std::unique_ptr<WatchFeed>> Calls::Watch(const CallContext& context,
                                                        const v1::WatchRequest& request,
                                                        const Clock& clock) {
  if (request.heartbeat_ms() > kMaxHeartbeatMs) {
    return InvalidField("heartbeat_ms", "at most 60000");
  }
  if (request.namespaces_size() > static_cast<int>(kMaxWatchedNamespaces)) {
    return InvalidField("namespaces", "at most 16384");
  }
  WatchCall call;
  call.publisher_id = request.publisher_id();
  call.after_sequence = request.after_sequence();
  call.snapshot = request.snapshot();
  for (int i = 0; i < request.namespaces_size(); ++i) {
    const FieldPath path{"namespaces", i};
    if (request.namespaces(i).size() != kDigestBytes) {
      return InvalidField(path.Text(), "16 bytes");
    }
    call.namespaces.push_back(DigestFrom(request.namespaces(i)));
  }
  absl::StatusOr<std::unique_ptr<StoreWatcher>> watcher =
      store_.Watch(context.caller.tenant, std::move(call));
  if (absl::IsResourceExhausted(watcher.status())) {
    return TryLater(watcher.status().message(), kWatchRetryMs);
  }
  if (!watcher.ok()) {
    return watcher.status();
  }
  const uint32_t heartbeat_ms = request.heartbeat_ms() == 0 ? kHeartbeatMs : request.heartbeat_ms();
  return std::make_unique<WatchFeed>(*std::move(watcher), clock, absl::Milliseconds(heartbeat_ms),
                                     boot_id_, context.call_id);
}

void Calls::Cancel(CallContext& context,
                   v1::CancelRequest& request,
                   CallDone<v1::CancelReply> done) {
  if ((request.ticket() == 0) == (request.call_id() == 0)) {
    return Refuse(InvalidField("ticket", "exactly one of ticket and call_id"), done);
  }
  if (request.call_id() != 0 && context.caller.session == kNoSession) {
    return Refuse(absl::FailedPreconditionError("call_id: only on a session"), done);
  }
  auto found = [boot_id = boot_id_, done = std::move(done)](bool was_found) {
    v1::CancelReply reply;
    reply.set_boot_id(boot_id);
    reply.set_found(was_found);
    done(absl::OkStatus(), reply);
  };
  if (request.ticket() != 0) {
    store_.CancelTicket(context.caller, request.ticket(), std::move(found));
  } else if (gpu_ == nullptr || !gpu_->CancelCall(context.caller, request.call_id(), found)) {
    store_.CancelCall(context.caller, request.call_id(), std::move(found));
  }
}

}  // namespace terrace
