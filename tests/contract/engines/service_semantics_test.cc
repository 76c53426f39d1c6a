// What the contract says beside the delivery of blocks, and that no engine's program happens to
// ask: sessions, namespaces, tenants, envelopes, puts, levels and restarts.
#include "tests/contract/engines/service_room.h"

namespace terrace::contract {
namespace {

using absl::StatusCode;

class ServiceSemantics : public ServiceRoom {};

// ---------------------------------------------------------------- sessions and namespaces

TEST_F(ServiceSemantics, NothingIsAnsweredBeforeHello) {
  const doubles::Caller silent = service_.Connect("team");
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = PlainRecord();
  v1::OpenNamespaceReply reply;
  EXPECT_EQ(service_.OpenNamespace(silent, request, &reply).code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(ServiceSemantics, AnotherMajorVersionIsRefused) {
  v1::HelloRequest request;
  request.set_protocol_major(2);
  v1::HelloReply reply;
  EXPECT_EQ(service_.Hello(service_.Connect("team"), request, &reply).code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(ServiceSemantics, FeaturesThatAreMissingAreAbsentFromHelloAndUnimplemented) {
  doubles::ServiceDouble bare(clock_, {.missing_features = {v1::FEATURE_PINS}});
  v1::HelloRequest hello;
  hello.set_protocol_major(1);
  v1::HelloReply features;
  const doubles::Caller caller = bare.Connect("team");
  ASSERT_TRUE(bare.Hello(caller, hello, &features).ok());
  for (const int feature : features.features()) {
    EXPECT_NE(feature, v1::FEATURE_PINS);
    EXPECT_NE(feature, v1::FEATURE_LOCAL_LEVELS) << "there is no local tier";
  }
  v1::PinReply reply;
  EXPECT_EQ(bare.Pin(caller, {}, &reply).code(), StatusCode::kUnimplemented);
}

TEST_F(ServiceSemantics, WithoutAPidfdThereAreNoLeases) {
  v1::HelloRequest hello;
  hello.set_protocol_major(1);
  v1::HelloReply reply;
  const doubles::Caller caller = service_.Connect("team");
  ASSERT_TRUE(service_.Hello(caller, hello, &reply).ok());
  EXPECT_FALSE(reply.leases());
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, keys_);
  get.set_delivery(v1::DELIVERY_LEASE);
  v1::GetReply got;
  EXPECT_EQ(service_.Get(caller, get, &got).code(), StatusCode::kFailedPrecondition);
}

TEST_F(ServiceSemantics, OpeningTwiceIsTheSameNamespace) {
  EXPECT_EQ(process_.Open(PlainRecord()), digest_);
  v1::NamespaceRecord other = PlainRecord();
  (*other.mutable_labels())["rope"] = "yarn";
  EXPECT_NE(process_.Open(other), digest_);
}

TEST_F(ServiceSemantics, ARecordThatCollidesIsRefusedNamingTheField) {
  service_.CollideNextOpenWith(digest_);
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = PlainRecord();
  request.mutable_record()->set_kv_dtype("fp8_e4m3");
  v1::OpenNamespaceReply reply;
  const absl::Status status = service_.OpenNamespace(process_.caller, request, &reply);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("kv_dtype"), std::string::npos) << status;
}

TEST_F(ServiceSemantics, AnInvalidRecordIsRefusedNamingTheField) {
  using Change = void (*)(v1::NamespaceRecord&);
  const std::vector<std::pair<std::string, Change>> cases = {
      {"model", [](v1::NamespaceRecord& r) { r.clear_model(); }},
      {"weights_revision", [](v1::NamespaceRecord& r) { r.clear_weights_revision(); }},
      {"layout", [](v1::NamespaceRecord& r) { r.set_layout(std::string(257, 'x')); }},
      {"block_bytes", [](v1::NamespaceRecord& r) { r.set_block_bytes(0); }},
      {"block_bytes", [](v1::NamespaceRecord& r) { r.set_block_bytes((uint64_t{64} << 20) + 1); }},
      {"block_tokens", [](v1::NamespaceRecord& r) { r.set_block_tokens(65537); }},
      {"group", [](v1::NamespaceRecord& r) { r.set_group(256); }},
      {"shard_rank", [](v1::NamespaceRecord& r) { r.set_shard_rank(1); }},
      {"sharding", [](v1::NamespaceRecord& r) { r.set_sharding(static_cast<v1::Sharding>(9)); }},
      {"key_suffix", [](v1::NamespaceRecord& r) { r.set_key_suffix(std::string(17, 's')); }},
  };
  for (const auto& [field, change] : cases) {
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = PlainRecord();
    change(*request.mutable_record());
    v1::OpenNamespaceReply reply;
    const absl::Status status = service_.OpenNamespace(process_.caller, request, &reply);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << field;
    EXPECT_NE(status.message().find(field), std::string::npos) << status;
  }
}

TEST_F(ServiceSemantics, AClearedNamespaceHasANewGenerationAndNoBlocks) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 100));
  v1::ClearNamespaceRequest request;
  request.set_namespace_digest(digest_);
  v1::ClearNamespaceReply reply;
  ASSERT_TRUE(service_.ClearNamespace(process_.caller, request, &reply).ok());
  EXPECT_EQ(reply.generation(), 2U);
  EXPECT_EQ(Get(process_, keys_, v1::DELIVERY_INLINE).outcomes(), std::string(4, '\0'));
  EXPECT_TRUE(process_.PutChain(digest_, keys_, 100)) << "the same keys can be stored again";
}

TEST_F(ServiceSemantics, APutInFlightIsLostToAClear) {
  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest_, {keys_[0]});
  put.add_payload_bytes(1);
  put.set_payload("x");
  v1::PutReply answer;
  service_.SubmitPut(process_.caller, put,
                     [&](const absl::Status&, const v1::PutReply& reply) { answer = reply; });
  v1::ClearNamespaceRequest clear;
  clear.set_namespace_digest(digest_);
  v1::ClearNamespaceReply cleared;
  ASSERT_TRUE(service_.ClearNamespace(process_.caller, clear, &cleared).ok());
  ASSERT_TRUE(service_.Step());
  EXPECT_EQ(AnswerAt<v1::Reason>(answer.reasons(), 0), v1::REASON_CLEARED);
  EXPECT_EQ(service_.block_count(), 0U);
}

TEST_F(ServiceSemantics, TenantsDoNotSeeEachOther) {
  ASSERT_TRUE(process_.PutChain(digest_, keys_, 100));
  const EngineProcess other = EngineProcess::Start(service_, "stranger");
  EXPECT_EQ(Get(other, keys_, v1::DELIVERY_INLINE).outcomes(), std::string(4, '\0'))
      << "a foreign digest is as unknown as any";
  EXPECT_NE(other.Open(PlainRecord()), digest_);
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(digest_, keys_);
  v1::DeleteReply reply;
  EXPECT_EQ(service_.Delete(other.caller, request, &reply).code(), StatusCode::kNotFound);
  EXPECT_EQ(Get(process_, keys_, v1::DELIVERY_INLINE).outcomes(), AllOk(4));
}

TEST_F(ServiceSemantics, SaltsSeparateEqualKeys) {
  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest_, {keys_[0]});
  put.mutable_part()->set_salt("user-1");
  put.add_payload_bytes(3);
  put.set_payload("one");
  v1::PutReply reply;
  ASSERT_TRUE(service_.Put(process_.caller, put, &reply).ok());
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE, "user-1").payload(), "one");
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE, "user-2").payload(), "");
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE).payload(), "");
}

// ---------------------------------------------------------------- envelopes

TEST_F(ServiceSemantics, AnEnvelopeThatBreaksALimitFailsTheCallNamingIt) {
  using Change = void (*)(v1::Part&);
  const std::vector<std::pair<std::string, Change>> cases = {
      {"namespace_digest", [](v1::Part& p) { p.set_namespace_digest("short"); }},
      {"salt", [](v1::Part& p) { p.set_salt(std::string(257, 's')); }},
      {"rule", [](v1::Part& p) { p.set_rule(static_cast<v1::Rule>(5)); }},
      {"key_bytes", [](v1::Part& p) { p.set_key_bytes(15); }},
      {"key_bytes", [](v1::Part& p) { p.set_key_bytes(65); }},
      {"keys", [](v1::Part& p) { p.mutable_keys()->push_back('x'); }},
      {"end_tokens", [](v1::Part& p) { p.add_end_tokens(16); }},
      {"end_tokens", [](v1::Part& p) { p.mutable_end_tokens()->Resize(4, 16); }},
      {"window_tokens", [](v1::Part& p) { p.set_window_tokens(64); }},
      {"window_tokens", [](v1::Part& p) { p.set_rule(v1::RULE_WINDOW); }},
      {"parts.keys", [](v1::Part& p) { p.set_keys(std::string(size_t{16385} * 32, 'k')); }},
  };
  for (const auto& [field, change] : cases) {
    v1::ProbeRequest request;
    *request.add_parts() = PartOf(digest_, keys_);
    change(*request.mutable_parts(0));
    v1::ProbeReply reply;
    const absl::Status status = service_.Probe(process_.caller, request, &reply);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << field;
    EXPECT_NE(status.message().find(field), std::string::npos) << status;
  }
  v1::ProbeRequest request;
  v1::ProbeReply reply;
  EXPECT_EQ(service_.Probe(process_.caller, request, &reply).code(), StatusCode::kInvalidArgument)
      << "no part";
  for (int i = 0; i < 65; ++i) {
    *request.add_parts() = PartOf(digest_, {});
  }
  EXPECT_EQ(service_.Probe(process_.caller, request, &reply).code(), StatusCode::kInvalidArgument);
}

TEST_F(ServiceSemantics, ABadPayloadSizeFailsItsKeyAlone) {
  v1::PutRequest put;
  *put.mutable_part() = PartOf(digest_, {keys_[0], keys_[1], keys_[2]});
  put.add_payload_bytes(2);
  put.add_payload_bytes(0);
  put.add_payload_bytes(3);
  put.set_payload("aaccc");
  v1::PutReply reply;
  ASSERT_TRUE(service_.Put(process_.caller, put, &reply).ok());
  EXPECT_EQ(AnswerAt<v1::PutOutcome>(reply.outcomes(), 1), v1::PUT_OUTCOME_FAILED);
  EXPECT_EQ(AnswerAt<v1::Reason>(reply.reasons(), 1), v1::REASON_INVALID);
  EXPECT_EQ(Get(process_, {keys_[0], keys_[2]}, v1::DELIVERY_INLINE).payload(), "aaccc");
}

// ---------------------------------------------------------------- put

TEST_F(ServiceSemantics, TheFirstPutOfAKeyWinsForEver) {
  Put({keys_[0]}, "first");
  const v1::PutReply second = Put({keys_[0]}, "other");
  EXPECT_EQ(AnswerAt<v1::PutOutcome>(second.outcomes(), 0), v1::PUT_OUTCOME_DUPLICATE);
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE).payload(), "first");
}

TEST_F(ServiceSemantics, APutThatJoinsAFailedOneIsTooLate) {
  std::vector<v1::PutReply> answers;
  const auto submit = [&](uint64_t call_id) {
    v1::PutRequest put;
    *put.mutable_part() = PartOf(digest_, {keys_[0]});
    put.add_payload_bytes(1);
    put.set_payload("x");
    doubles::Caller caller = process_.caller;
    caller.call_id = call_id;
    service_.SubmitPut(caller, put, [&](const absl::Status&, const v1::PutReply& reply) {
      answers.push_back(reply);
    });
  };
  submit(1);
  submit(2);
  v1::CancelRequest cancel;
  cancel.set_call_id(1);
  v1::CancelReply cancelled;
  ASSERT_TRUE(service_.Cancel(process_.caller, cancel, &cancelled).ok());
  while (service_.Step()) {
  }
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(AnswerAt<v1::Reason>(answers[0].reasons(), 0), v1::REASON_CANCELLED);
  EXPECT_EQ(AnswerAt<v1::Reason>(answers[1].reasons(), 0), v1::REASON_TOO_LATE);
}

TEST_F(ServiceSemantics, AFullTierDeclinesWhatHoldsAndPinsLeaveNoRoomFor) {
  const std::vector<std::string> many = Chain("many", 64);
  ASSERT_TRUE(process_.PutChain(digest_, many, 4096));
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(digest_, many);
  probe.set_hold_ms(1000);
  v1::ProbeReply held;
  ASSERT_TRUE(service_.Probe(process_.caller, probe, &held).ok());
  const v1::PutReply full = Put({keys_[0]}, std::string(4096, 'x'));
  EXPECT_EQ(AnswerAt<v1::PutOutcome>(full.outcomes(), 0), v1::PUT_OUTCOME_DECLINED);
  EXPECT_EQ(AnswerAt<v1::Reason>(full.reasons(), 0), v1::REASON_NO_SPACE);
  clock_.Advance(absl::Milliseconds(1000));
  const v1::PutReply room = Put({keys_[0]}, std::string(4096, 'x'));
  EXPECT_EQ(AnswerAt<v1::PutOutcome>(room.outcomes(), 0), v1::PUT_OUTCOME_STORED);
}

TEST_F(ServiceSemantics, ATenantOverItsLimitEvictsItsOwn) {
  const EngineProcess other = EngineProcess::Start(service_, "neighbour");
  const std::string foreign = other.Open(PlainRecord());
  ASSERT_TRUE(other.PutChain(foreign, keys_, 4096));
  service_.SetTenantLimit("team", 4 * kSlot);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(process_.PutChain(digest_, {KeyOf("own", static_cast<uint32_t>(i))}, 4096));
    EXPECT_LE(service_.tenant_used_bytes("team"), 4 * kSlot);
  }
  EXPECT_EQ(service_.tenant_used_bytes("neighbour"), 4 * kSlot);
}

TEST_F(ServiceSemantics, AnEvictionTakesTheEndOfAChainFirst) {
  doubles::ServiceDouble small(clock_, {.dram_bytes = 4 * kSlot});
  const EngineProcess process = EngineProcess::Start(small, "team");
  const std::string digest = process.Open(PlainRecord());
  ASSERT_TRUE(process.PutChain(digest, keys_, 4096));
  ASSERT_TRUE(process.PutChain(digest, {KeyOf("other", 0)}, 4096));
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(digest, keys_);
  v1::ProbeReply reply;
  ASSERT_TRUE(small.Probe(process.caller, probe, &reply).ok());
  EXPECT_EQ(reply.part_hits(0), 3U);
}

TEST_F(ServiceSemantics, ADrainingServiceStoresNothingAndDeliversWhatItHas) {
  Put({keys_[0]}, "first");
  service_.SetDraining(true);
  EXPECT_EQ(AnswerAt<v1::Reason>(Put({keys_[1]}, "x").reasons(), 0), v1::REASON_DRAINING);
  EXPECT_EQ(Get(process_, {keys_[0]}, v1::DELIVERY_INLINE).payload(), "first");
}

// ---------------------------------------------------------------- levels and restarts

TEST_F(ServiceSemantics, WhatIsOnlyInDramDoesNotSurviveAKill) {
  Put({keys_[0]}, "dram");
  EXPECT_EQ(AnswerAt<v1::Level>(Put({keys_[1]}, "disk", v1::LEVEL_LOCAL_WRITTEN).levels(), 0),
            v1::LEVEL_LOCAL_WRITTEN);
  const uint64_t boot = service_.boot_id();
  service_.Restart(doubles::ServiceDouble::Survives::kWritten);
  EXPECT_NE(service_.boot_id(), boot);
  process_.Reconnect();
  EXPECT_EQ(process_.Open(PlainRecord()), digest_) << "digests are stable over restarts";
  v1::GetRequest get;
  *get.add_parts() = PartOf(digest_, {keys_[0], keys_[1]}, v1::RULE_INDEPENDENT);
  get.set_wait_pending(1);
  v1::GetReply reply;
  ASSERT_TRUE(service_.Get(process_.caller, get, &reply).ok());
  EXPECT_EQ(reply.payload(), "disk");
}

TEST_F(ServiceSemantics, PowerLossLeavesWhatWasSynced) {
  Put({keys_[0]}, "lost", v1::LEVEL_LOCAL_WRITTEN);
  Put({keys_[1]}, "kept", v1::LEVEL_LOCAL_SYNCED);
  Put({keys_[2]}, "late");
  service_.Restart(doubles::ServiceDouble::Survives::kSynced);
  EXPECT_EQ(service_.block_count(), 1U);
}

TEST_F(ServiceSemantics, AFlushRaisesEverythingStoredBefore) {
  Put({keys_[0]}, "early");
  v1::FlushRequest request;
  request.set_level(v1::LEVEL_LOCAL_SYNCED);
  v1::FlushReply reply;
  ASSERT_TRUE(service_.Flush(process_.caller, request, &reply).ok());
  service_.Restart(doubles::ServiceDouble::Survives::kSynced);
  EXPECT_EQ(service_.block_count(), 1U);
  request.set_level(v1::LEVEL_POOL);
  process_.Reconnect();
  EXPECT_EQ(service_.Flush(process_.caller, request, &reply).code(), StatusCode::kUnimplemented)
      << "there is no pool";
}

}  // namespace
}  // namespace terrace::contract
