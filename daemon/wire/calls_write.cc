// Put, Delete, Pin, Unpin; see calls.h.
#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/wire/call_status.h"
#include "daemon/wire/calls.h"
#include "daemon/wire/part_checks.h"

namespace terrace {
namespace {

absl::Status CheckMetadata(const v1::PutRequest& request, uint32_t keys) {
  if (request.metadata_size() != 0 && request.metadata_size() != static_cast<int>(keys)) {
    return InvalidField("metadata", "none, or one a key");
  }
  for (int i = 0; i < request.metadata_size(); ++i) {
    const FieldPath path{"metadata", i};
    if (request.metadata(i).ByteSizeLong() > kMaxMetadataBytes) {
      return InvalidField(path.Text(), "at most 12288 bytes");
    }
  }
  if (request.hints().stop_reason().size() > kMaxStopReasonBytes) {
    return InvalidField("hints.stop_reason", "at most 32 bytes");
  }
  return absl::OkStatus();
}

std::vector<BlockMetadata> TakeMetadata(v1::PutRequest& request) {
  std::vector<BlockMetadata> out;
  out.reserve(static_cast<size_t>(request.metadata_size()));
  for (v1::BlockMetadata& block : *request.mutable_metadata()) {
    out.push_back({{block.token_ids().begin(), block.token_ids().end()},
                   std::move(*block.mutable_lora_name()),
                   std::move(*block.mutable_extra_keys())});
  }
  return out;
}

RequestHints HintsFrom(const v1::Hints& hints) {
  RequestHints out;
  out.output_tokens = hints.output_tokens();
  out.stop = StopReasonFrom(hints.stop_reason());
  out.session_end = hints.session_end();
  out.expected_return = absl::Milliseconds(hints.expected_return_ms());
  return out;
}

absl::Status CheckSource(const CallContext& context, const v1::PutRequest& request, uint32_t keys) {
  if (!request.has_region()) {
    return request.payload().size() > context.max_inline_bytes
               ? InvalidField("payload", absl::StrCat("at most ", context.max_inline_bytes, " bytes inline"))
               : absl::OkStatus();
  }
  if (context.caller.session == kNoSession) {
    return absl::FailedPreconditionError("region: only on a session");
  }
  if (!request.payload().empty()) {
    return InvalidField("payload", "empty when a region is given");
  }
  return CheckRegionBlocks(request.region(), keys, {"region"});
}

}  // namespace

absl::Status Calls::CheckPut(const CallContext& context,
                             const v1::PutRequest& request,
                             uint32_t* keys) {
  if (absl::Status status = CheckRequestId(request.request_id()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckOnlyPart(request.has_part(), request.part(), keys); !status.ok()) {
    return status;
  }
  const uint32_t key_bytes =
      request.part().key_bytes() == 0 ? kDefaultKeyBytes : request.part().key_bytes();
  if (!request.parent().empty() && request.parent().size() != key_bytes) {
    return InvalidField("parent", "as long as the keys, or empty");
  }
  if (request.payload_bytes_size() > 1 && request.payload_bytes_size() != static_cast<int>(*keys)) {
    return InvalidField("payload_bytes", "none, one, or one a key");
  }
  if (absl::Status status = CheckMetadata(request, *keys); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckLevel(request.wait_for(), store_.HighestLevel(), "wait_for");
      !status.ok()) {
    return status;
  }
  return CheckSource(context, request, *keys);
}

absl::StatusOr<Calls::PayloadSize> Calls::PayloadSizeOf(const CallContext& context,
                                                        const v1::PutRequest& request,
                                                        uint32_t keys) {
  const auto& given = request.payload_bytes();
  PayloadSize size;
  size.each = given.empty() ? 0 : given[0];
  if (given.empty()) {
    absl::ReaderMutexLock lock(&opened_mutex_);
    const auto found =
        opened_.find({context.caller.tenant, DigestFrom(request.part().namespace_digest())});
    if (found == opened_.end()) {
      return absl::NotFoundError("part.namespace_digest: not opened by this tenant");
    }
    size.each = found->second.bytes;
  }
  if (given.size() == static_cast<int>(keys)) {
    size.total = std::accumulate(given.begin(), given.end(), uint64_t{0});
  } else {
    size.total = size.each * keys;  // 16,384 x 4 GiB at most: no overflow
  }
  return size;
}

absl::Status Calls::PayloadBytesOf(const CallContext& context,
                                   const v1::PutRequest& request,
                                   uint32_t keys,
                                   std::vector<uint32_t>* out) {
  const absl::StatusOr<PayloadSize> size = PayloadSizeOf(context, request, keys);
  if (!size.ok()) {
    return size.status();
  }
  if (!request.has_region() && size->total != request.payload().size()) {
    return InvalidField("payload", "must be as long as all payload_bytes together");
  }
  if (request.payload_bytes_size() == static_cast<int>(keys)) {
    out->assign(request.payload_bytes().begin(), request.payload_bytes().end());
  } else {
    out->assign(keys, static_cast<uint32_t>(size->each));
  }
  return absl::OkStatus();
}

absl::Status Calls::CheckPutStream(const CallContext& context,
                                   const v1::PutRequest& request,
                                   uint64_t* payload_bytes) {
  uint32_t keys = 0;
  if (absl::Status status = CheckPut(context, request, &keys); !status.ok()) {
    return status;
  }
  if (!request.payload().empty()) {
    return InvalidField("payload", "empty in a stream, whose chunks carry it");
  }
  const absl::StatusOr<PayloadSize> size = PayloadSizeOf(context, request, keys);
  if (!size.ok()) {
    return size.status();
  }
  if (size->total > kMaxStreamBytes) {
    return InvalidField("payload_bytes", absl::StrCat("at most ", kMaxStreamBytes, " in all"));
  }
  *payload_bytes = size->total;
  return absl::OkStatus();
}

void Calls::Put(CallContext& context, v1::PutRequest& request, CallDone<v1::PutReply> done) {
  if (absl::Status status = CheckPut(context, request, &context.keys); !status.ok()) {
    return Refuse(status, done);
  }
  PutCall call;
  if (absl::Status status = PayloadBytesOf(context, request, context.keys, &call.payload_bytes);
      !status.ok()) {
    return Refuse(status, done);
  }
  call.part = TakePart(*request.mutable_part());
  call.parent = std::move(*request.mutable_parent());
  if (request.has_region()) {
    call.region = TakeRegionBlocks(request.region());
  }
  call.payload = std::move(*request.mutable_payload());
  if (store_.IsWatched()) {
    call.metadata = TakeMetadata(request);
  }
  call.hints = HintsFrom(request.hints());
  // An hour is more than any prompt takes, and far from what a duration can hold.
  constexpr uint64_t kMostComputeUs = uint64_t{3600} * 1'000'000;
  call.compute_time = absl::Microseconds(std::min(request.hints().compute_us(), kMostComputeUs));
  call.wait_for = LevelFrom(request.wait_for());
  call.deadline = context.Deadline(limits_.put_cap);
  call.call_id = context.call_id;
  call.alone = context.alone;
  auto answer = [boot_id = boot_id_, done](absl::StatusOr<PutResult> result) {
    if (!result.ok()) {
      return Refuse(result.status(), done);
    }
    v1::PutReply reply;
    reply.set_boot_id(boot_id);
    reply.set_outcomes(std::move(result->outcomes));
    reply.set_reasons(std::move(result->reasons));
    reply.set_levels(std::move(result->levels));
    done(absl::OkStatus(), reply);
  };
  const FieldPath path{"region"};
  if (gpu_ != nullptr && gpu_->HasRegion(context.caller.session, call.region.region_id)) {
    const absl::StatusOr<GpuOrder> order = GpuOrderFrom(request.region(), path);
    if (!order.ok()) {
      return Refuse(order.status(), done);
    }
    SayTokens(context, call.part);
    return gpu_->Put(context.caller, std::move(call), *order, std::move(answer));
  }
  if (absl::Status status = CheckHostOrder(request.region(), path); !status.ok()) {
    return Refuse(status, done);
  }
  store_.Put(context.caller, std::move(call), std::move(answer));
}

void Calls::SayTokens(const CallContext& context, StorePart& part) {
  uint32_t block_tokens = 0;
  {
    absl::ReaderMutexLock lock(&opened_mutex_);
    const auto found = opened_.find({context.caller.tenant, part.namespace_digest});
    block_tokens = found == opened_.end() ? 0 : found->second.tokens;
  }
  if (!part.end_tokens.empty() || block_tokens == 0) {
    return;
  }
  uint64_t end = part.first_token;
  for (uint32_t i = 0; i < part.key_count(); ++i) {
    end = std::min<uint64_t>(end + block_tokens, UINT32_MAX);
    part.end_tokens.push_back(static_cast<uint32_t>(end));
  }
}

void Calls::Delete(CallContext& context,
                   v1::DeleteRequest& request,
                   CallDone<v1::DeleteReply> done) {
  if (absl::Status status = CheckOnlyPart(request.has_part(), request.part(), &context.keys);
      !status.ok()) {
    return Refuse(status, done);
  }
  store_.Delete(context.caller, TakePart(*request.mutable_part()),
                [boot_id = boot_id_,
                 done = std::move(done)](const absl::StatusOr<BlockStore::DeleteResult>& result) {
                  if (!result.ok()) {
                    return Refuse(result.status(), done);
                  }
                  v1::DeleteReply reply;
                  reply.set_boot_id(boot_id);
                  reply.set_deleted(result->deleted);
                  reply.set_not_found(result->not_found);
                  done(absl::OkStatus(), reply);
                });
}

void Calls::Pin(CallContext& context, v1::PinRequest& request, const CallDone<v1::PinReply>& done) {
  if (absl::Status status = CheckOnlyPart(request.has_part(), request.part(), &context.keys);
      !status.ok()) {
    return Refuse(status, done);
  }
  if (request.ttl_s() > kMaxPinSeconds) {
    return Refuse(InvalidField("ttl_s", "at most 2592000"), done);
  }
  absl::StatusOr<PinResult> result =
      store_.Pin(context.caller, TakePart(*request.mutable_part()), absl::Seconds(request.ttl_s()));
  if (!result.ok()) {
    return Refuse(result.status(), done);
  }
  v1::PinReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_reasons(std::move(result->reasons));
  reply.set_pinned_bytes(result->pinned_bytes);
  reply.set_budget_bytes(result->budget_bytes);
  done(absl::OkStatus(), reply);
}

void Calls::Unpin(CallContext& context,
                  v1::UnpinRequest& request,
                  const CallDone<v1::UnpinReply>& done) {
  if (absl::Status status = CheckOnlyPart(request.has_part(), request.part(), &context.keys);
      !status.ok()) {
    return Refuse(status, done);
  }
  const absl::StatusOr<uint32_t> unpinned =
      store_.Unpin(context.caller, TakePart(*request.mutable_part()));
  if (!unpinned.ok()) {
    return Refuse(unpinned.status(), done);
  }
  v1::UnpinReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_unpinned(*unpinned);
  done(absl::OkStatus(), reply);
}

}  // namespace terrace
