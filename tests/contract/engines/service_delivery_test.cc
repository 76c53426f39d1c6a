// What the contract says of gets, leases, prefetches, pins and regions, beside what the engines'
// programs ask.
#include "tests/contract/engines/service_room.h"

namespace terrace::contract {
namespace {

using absl::StatusCode;

class ServiceDelivery : public ServiceRoom {};

// ---------------------------------------------------------------- get and leases

TEST_F(ServiceDelivery, ALeaseReadsTheBytesInPlace) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 4096));
  const v1::GetReply reply = Get(process_, {keys_[2]}, v1::DELIVERY_LEASE);
  ASSERT_EQ(reply.outcomes(), AllOk(1));
  v1::MapSlabRequest map;
  map.set_slab_id(reply.slab_ids(0));
  v1::MapSlabReply mapped;
  std::shared_ptr<const std::vector<char>> slab;
  ASSERT_TRUE(service_.MapSlab(process_.caller, map, &mapped, &slab).ok());
  EXPECT_EQ(std::string(slab->data() + reply.slab_offsets(0), reply.payload_bytes(0)),
            PayloadOf(digest_, keys_[2], 4096));
  const EngineProcess other = EngineProcess::Start(service_, "stranger");
  EXPECT_EQ(service_.MapSlab(other.caller, map, &mapped, &slab).code(), StatusCode::kNotFound);
}

TEST_F(ServiceDelivery, NoSlotIsReusedUnderALease) {
  ASSERT_TRUE(process_.PutChain(digest_, {keys_[0]}, 4096));
  const v1::GetReply lease = Get(process_, {keys_[0]}, v1::DELIVERY_LEASE);
  v1::MapSlabRequest map;
  map.set_slab_id(lease.slab_ids(0));
  v1::MapSlabReply mapped;
  std::shared_ptr<const std::vector<char>> slab;
  ASSERT_TRUE(service_.MapSlab(process_.caller, map, &mapped, &slab).ok());
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(digest_, {keys_[0]});
  v1::DeleteReply deleted;
  ASSERT_TRUE(service_.Delete(process_.caller, request, &deleted).ok());
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE).outcomes(), std::string(1, '\0'))
      << "hidden at once";
  for (int i = 0; i < 100; ++i) {
    process_.PutChain(digest_, {KeyOf("flood", static_cast<uint32_t>(i))}, 4096);
  }
  EXPECT_EQ(std::string(slab->data() + lease.slab_offsets(0), 4096),
            PayloadOf(digest_, keys_[0], 4096));
  service_.Disconnect(process_.caller);
  EXPECT_EQ(service_.leased_slot_count(), 1U) << "a closed socket proves nothing";
  service_.ProcessGone(process_.caller);
  EXPECT_EQ(service_.leased_slot_count(), 0U);
}

TEST_F(ServiceDelivery, LeasesBeyondAQuarterOfTheTenantsDramAreBusy) {
  const std::vector<std::string> many = Chain("many", 64);
  service_.SetTenantLimit("team", 64 * kSlot);
  ASSERT_TRUE(process_.PutChain(digest_, many, 4096));
  const v1::GetReply reply = Get(process_, many, v1::DELIVERY_LEASE);
  const size_t granted = reply.outcomes().find(static_cast<char>(v1::GET_OUTCOME_BUSY));
  EXPECT_EQ(granted, 64U * kSlot / 4 / 4096);
  EXPECT_EQ(reply.outcomes().substr(granted),
            std::string(64 - granted, static_cast<char>(v1::GET_OUTCOME_BUSY)))
      << "the prefix that fits, nothing behind it";
  v1::ReleaseRequest release;
  release.add_leases()->set_lease_id(reply.lease_id());
  v1::ReleaseReply released;
  ASSERT_TRUE(service_.Release(process_.caller, release, &released).ok());
  EXPECT_EQ(released.released(), 1U);
  EXPECT_EQ(service_.leased_slot_count(), 0U);
  ASSERT_TRUE(service_.Release(process_.caller, release, &released).ok());
  EXPECT_EQ(released.not_found(), 1U) << "again is no error";
}

TEST_F(ServiceDelivery, PartsOfALeaseAreGivenUpByPosition) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 4096));
  const v1::GetReply reply = Get(process_, keys_, v1::DELIVERY_LEASE);
  v1::ReleaseRequest release;
  release.add_leases()->set_lease_id(reply.lease_id());
  release.mutable_leases(0)->add_key_positions(1);
  release.mutable_leases(0)->add_key_positions(99);
  v1::ReleaseReply released;
  ASSERT_TRUE(service_.Release(process_.caller, release, &released).ok());
  EXPECT_EQ(released.released(), 1U);
  EXPECT_EQ(service_.leased_slot_count(), 3U);
}

TEST_F(ServiceDelivery, AnInlineReplyThatIsFullSaysSo) {
  v1::NamespaceRecord record = PlainRecord();
  record.set_block_bytes(uint64_t{1} << 20);
  doubles::ServiceDouble large(clock_, {});
  EngineProcess process = EngineProcess::Start(large, "team");
  const std::string digest = process.Open(record);
  for (const std::string& key : keys_) {
    ASSERT_TRUE(process.PutChain(digest, {key}, uint64_t{1} << 20));
  }
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest, keys_);
  v1::GetReply reply;
  ASSERT_TRUE(large.Get(process.caller, get, &reply).ok());
  EXPECT_EQ(reply.payload().size(), size_t{3} << 20);
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(reply.outcomes(), 2), v1::GET_OUTCOME_OK);
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(reply.outcomes(), 3), v1::GET_OUTCOME_TRIMMED);
}

TEST_F(ServiceDelivery, ACorruptBlockIsNeverDeliveredAndGone) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 100));
  ASSERT_TRUE(service_.Corrupt(service_.NameOf(digest_, "", keys_[1])));
  const v1::GetReply reply = Get(process_, keys_, v1::DELIVERY_INLINE);
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(reply.outcomes(), 1), v1::GET_OUTCOME_CORRUPT);
  EXPECT_EQ(reply.payload().size(), 300U);
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(Get(process_, keys_, v1::DELIVERY_INLINE).outcomes(), 1),
            v1::GET_OUTCOME_MISS);
}

TEST_F(ServiceDelivery, AGetThatDoesNotWaitMissesWhatIsBelow) {
  Put({keys_[0]}, "below");
  ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys_[0])));
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE).outcomes(), 0),
            v1::GET_OUTCOME_MISS);
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, {keys_[0]});
  get.set_wait_pending(1);
  doubles::Caller hasty = process_.caller;
  hasty.deadline = absl::Milliseconds(4);
  v1::GetReply reply;
  ASSERT_TRUE(service_.Get(hasty, get, &reply).ok());
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(reply.outcomes(), 0), v1::GET_OUTCOME_DEADLINE);
  ASSERT_TRUE(service_.Get(process_.caller, get, &(reply = {})).ok());
  EXPECT_EQ(reply.payload(), "below") << "the read went on";
}

TEST_F(ServiceDelivery, ChunkedStreamsCarryWhatUnaryCallsCannot) {
  const std::string payload = PayloadOf(digest_, "stream", 8192);
  std::vector<v1::PutStreamRequest> chunks(3);
  *chunks[0].mutable_request()->mutable_part() = PartOf(digest_, {keys_[0]});
  chunks[1].set_chunk(payload.substr(0, 5000));
  chunks[2].set_chunk(payload.substr(5000));
  v1::PutReply put;
  const doubles::Caller grpc = doubles::ServiceDouble::OverGrpc("team");
  ASSERT_TRUE(service_.PutStream(grpc, chunks, &put).ok());
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, {keys_[0]});
  std::vector<v1::GetStreamReply> stream;
  ASSERT_TRUE(service_.GetStream(grpc, get, &stream).ok());
  ASSERT_EQ(stream.size(), 2U);
  EXPECT_EQ(stream[0].header().outcomes(), AllOk(1));
  EXPECT_EQ(stream[1].chunk(), payload);
}

// ---------------------------------------------------------------- prefetch, pins

TEST_F(ServiceDelivery, ATicketTellsWhenItsKeysHaveArrived) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 100));
  for (uint32_t i = 1; i < 4; ++i) {
    ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys_[i])));
  }
  v1::PrefetchRequest request;
  *request.add_parts() = PartOf(digest_, {keys_[0], keys_[1], keys_[2], KeyOf("unknown", 0)});
  request.set_hold_ms(50);
  v1::PrefetchReply reply;
  ASSERT_TRUE(service_.Prefetch(process_.caller, request, &reply).ok());
  EXPECT_EQ(reply.keys_moving(), 2U);
  EXPECT_EQ(reply.keys_ready(), 1U);
  EXPECT_EQ(reply.keys_missing(), 1U);
  v1::TicketRequest ask;
  ask.set_ticket(reply.ticket());
  v1::TicketReply state;
  ASSERT_TRUE(service_.Ticket(process_.caller, ask, &state).ok());
  EXPECT_EQ(state.state(), v1::TICKET_STATE_RUNNING);
  ask.set_wait_ms(1000);
  ASSERT_TRUE(service_.Ticket(process_.caller, ask, &state).ok());
  EXPECT_EQ(state.state(), v1::TICKET_STATE_DONE);
  EXPECT_EQ(state.keys_arrived(), 2U);
  EXPECT_EQ(state.bytes_arrived(), 200U);
  EXPECT_FALSE(service_.Evict(service_.NameOf(digest_, "", keys_[1]))) << "held from its arrival";
  clock_.Advance(absl::Milliseconds(50));
  v1::PrefetchReply nothing;
  ASSERT_TRUE(service_.Prefetch(process_.caller, {request}, &nothing).ok());
  EXPECT_EQ(nothing.ticket(), 0U);
  clock_.Advance(absl::Seconds(61));
  EXPECT_EQ(service_.Ticket(process_.caller, ask, &state).code(), StatusCode::kNotFound);
}

TEST_F(ServiceDelivery, APrefetchEndsByItsDeadlineOrByCancel) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 100));
  ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys_[0])));
  v1::PrefetchRequest request;
  *request.add_parts() = PartOf(digest_, {keys_[0]});
  request.set_deadline_ms(4);
  v1::PrefetchReply late;
  ASSERT_TRUE(service_.Prefetch(process_.caller, request, &late).ok());
  v1::PrefetchReply joined;
  request.set_deadline_ms(1000);
  ASSERT_TRUE(service_.Prefetch(process_.caller, request, &joined).ok());
  EXPECT_EQ(joined.keys_moving(), 1U) << "joins the running read";
  v1::CancelRequest cancel;
  cancel.set_ticket(joined.ticket());
  v1::CancelReply cancelled;
  ASSERT_TRUE(service_.Cancel(process_.caller, cancel, &cancelled).ok());
  EXPECT_TRUE(cancelled.found());
  cancel.set_call_id(1);
  EXPECT_EQ(service_.Cancel(process_.caller, cancel, &cancelled).code(),
            StatusCode::kInvalidArgument)
      << "one of the two";
  clock_.Advance(absl::Milliseconds(5));
  v1::TicketRequest ask;
  v1::TicketReply state;
  ask.set_ticket(late.ticket());
  ASSERT_TRUE(service_.Ticket(process_.caller, ask, &state).ok());
  EXPECT_EQ(state.state(), v1::TICKET_STATE_EXPIRED);
  ask.set_ticket(joined.ticket());
  ASSERT_TRUE(service_.Ticket(process_.caller, ask, &state).ok());
  EXPECT_EQ(state.state(), v1::TICKET_STATE_CANCELLED);
}

TEST_F(ServiceDelivery, PinsAreBudgetedAndMayEnd) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 4096));
  service_.SetTenantLimit("team", 8 * kSlot);  // a quarter of it: four payloads
  v1::PinRequest request;
  *request.mutable_part() = PartOf(digest_, {keys_[0], KeyOf("unknown", 0)});
  request.set_ttl_s(60);
  v1::PinReply reply;
  ASSERT_TRUE(service_.Pin(process_.caller, request, &reply).ok());
  EXPECT_EQ(AnswerAt<v1::Reason>(reply.reasons(), 0), v1::REASON_NONE);
  EXPECT_EQ(AnswerAt<v1::Reason>(reply.reasons(), 1), v1::REASON_NOT_PRESENT);
  EXPECT_EQ(reply.pinned_bytes(), 4096U);
  EXPECT_EQ(reply.budget_bytes(), 2 * kSlot);
  EXPECT_FALSE(service_.Evict(service_.NameOf(digest_, "", keys_[0])));
  clock_.Advance(absl::Seconds(60));
  v1::UnpinRequest unpin;
  *unpin.mutable_part() = PartOf(digest_, {keys_[0]});
  v1::UnpinReply unpinned;
  ASSERT_TRUE(service_.Unpin(process_.caller, unpin, &unpinned).ok());
  EXPECT_EQ(unpinned.unpinned(), 0U) << "its time was over";
  EXPECT_TRUE(service_.Evict(service_.NameOf(digest_, "", keys_[0])));
}

// ---------------------------------------------------------------- regions

TEST_F(ServiceDelivery, AGeometryThatLeavesItsRegionOrOverlapsIsRefused) {
  const auto memory = std::make_shared<std::vector<char>>(64 * 1024);
  using Change = void (*)(v1::RegisterRegionRequest&);
  const std::vector<std::pair<std::string, Change>> cases = {
      {"region_id", [](v1::RegisterRegionRequest& r) { r.set_region_id(0); }},
      {"offset", [](v1::RegisterRegionRequest& r) { r.set_offset(100); }},
      {"bytes", [](v1::RegisterRegionRequest& r) { r.set_bytes(64 * 1024 + 1); }},
      {"bytes", [](v1::RegisterRegionRequest& r) { r.set_offset(4096); }},
      {"block_count",
       [](v1::RegisterRegionRequest& r) { r.mutable_geometry()->set_block_count(0); }},
      {"planes", [](v1::RegisterRegionRequest& r) { r.mutable_geometry()->set_block_count(17); }},
      {"planes", [](v1::RegisterRegionRequest& r) { r.mutable_geometry()->clear_planes(); }},
      {"planes",
       [](v1::RegisterRegionRequest& r) { r.mutable_geometry()->set_block_count(0xffffffff); }},
      {"block_stride",
       [](v1::RegisterRegionRequest& r) {
         r.mutable_geometry()->mutable_planes(0)->set_block_stride(4095);
       }},
      {"overlap",
       [](v1::RegisterRegionRequest& r) {
         v1::Plane* plane = r.mutable_geometry()->add_planes();
         *plane = r.geometry().planes(0);
         plane->set_offset(4095);
         r.mutable_geometry()->set_block_count(8);
       }},
      {"segments",
       [](v1::RegisterRegionRequest& r) {
         r.mutable_geometry()->mutable_planes(0)->clear_segments();
       }},
      {"bytes",
       [](v1::RegisterRegionRequest& r) {
         r.mutable_geometry()->mutable_planes(0)->mutable_segments(0)->set_bytes(uint64_t{1} << 63);
       }},
  };
  for (const auto& [field, change] : cases) {
    v1::RegisterRegionRequest request;
    request.set_region_id(1);
    request.set_bytes(64 * 1024);
    request.mutable_geometry()->set_block_count(16);
    v1::Plane* plane = request.mutable_geometry()->add_planes();
    plane->set_block_stride(4096);
    plane->add_segments()->set_bytes(4096);
    change(request);
    v1::RegisterRegionReply reply;
    const absl::Status status = service_.RegisterRegion(process_.caller, request, memory, &reply);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << field;
    EXPECT_NE(status.message().find(field), std::string::npos) << status;
  }
}

TEST_F(ServiceDelivery, ARegionIsOneSessionsOwn) {
  const auto memory = std::make_shared<std::vector<char>>(8192);
  process_.RegisterArray(1, memory, 4096);
  ASSERT_TRUE(process_.PutChain(digest_, {keys_[0]}, 4096));
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, {keys_[0]});
  get.set_delivery(v1::DELIVERY_REGION);
  get.add_regions()->set_region_id(1);
  get.mutable_regions(0)->add_block_indexes(2);
  v1::GetReply reply;
  ASSERT_TRUE(service_.Get(process_.caller, get, &reply).ok());
  EXPECT_EQ(AnswerAt<v1::GetOutcome>(reply.outcomes(), 0), v1::GET_OUTCOME_INVALID)
      << "there is no block 2";
  get.mutable_regions(0)->set_block_indexes(0, 1);
  ASSERT_TRUE(service_.Get(process_.caller, get, &(reply = {})).ok());
  EXPECT_EQ(std::string(memory->data() + 4096, 4096), PayloadOf(digest_, keys_[0], 4096));
  const EngineProcess other = EngineProcess::Start(service_, "team");
  EXPECT_EQ(service_.Get(other.caller, get, &reply).code(), StatusCode::kNotFound);
  EXPECT_EQ(service_.Get(doubles::ServiceDouble::OverGrpc("team"), get, &reply).code(),
            StatusCode::kFailedPrecondition);
  v1::UnregisterRegionRequest unregister;
  unregister.set_region_id(1);
  v1::UnregisterRegionReply unregistered;
  EXPECT_TRUE(service_.UnregisterRegion(process_.caller, unregister, &unregistered).ok());
  EXPECT_TRUE(service_.UnregisterRegion(process_.caller, unregister, &unregistered).ok())
      << "again is no error";
  EXPECT_EQ(service_.Get(process_.caller, get, &reply).code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace terrace::contract
