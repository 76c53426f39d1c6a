// Every verb of the data contract answers the same over both carriers.
#include "tests/contract/carriers/carrier_suite.h"

namespace terrace::doubles {
namespace {

class Verbs : public CarrierSuite {};
INSTANTIATE_TEST_SUITE_P(Both,
                         Verbs,
                         ::testing::Values(CarrierKind::kSession, CarrierKind::kGrpc),
                         CarrierName);

std::string Bytes(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) {
    bytes.push_back(static_cast<char>(value));
  }
  return bytes;
}

TEST_P(Verbs, OpenNamespaceIsIdempotentAndNamesTheDaemon) {
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = TestRecord(kBlockBytes);
  v1::OpenNamespaceReply first;
  v1::OpenNamespaceReply second;
  ASSERT_TRUE(client_->Call(v1::METHOD_OPEN_NAMESPACE, request, &first).ok());
  ASSERT_TRUE(client_->Call(v1::METHOD_OPEN_NAMESPACE, request, &second).ok());
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(first.namespace_digest().size(), 16U);
  EXPECT_EQ(first.family_digest().size(), 16U);
  EXPECT_EQ(first.generation(), 1U);
  EXPECT_EQ(first.boot_id(), room_->front().boot_id());
}

TEST_P(Verbs, WhatIsPutInlineIsGotInline) {
  const std::string digest = OpenNamespace();
  const v1::PutReply put = Put(digest, {1, 2});
  EXPECT_EQ(put.outcomes(), Bytes({v1::PUT_OUTCOME_STORED, v1::PUT_OUTCOME_STORED}));
  EXPECT_EQ(put.levels(), Bytes({v1::LEVEL_DRAM, v1::LEVEL_DRAM}));
  EXPECT_EQ(put.boot_id(), room_->front().boot_id());

  const v1::GetReply got = Get(digest, {1, 2, 3});
  EXPECT_EQ(got.outcomes(),
            Bytes({v1::GET_OUTCOME_OK, v1::GET_OUTCOME_OK, v1::GET_OUTCOME_MISS}));
  EXPECT_EQ(got.payload(), TestPayload(1, kBlockBytes) + TestPayload(2, kBlockBytes));
  ASSERT_EQ(got.payload_bytes_size(), 3);
  EXPECT_EQ(got.payload_bytes(0), kBlockBytes);
  EXPECT_EQ(got.payload_bytes(2), 0U);
}

TEST_P(Verbs, PutOfStoredBlocksIsDuplicate) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  EXPECT_EQ(Put(digest, {1, 2}).outcomes(),
            Bytes({v1::PUT_OUTCOME_DUPLICATE, v1::PUT_OUTCOME_STORED}));
}

TEST_P(Verbs, PutSizesMayBeOneOrOneAKey) {
  const std::string digest = OpenNamespace();
  v1::PutRequest request;
  *request.mutable_part() = PartOf(digest, {1, 2});
  request.add_payload_bytes(100);
  request.set_payload(TestPayload(1, 100) + TestPayload(2, 100));
  v1::PutReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PUT, request, &reply).ok());
  EXPECT_EQ(reply.outcomes(), Bytes({v1::PUT_OUTCOME_STORED, v1::PUT_OUTCOME_STORED}));

  *request.mutable_part() = PartOf(digest, {3, 4});
  request.clear_payload_bytes();
  request.add_payload_bytes(10);
  request.add_payload_bytes(20);
  request.set_payload(TestPayload(3, 10) + TestPayload(4, 20));
  ASSERT_TRUE(client_->Call(v1::METHOD_PUT, request, &reply).ok());
  const v1::GetReply got = Get(digest, {3, 4});
  EXPECT_EQ(got.payload(), TestPayload(3, 10) + TestPayload(4, 20));
}

TEST_P(Verbs, ABlockThatIsTooLargeFailsAlone) {
  const std::string digest = OpenNamespace();
  v1::PutRequest request;
  *request.mutable_part() = PartOf(digest, {1, 2});
  request.mutable_part()->set_rule(v1::RULE_INDEPENDENT);
  request.add_payload_bytes(kBlockBytes + 1);
  request.add_payload_bytes(kBlockBytes);
  request.set_payload(TestPayload(1, kBlockBytes + 1) + TestPayload(2, kBlockBytes));
  v1::PutReply reply;
  const CallEnd end = client_->Call(v1::METHOD_PUT, request, &reply);
  ASSERT_TRUE(end.ok()) << end.message;
  ASSERT_EQ(reply.outcomes().size(), 2U);
  EXPECT_EQ(reply.reasons()[0], v1::REASON_INVALID);
  EXPECT_EQ(reply.outcomes()[1], v1::PUT_OUTCOME_STORED);
}

TEST_P(Verbs, ProbeTellsHitsBoundaryAndHold) {
  const std::string digest = OpenNamespace();
  Put(digest, {1, 2});
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digest, {1, 2, 3});
  request.set_hold_ms(60'000);
  v1::ProbeReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &reply).ok());
  EXPECT_EQ(reply.states(),
            Bytes({v1::KEY_STATE_READY, v1::KEY_STATE_READY, v1::KEY_STATE_MISS}));
  ASSERT_EQ(reply.part_hits_size(), 1);
  EXPECT_EQ(reply.part_hits(0), 2U);
  EXPECT_EQ(reply.part_boundary_keys(0), 2U);
  EXPECT_EQ(reply.boundary_tokens(), 32U);
  EXPECT_EQ(reply.hit_bytes(), uint64_t{2} * kBlockBytes);
  EXPECT_EQ(reply.hold_id().size(), 16U);
  EXPECT_EQ(reply.hold_ms(), 60'000U);
  EXPECT_EQ(reply.boot_id(), room_->front().boot_id());
}

TEST_P(Verbs, ProbeTellsHowFarLoadingIsWorthIt) {
  const std::string digest = OpenNamespace();
  Put(digest, {1, 2});
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digest, {1, 2, 3});
  v1::ProbeReply unknown;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &unknown).ok());
  EXPECT_EQ(unknown.recompute_us(), 0U);
  EXPECT_EQ(unknown.worth_tokens(), 32U) << "all counts as worth it";
  room_->store().SetNamespaceRules({{"", "*", std::nullopt, RecomputeModel{1.0, 0}}});
  v1::ProbeReply slow;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &slow).ok());
  EXPECT_EQ(slow.recompute_us(), 32'000'000U);
  EXPECT_EQ(slow.worth_tokens(), 32U);
  // No memory is read in a fraction of a picosecond.
  room_->store().SetNamespaceRules({{"", "*", std::nullopt, RecomputeModel{1e-15, 0}}});
  v1::ProbeReply fast;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &fast).ok());
  EXPECT_EQ(fast.recompute_us(), 1U) << "known, and so not 0";
  EXPECT_EQ(fast.worth_tokens(), 0U);
  EXPECT_EQ(fast.boundary_tokens(), 32U) << "which says what can be had";
}

TEST_P(Verbs, PutTellsWhatComputingTook) {
  const std::string digest = OpenNamespace();
  for (uint64_t first = 0; first < 400; first += 100) {
    v1::PutRequest request;
    for (uint64_t key = first; key < first + 16; ++key) {
      request.mutable_part()->mutable_keys()->append(TestKey(key));
      request.mutable_payload()->append(TestPayload(key, kBlockBytes));
    }
    request.mutable_part()->set_namespace_digest(digest);
    request.mutable_hints()->set_compute_us(25'600'000);
    v1::PutReply reply;
    ASSERT_TRUE(client_->Call(v1::METHOD_PUT, request, &reply).ok());
  }
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digest, {0, 1, 2});
  v1::ProbeReply reply;
  ASSERT_TRUE(Eventually([&] {
    return client_->Call(v1::METHOD_PROBE, request, &reply).ok() && reply.recompute_us() > 0;
  }));
  EXPECT_EQ(reply.recompute_us(), 4'800'000U) << "a tenth of a second a token";
}

TEST_P(Verbs, HoldsAreClampedToTenMinutes) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digest, {1});
  request.set_hold_ms(UINT32_MAX);
  v1::ProbeReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &reply).ok());
  EXPECT_EQ(reply.hold_ms(), 600'000U);
}

TEST_P(Verbs, ProbeOfAnUnknownNamespaceMisses) {
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(std::string(16, 'x'), {1});
  v1::ProbeReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &reply).ok());
  EXPECT_EQ(reply.states(), Bytes({v1::KEY_STATE_MISS}));
}

TEST_P(Verbs, NoKeysIsNoError) {
  const std::string digest = OpenNamespace();
  v1::ProbeRequest request;
  *request.add_parts() = PartOf(digest, {});
  v1::ProbeReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, request, &reply).ok());
  EXPECT_EQ(reply.states(), "");
}

TEST_P(Verbs, SaltNarrowsIdentity) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::GetRequest request;
  *request.add_parts() = PartOf(digest, {1});
  request.mutable_parts(0)->set_salt("other");
  v1::GetReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_GET, request, &reply).ok());
  EXPECT_EQ(reply.outcomes(), Bytes({v1::GET_OUTCOME_MISS}));
}

TEST_P(Verbs, ReleaseEndsAHoldOnce) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(digest, {1});
  probe.set_hold_ms(60'000);
  v1::ProbeReply held;
  ASSERT_TRUE(client_->Call(v1::METHOD_PROBE, probe, &held).ok());
  v1::ReleaseRequest request;
  request.add_hold_ids(held.hold_id());
  request.add_leases()->set_lease_id(std::string(16, 'x'));
  v1::ReleaseReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_RELEASE, request, &reply).ok());
  EXPECT_EQ(reply.released(), 1U);
  EXPECT_EQ(reply.not_found(), 1U);
  ASSERT_TRUE(client_->Call(v1::METHOD_RELEASE, request, &reply).ok());
  EXPECT_EQ(reply.released(), 0U);
  EXPECT_EQ(reply.not_found(), 2U);
}

TEST_P(Verbs, ClearNamespaceMakesAllOlderBlocksMisses) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::ClearNamespaceRequest request;
  request.set_namespace_digest(digest);
  v1::ClearNamespaceReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_CLEAR_NAMESPACE, request, &reply).ok());
  EXPECT_EQ(reply.generation(), 2U);
  EXPECT_EQ(Get(digest, {1}).outcomes(), Bytes({v1::GET_OUTCOME_MISS}));
}

TEST_P(Verbs, DeleteCountsWhatWasThere) {
  const std::string digest = OpenNamespace();
  Put(digest, {1, 2});
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(digest, {1, 3});
  v1::DeleteReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_DELETE, request, &reply).ok());
  EXPECT_EQ(reply.deleted(), 1U);
  EXPECT_EQ(reply.not_found(), 1U);
  EXPECT_EQ(Get(digest, {1}).outcomes(), Bytes({v1::GET_OUTCOME_MISS}));
}

TEST_P(Verbs, PinAndUnpinAnswerPerKey) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::PinRequest pin;
  *pin.mutable_part() = PartOf(digest, {1, 2});
  pin.set_ttl_s(2'592'000);
  v1::PinReply pinned;
  ASSERT_TRUE(client_->Call(v1::METHOD_PIN, pin, &pinned).ok());
  EXPECT_EQ(pinned.reasons(), Bytes({v1::REASON_NONE, v1::REASON_NOT_PRESENT}));
  EXPECT_GT(pinned.pinned_bytes(), 0U);
  EXPECT_GE(pinned.budget_bytes(), pinned.pinned_bytes());
  v1::UnpinRequest unpin;
  *unpin.mutable_part() = PartOf(digest, {1, 2});
  v1::UnpinReply unpinned;
  ASSERT_TRUE(client_->Call(v1::METHOD_UNPIN, unpin, &unpinned).ok());
  EXPECT_EQ(unpinned.unpinned(), 1U);
}

TEST_P(Verbs, PrefetchTellsWhatIsReadyAndWhatIsNowhere) {
  const std::string digest = OpenNamespace();
  Put(digest, {1});
  v1::PrefetchRequest request;
  *request.add_parts() = PartOf(digest, {1, 2});
  request.set_priority(v1::PRIORITY_HIGH);
  request.set_deadline_ms(UINT32_MAX);
  v1::PrefetchReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_PREFETCH, request, &reply).ok());
  EXPECT_EQ(reply.keys_ready(), 1U);
  EXPECT_EQ(reply.keys_missing(), 1U);
  EXPECT_EQ(reply.keys_moving(), 0U);
}

TEST_P(Verbs, AnUnknownTicketIsNotFound) {
  v1::TicketRequest request;
  request.set_ticket(4711);
  request.set_wait_ms(1);
  v1::TicketReply reply;
  EXPECT_EQ(client_->Call(v1::METHOD_TICKET, request, &reply).code, absl::StatusCode::kNotFound);
}

TEST_P(Verbs, CancelOfWhatHasEndedFindsNothing) {
  v1::CancelRequest request;
  request.set_ticket(4711);
  v1::CancelReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_CANCEL, request, &reply).ok());
  EXPECT_FALSE(reply.found());
}

TEST_P(Verbs, FlushToDramIsImmediate) {
  v1::FlushRequest request;
  v1::FlushReply reply;
  ASSERT_TRUE(client_->Call(v1::METHOD_FLUSH, request, &reply).ok());
  EXPECT_EQ(reply.boot_id(), room_->front().boot_id());
}

TEST_P(Verbs, LargestCallIsAnswered) {
  const std::string digest = OpenNamespace();
  Put(digest, {0, 1, 2});
  v1::ProbeRequest request;
  for (int p = 0; p < 64; ++p) {
    std::vector<uint64_t> keys(256);
    for (size_t i = 0; i < keys.size(); ++i) {
      keys[i] = i;
    }
    *request.add_parts() = PartOf(digest, keys);
  }
  v1::ProbeReply reply;
  const CallEnd end = client_->Call(v1::METHOD_PROBE, request, &reply);
  ASSERT_TRUE(end.ok()) << end.message;
  EXPECT_EQ(reply.states().size(), 16384U);
  EXPECT_EQ(reply.part_hits(63), 3U);
}

TEST_P(Verbs, ThreeMebibytesGoInline) {
  v1::OpenNamespaceRequest open;
  *open.mutable_record() = TestRecord(3 << 20);
  v1::OpenNamespaceReply opened;
  ASSERT_TRUE(client_->Call(v1::METHOD_OPEN_NAMESPACE, open, &opened).ok());
  v1::PutRequest request;
  *request.mutable_part() = PartOf(opened.namespace_digest(), {9});
  request.set_payload(TestPayload(9, 3 << 20));
  v1::PutReply reply;
  const CallEnd end = client_->Call(v1::METHOD_PUT, request, &reply);
  ASSERT_TRUE(end.ok()) << end.message;
  EXPECT_EQ(reply.outcomes(), Bytes({v1::PUT_OUTCOME_STORED}));
  EXPECT_EQ(Get(opened.namespace_digest(), {9}).payload(), request.payload());
}

TEST_P(Verbs, CallsAreReportedWithVerbAndCode) {
  const std::string digest = OpenNamespace();
  Get(digest, {1});
  v1::ProbeRequest bad;
  v1::ProbeReply reply;
  client_->Call(v1::METHOD_PROBE, bad, &reply);
  EXPECT_TRUE(Eventually([&] {
    return room_->observer().Calls("Get", absl::StatusCode::kOk) == 1 &&
           room_->observer().Calls("Probe", absl::StatusCode::kInvalidArgument) == 1;
  }));
}

}  // namespace
}  // namespace terrace::doubles
