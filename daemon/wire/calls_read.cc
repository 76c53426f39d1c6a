// Probe, Prefetch, Ticket, Get; see calls.h.
#include <algorithm>
#include <utility>

#include "daemon/wire/call_status.h"
#include "daemon/wire/calls.h"
#include "daemon/wire/part_checks.h"

namespace terrace {
namespace {

constexpr absl::Duration kPrefetchDefault = absl::Seconds(10);
constexpr absl::Duration kPrefetchCap = absl::Seconds(60);
constexpr absl::Duration kTicketWaitCap = absl::Seconds(10);

absl::Status CheckProbe(const v1::ProbeRequest& request, uint32_t* keys) {
  if (absl::Status status = CheckRequestId(request.request_id()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPriority(request.prefetch_priority(), "prefetch_priority");
      !status.ok()) {
    return status;
  }
  return CheckParts(request.parts(), keys);
}

absl::Status CheckPrefetch(const v1::PrefetchRequest& request, uint32_t* keys) {
  if (absl::Status status = CheckRequestId(request.request_id()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckPriority(request.priority(), "priority"); !status.ok()) {
    return status;
  }
  return CheckParts(request.parts(), keys);
}

absl::Status CheckDelivery(const CallContext& context, const v1::GetRequest& request) {
  if (!v1::Delivery_IsValid(request.delivery())) {
    return InvalidField("delivery", "unknown value");
  }
  const bool local =
      request.delivery() == v1::DELIVERY_LEASE || request.delivery() == v1::DELIVERY_REGION;
  if (local && context.caller.session == kNoSession) {
    return absl::FailedPreconditionError("delivery: leases and regions need a session");
  }
  if (request.delivery() != v1::DELIVERY_REGION) {
    return absl::OkStatus();
  }
  if (request.regions_size() != request.parts_size()) {
    return InvalidField("regions", "one a part with DELIVERY_REGION");
  }
  for (int i = 0; i < request.regions_size(); ++i) {
    const uint32_t keys = KeyCountOf(request.parts(i));
    if (absl::Status status = CheckRegionBlocks(request.regions(i), keys, {"regions", i});
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckGet(const CallContext& context, const v1::GetRequest& request, uint32_t* keys) {
  if (absl::Status status = CheckRequestId(request.request_id()); !status.ok()) {
    return status;
  }
  if (!request.hold_id().empty()) {
    if (absl::Status status = CheckDigest(request.hold_id(), "hold_id"); !status.ok()) {
      return status;
    }
  }
  if (request.wait_pending() > 1) {
    return InvalidField("wait_pending", "0 or 1");
  }
  if (absl::Status status = CheckParts(request.parts(), keys); !status.ok()) {
    return status;
  }
  return CheckDelivery(context, request);
}

// All but the delivery.
GetCall TakeGet(const CallContext& context, v1::GetRequest& request, absl::Duration cap) {
  GetCall call;
  call.parts = TakeParts(*request.mutable_parts());
  call.hold_id = DigestFrom(request.hold_id());
  call.wait_pending = request.wait_pending() != 0;
  call.deadline = context.Deadline(cap);
  call.call_id = context.call_id;
  call.alone = context.alone;
  return call;
}

v1::ProbeReply ProbeReplyFrom(ProbeResult& result, uint64_t boot_id) {
  v1::ProbeReply reply;
  reply.set_boot_id(boot_id);
  reply.set_states(std::move(result.states));
  reply.mutable_part_hits()->Add(result.part_hits.begin(), result.part_hits.end());
  reply.mutable_part_boundary_keys()->Add(result.part_boundary_keys.begin(),
                                          result.part_boundary_keys.end());
  reply.set_boundary_tokens(result.boundary_tokens);
  reply.set_load_us(static_cast<uint64_t>(
      std::max<int64_t>(0, absl::ToInt64Microseconds(result.load_time))));
  reply.set_hit_bytes(result.hit_bytes);
  if (!result.hold_id.IsZero()) {
    reply.set_hold_id(result.hold_id.ToBytes());
    reply.set_hold_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(result.hold)));
  }
  reply.set_ticket(result.ticket);
  reply.set_recompute_us(static_cast<uint64_t>(absl::ToInt64Microseconds(result.recompute_time)));
  reply.set_worth_tokens(result.worth_tokens);
  return reply;
}

v1::GetReply GetReplyFrom(GetResult& result, uint64_t boot_id) {
  v1::GetReply reply;
  reply.set_boot_id(boot_id);
  reply.set_outcomes(std::move(result.outcomes));
  reply.mutable_payload_bytes()->Add(result.payload_bytes.begin(), result.payload_bytes.end());
  if (!result.lease_id.IsZero()) {
    reply.set_lease_id(result.lease_id.ToBytes());
  }
  reply.mutable_slab_ids()->Add(result.slab_ids.begin(), result.slab_ids.end());
  reply.mutable_slab_offsets()->Add(result.slab_offsets.begin(), result.slab_offsets.end());
  reply.set_payload(std::move(result.payload));
  return reply;
}

}  // namespace

void Calls::Probe(CallContext& context, v1::ProbeRequest& request, CallDone<v1::ProbeReply> done) {
  if (absl::Status status = CheckProbe(request, &context.keys); !status.ok()) {
    return Refuse(status, done);
  }
  ProbeCall call;
  call.parts = TakeParts(*request.mutable_parts());
  call.request_id = std::move(*request.mutable_request_id());
  call.hold = HoldFrom(request.hold_ms());
  call.prefetch = request.prefetch();
  call.priority = PriorityFrom(request.prefetch_priority());
  store_.Probe(context.caller,
               std::move(call),
               [boot_id = boot_id_, done = std::move(done)](ProbeResult result) {
                 v1::ProbeReply reply = ProbeReplyFrom(result, boot_id);
                 done(absl::OkStatus(), reply);
               });
}

void Calls::Prefetch(CallContext& context,
                     v1::PrefetchRequest& request,
                     CallDone<v1::PrefetchReply> done) {
  if (absl::Status status = CheckPrefetch(request, &context.keys); !status.ok()) {
    return Refuse(status, done);
  }
  const absl::Duration limit = request.deadline_ms() == 0
                                   ? kPrefetchDefault
                                   : std::min(absl::Milliseconds(request.deadline_ms()), kPrefetchCap);
  PrefetchCall call;
  call.parts = TakeParts(*request.mutable_parts());
  call.priority = PriorityFrom(request.priority());
  call.deadline = context.arrived + limit;
  call.hold = HoldFrom(request.hold_ms());
  store_.Prefetch(context.caller,
                  std::move(call),
                  [boot_id = boot_id_, done = std::move(done)](absl::StatusOr<PrefetchResult> result) {
                    if (!result.ok()) {
                      return Refuse(result.status(), done);
                    }
                    v1::PrefetchReply reply;
                    reply.set_boot_id(boot_id);
                    reply.set_ticket(result->ticket);
                    reply.set_keys_moving(result->keys_moving);
                    reply.set_keys_ready(result->keys_ready);
                    reply.set_keys_missing(result->keys_missing);
                    if (!result->hold_id.IsZero()) {
                      reply.set_hold_id(result->hold_id.ToBytes());
                    }
                    done(absl::OkStatus(), reply);
                  });
}

void Calls::Ticket(CallContext& context, v1::TicketRequest& request, CallDone<v1::TicketReply> done) {
  const absl::Duration wait = std::min(absl::Milliseconds(request.wait_ms()), kTicketWaitCap);
  const absl::Duration until = std::min(context.arrived + wait, context.Deadline(limits_.other_cap));
  store_.WaitTicket(context.caller,
                    request.ticket(),
                    until,
                    [boot_id = boot_id_, done = std::move(done)](absl::StatusOr<TicketResult> result) {
                      if (!result.ok()) {
                        return Refuse(result.status(), done);
                      }
                      v1::TicketReply reply;
                      reply.set_boot_id(boot_id);
                      reply.set_state(static_cast<v1::TicketState>(result->state));
                      reply.set_keys_total(result->keys_total);
                      reply.set_keys_arrived(result->keys_arrived);
                      reply.set_keys_failed(result->keys_failed);
                      reply.set_bytes_arrived(result->bytes_arrived);
                      done(absl::OkStatus(), reply);
                    });
}

void Calls::Get(CallContext& context, v1::GetRequest& request, CallDone<v1::GetReply> done) {
  if (absl::Status status = CheckGet(context, request, &context.keys); !status.ok()) {
    return Refuse(status, done);
  }
  GetCall call = TakeGet(context, request, limits_.get_cap);
  call.delivery = request.delivery() == v1::DELIVERY_UNSPECIFIED
                      ? Delivery::kInline
                      : static_cast<Delivery>(request.delivery());
  if (call.delivery == Delivery::kRegion) {
    call.regions.reserve(static_cast<size_t>(request.regions_size()));
    for (const v1::RegionBlocks& region : request.regions()) {
      call.regions.push_back(TakeRegionBlocks(region));
    }
  }
  store_.Get(context.caller, std::move(call),
             [boot_id = boot_id_, done = std::move(done)](absl::StatusOr<GetResult> result) {
               if (!result.ok()) {
                 return Refuse(result.status(), done);
               }
               v1::GetReply reply = GetReplyFrom(*result, boot_id);
               done(absl::OkStatus(), reply);
             });
}

void Calls::GetInPlace(CallContext& context, v1::GetRequest& request, InPlaceDone done) {
  v1::GetReply nothing;
  if (absl::Status status = CheckGet(context, request, &context.keys); !status.ok()) {
    return done(status, nothing, {});
  }
  GetCall call = TakeGet(context, request, limits_.get_cap);
  call.delivery = Delivery::kInPlace;
  store_.Get(context.caller,
             std::move(call),
             [boot_id = boot_id_, done = std::move(done)](absl::StatusOr<GetResult> result) {
               v1::GetReply header;
               if (!result.ok()) {
                 return done(result.status(), header, {});
               }
               header = GetReplyFrom(*result, boot_id);
               done(absl::OkStatus(), header, {std::move(result->in_place), std::move(result->reading)});
             });
}

}  // namespace terrace
