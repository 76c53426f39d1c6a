// Bad input gets the same code over both carriers, names field and limit, and has no effect.
#include <functional>

#include "tests/contract/carriers/carrier_suite.h"

namespace terrace::doubles {
namespace {

using Code = absl::StatusCode;

// One row of the table of bad input: what is sent, what must come back.
struct Row {
  std::string name;
  v1::Method method = v1::METHOD_UNSPECIFIED;
  std::shared_ptr<google::protobuf::Message> request;
  std::shared_ptr<google::protobuf::Message> reply;
  Code code = Code::kInvalidArgument;
  std::string field;  // "": not looked at
};

v1::Part GoodPart() {
  v1::Part part;
  part.set_namespace_digest(std::string(16, 'n'));
  part.set_keys(TestKey(1) + TestKey(2));
  return part;
}

template <typename Request, typename Reply>
Row MakeRow(const std::string& name,
            v1::Method method,
            const std::string& field,
            const std::function<void(Request&)>& spoil,
            Code code = Code::kInvalidArgument) {
  auto request = std::make_shared<Request>();
  spoil(*request);
  return {name, method, request, std::make_shared<Reply>(), code, field};
}

Row ProbeRow(const std::string& name, const std::string& field, const std::function<void(v1::ProbeRequest&)>& spoil) {
  return MakeRow<v1::ProbeRequest, v1::ProbeReply>(name, v1::METHOD_PROBE, field, [&](v1::ProbeRequest& request) {
    *request.add_parts() = GoodPart();
    spoil(request);
  });
}

Row PartRow(const std::string& name, const std::string& field, const std::function<void(v1::Part&)>& spoil) {
  return ProbeRow(name, "parts[0]." + field, [&](v1::ProbeRequest& request) { spoil(*request.mutable_parts(0)); });
}

Row GetRow(const std::string& name,
           const std::string& field,
           const std::function<void(v1::GetRequest&)>& spoil,
           Code code = Code::kInvalidArgument) {
  return MakeRow<v1::GetRequest, v1::GetReply>(
      name,
      v1::METHOD_GET,
      field,
      [&](v1::GetRequest& request) {
        *request.add_parts() = GoodPart();
        spoil(request);
      },
      code);
}

Row PutRow(const std::string& name,
           const std::string& field,
           const std::function<void(v1::PutRequest&)>& spoil,
           Code code = Code::kInvalidArgument) {
  return MakeRow<v1::PutRequest, v1::PutReply>(
      name,
      v1::METHOD_PUT,
      field,
      [&](v1::PutRequest& request) {
        *request.mutable_part() = GoodPart();
        request.add_payload_bytes(8);
        request.set_payload(std::string(16, 'p'));
        spoil(request);
      },
      code);
}

Row OpenRow(const std::string& name, const std::string& field, const std::function<void(v1::NamespaceRecord&)>& spoil) {
  return MakeRow<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>(
      name, v1::METHOD_OPEN_NAMESPACE, field, [&](v1::OpenNamespaceRequest& request) {
        *request.mutable_record() = TestRecord(4096);
        spoil(*request.mutable_record());
      });
}

std::vector<Row> PartRows() {
  return {
      ProbeRow("NoParts", "parts", [](v1::ProbeRequest& r) { r.clear_parts(); }),
      ProbeRow("TooManyParts", "parts",
               [](v1::ProbeRequest& r) {
                 for (int i = 0; i < 64; ++i) {
                   *r.add_parts() = GoodPart();
                 }
               }),
      ProbeRow("TooManyKeysOverParts", "parts",
               [](v1::ProbeRequest& r) {
                 for (int i = 0; i < 2; ++i) {
                   *r.add_parts() = GoodPart();
                   r.mutable_parts(i)->set_keys(std::string(size_t{32} * 8192, 'k'));
                 }
               }),
      PartRow("TooManyKeys", "keys", [](v1::Part& p) { p.set_keys(std::string(size_t{32} * 16385, 'k')); }),
      PartRow("DigestTooShort", "namespace_digest", [](v1::Part& p) { p.set_namespace_digest("short"); }),
      PartRow("SaltTooLong", "salt", [](v1::Part& p) { p.set_salt(std::string(257, 's')); }),
      PartRow("KeysTooShort", "key_bytes", [](v1::Part& p) { p.set_key_bytes(15); }),
      PartRow("KeysTooLong", "key_bytes", [](v1::Part& p) { p.set_key_bytes(65); }),
      PartRow("KeysNotWhole", "keys", [](v1::Part& p) { p.mutable_keys()->push_back('x'); }),
      PartRow("UnknownRule", "rule", [](v1::Part& p) { p.set_rule(static_cast<v1::Rule>(99)); }),
      PartRow("WindowWithoutTokens", "window_tokens", [](v1::Part& p) { p.set_rule(v1::RULE_WINDOW); }),
      PartRow("TokensWithoutWindow", "window_tokens", [](v1::Part& p) { p.set_window_tokens(5); }),
      PartRow("EndTokensNotOneAKey", "end_tokens", [](v1::Part& p) { p.add_end_tokens(5); }),
      PartRow("EndTokensDoNotRise", "end_tokens",
              [](v1::Part& p) {
                p.add_end_tokens(5);
                p.add_end_tokens(5);
              }),
      ProbeRow("RequestIdTooLong", "request_id", [](v1::ProbeRequest& r) { r.set_request_id(std::string(65, 'i')); }),
      ProbeRow("UnknownPriority", "prefetch_priority",
               [](v1::ProbeRequest& r) { r.set_prefetch_priority(static_cast<v1::Priority>(9)); }),
  };
}

std::vector<Row> GetRows() {
  return {
      GetRow("UnknownDelivery", "delivery", [](v1::GetRequest& r) { r.set_delivery(static_cast<v1::Delivery>(7)); }),
      GetRow("HoldIdWrong", "hold_id", [](v1::GetRequest& r) { r.set_hold_id("x"); }),
      GetRow("WaitPendingUnknown", "wait_pending", [](v1::GetRequest& r) { r.set_wait_pending(2); }),
      MakeRow<v1::PrefetchRequest, v1::PrefetchReply>(
          "PrefetchPriority", v1::METHOD_PREFETCH, "priority",
          [](v1::PrefetchRequest& r) {
            *r.add_parts() = GoodPart();
            r.set_priority(static_cast<v1::Priority>(-1));
          }),
      MakeRow<v1::ReleaseRequest, v1::ReleaseReply>(
          "LeaseIdWrong", v1::METHOD_RELEASE, "leases[0].lease_id",
          [](v1::ReleaseRequest& r) { r.add_leases()->set_lease_id("x"); }),
      MakeRow<v1::ReleaseRequest, v1::ReleaseReply>(
          "TooManyHolds", v1::METHOD_RELEASE, "hold_ids",
          [](v1::ReleaseRequest& r) {
            for (int i = 0; i < 1025; ++i) {
              r.add_hold_ids(std::string(16, 'h'));
            }
          }),
      MakeRow<v1::ReleaseRequest, v1::ReleaseReply>(
          "TooManyLeases", v1::METHOD_RELEASE, "leases",
          [](v1::ReleaseRequest& r) {
            for (int i = 0; i < 1025; ++i) {
              r.add_leases()->set_lease_id(std::string(16, 'l'));
            }
          }),
      MakeRow<v1::CancelRequest, v1::CancelReply>("CancelOfNothing", v1::METHOD_CANCEL, "ticket",
                                                  [](v1::CancelRequest&) {}),
  };
}

std::vector<Row> PutRows() {
  return {
      PutRow("NoPart", "part", [](v1::PutRequest& r) { r.clear_part(); }),
      PutRow("ParentNotAKey", "parent", [](v1::PutRequest& r) { r.set_parent(std::string(31, 'p')); }),
      PutRow("SizesNotOneAKey", "payload_bytes",
             [](v1::PutRequest& r) {
               for (int i = 0; i < 2; ++i) {
                 r.add_payload_bytes(8);
               }
             }),
      PutRow("PayloadTooShort", "payload", [](v1::PutRequest& r) { r.mutable_payload()->pop_back(); }),
      PutRow("PayloadTooLong", "payload", [](v1::PutRequest& r) { r.mutable_payload()->push_back('x'); }),
      PutRow("PayloadSumOverflows", "payload", [](v1::PutRequest& r) { r.set_payload_bytes(0, UINT32_MAX); }),
      PutRow("PayloadOverInlineLimit", "payload",
             [](v1::PutRequest& r) { r.set_payload(std::string((3 << 20) + 1, 'x')); }),
      PutRow("MetadataNotOneAKey", "metadata", [](v1::PutRequest& r) { r.add_metadata(); }),
      PutRow("MetadataTooLarge", "metadata[1]",
             [](v1::PutRequest& r) {
               r.add_metadata();
               r.add_metadata()->set_extra_keys(std::string(12289, 'm'));
             }),
      PutRow("StopReasonTooLong", "hints.stop_reason",
             [](v1::PutRequest& r) { r.mutable_hints()->set_stop_reason(std::string(33, 's')); }),
      PutRow("UnknownLevel", "wait_for", [](v1::PutRequest& r) { r.set_wait_for(static_cast<v1::Level>(17)); }),
      PutRow("LevelNotServed", "", [](v1::PutRequest& r) { r.set_wait_for(v1::LEVEL_LOCAL_WRITTEN); },
             Code::kUnimplemented),
      PutRow("PoolNotServed", "", [](v1::PutRequest& r) { r.set_wait_for(v1::LEVEL_POOL); }, Code::kUnimplemented),
      PutRow("NamespaceNotOpen", "", [](v1::PutRequest&) {}, Code::kNotFound),
      PutRow("NamespaceNotOpenAndNoSizes", "", [](v1::PutRequest& r) { r.clear_payload_bytes(); }, Code::kNotFound),
      MakeRow<v1::FlushRequest, v1::FlushReply>("FlushUnknownLevel", v1::METHOD_FLUSH, "level",
                                                [](v1::FlushRequest& r) { r.set_level(static_cast<v1::Level>(9)); }),
      MakeRow<v1::FlushRequest, v1::FlushReply>(
          "FlushNotServed", v1::METHOD_FLUSH, "", [](v1::FlushRequest& r) { r.set_level(v1::LEVEL_LOCAL_SYNCED); },
          Code::kUnimplemented),
      MakeRow<v1::DeleteRequest, v1::DeleteReply>("DeleteNoPart", v1::METHOD_DELETE, "part",
                                                  [](v1::DeleteRequest&) {}),
      MakeRow<v1::DeleteRequest, v1::DeleteReply>(
          "DeleteNotOpen", v1::METHOD_DELETE, "", [](v1::DeleteRequest& r) { *r.mutable_part() = GoodPart(); },
          Code::kNotFound),
      MakeRow<v1::PinRequest, v1::PinReply>("PinTooLong", v1::METHOD_PIN, "ttl_s",
                                            [](v1::PinRequest& r) {
                                              *r.mutable_part() = GoodPart();
                                              r.set_ttl_s(2592001);
                                            }),
      MakeRow<v1::UnpinRequest, v1::UnpinReply>("UnpinNoPart", v1::METHOD_UNPIN, "part", [](v1::UnpinRequest&) {}),
      MakeRow<v1::ClearNamespaceRequest, v1::ClearNamespaceReply>(
          "ClearDigestWrong", v1::METHOD_CLEAR_NAMESPACE, "namespace_digest",
          [](v1::ClearNamespaceRequest& r) { r.set_namespace_digest(std::string(17, 'x')); }),
      MakeRow<v1::ClearNamespaceRequest, v1::ClearNamespaceReply>(
          "ClearNotOpen", v1::METHOD_CLEAR_NAMESPACE, "",
          [](v1::ClearNamespaceRequest& r) { r.set_namespace_digest(std::string(16, 'x')); }, Code::kNotFound),
  };
}

std::vector<Row> RecordRows() {
  return {
      MakeRow<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>("NoRecord", v1::METHOD_OPEN_NAMESPACE, "record",
                                                                [](v1::OpenNamespaceRequest&) {}),
      OpenRow("NoModel", "", [](v1::NamespaceRecord& r) { r.clear_model(); }),
      OpenRow("ModelTooLong", "record.model", [](v1::NamespaceRecord& r) { r.set_model(std::string(257, 'm')); }),
      OpenRow("NoBlockBytes", "", [](v1::NamespaceRecord& r) { r.set_block_bytes(0); }),
      OpenRow("BlocksTooLarge", "", [](v1::NamespaceRecord& r) { r.set_block_bytes((64U << 20) + 1); }),
      OpenRow("UnknownSharding", "record.sharding",
              [](v1::NamespaceRecord& r) { r.set_sharding(static_cast<v1::Sharding>(4)); }),
      OpenRow("RankBeyondShards", "",
              [](v1::NamespaceRecord& r) {
                r.set_shard_count(2);
                r.set_shard_rank(2);
              }),
      OpenRow("SuffixTooLong", "record.key_suffix",
              [](v1::NamespaceRecord& r) { r.set_key_suffix(std::string(17, 's')); }),
      OpenRow("TooManyLabels", "record.labels",
              [](v1::NamespaceRecord& r) {
                for (int i = 0; i < 17; ++i) {
                  (*r.mutable_labels())[std::to_string(i)] = "x";
                }
              }),
      OpenRow("LabelTooLong", "record.labels",
              [](v1::NamespaceRecord& r) { (*r.mutable_labels())["k"] = std::string(257, 'v'); }),
  };
}

std::vector<Row> AllRows() {
  std::vector<Row> all;
  for (const std::vector<Row>& rows : {PartRows(), GetRows(), PutRows(), RecordRows()}) {
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

class Refusals : public CarrierSuite {};
INSTANTIATE_TEST_SUITE_P(Both,
                         Refusals,
                         ::testing::Values(CarrierKind::kSession, CarrierKind::kGrpc),
                         CarrierName);

TEST_P(Refusals, EveryRowOfBadInputGetsItsCodeAndNamesItsField) {
  for (const Row& row : AllRows()) {
    SCOPED_TRACE(row.name);
    const CallEnd end = client_->Call(row.method, *row.request, row.reply.get());
    EXPECT_EQ(end.code, row.code) << end.message;
    if (!row.field.empty()) {
      EXPECT_EQ(end.field, row.field) << end.message;
      EXPECT_EQ(end.message.rfind(row.field + ": ", 0), 0U) << end.message;
    }
  }
  const StoreUsage usage = room_->store().Usage();
  EXPECT_EQ(usage.blocks, 0U);
  EXPECT_EQ(usage.holds, 0U);
  EXPECT_EQ(usage.calls_in_flight, 0U);
  EXPECT_TRUE(room_->store().Namespaces().empty());
}

TEST_P(Refusals, WhatCannotBeDecodedIsInvalidAndTheThirdEndsTheConnection) {
  v1::ProbeReply reply;
  for (int i = 0; i < 2; ++i) {
    const CallEnd end = client_->CallWithBytes(
        v1::METHOD_PROBE, "\xff\xff\xff garbage", &reply, absl::InfiniteDuration());
    EXPECT_EQ(end.code, Code::kInvalidArgument) << end.message;
  }
  client_->CallWithBytes(v1::METHOD_PROBE, "\x0a\x05x", &reply, absl::InfiniteDuration());
  const Carrier carrier = GetParam() == CarrierKind::kSession ? Carrier::kSession : Carrier::kGrpc;
  EXPECT_TRUE(Eventually([&] { return room_->observer().Connections(carrier, "closed") == 1; }));
}

TEST_P(Refusals, AMillionEmptySubmessagesAreRefusedUnparsed) {
  std::string bytes;
  for (int i = 0; i < 1'000'000; ++i) {
    bytes.append(std::string("\x0a\x00", 2));
  }
  v1::ProbeReply reply;
  const CallEnd end =
      client_->CallWithBytes(v1::METHOD_PROBE, bytes, &reply, absl::InfiniteDuration());
  EXPECT_EQ(end.code, Code::kInvalidArgument);
  EXPECT_EQ(end.field, "message");
}

TEST_P(Refusals, AFloodOfRefusedRequestsEarnsAPause) {
  v1::ProbeRequest bad;
  v1::ProbeReply reply;
  bool paused = false;
  for (int i = 0; i < 2000 && !paused; ++i) {
    const CallEnd end = client_->Call(v1::METHOD_PROBE, bad, &reply);
    paused = end.code == Code::kResourceExhausted && end.retry_after_ms == 1000;
    if (!paused) {
      EXPECT_EQ(end.code, Code::kInvalidArgument);
    }
  }
  EXPECT_TRUE(paused);
}

TEST(SessionOnly, LeasesAndRegionsNeedASession) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok()) << room.status();
  absl::StatusOr<std::unique_ptr<CarrierClient>> grpc = OpenGrpcCarrier((*room)->folder());
  ASSERT_TRUE(grpc.ok());
  for (const v1::Delivery delivery : {v1::DELIVERY_LEASE, v1::DELIVERY_REGION}) {
    const Row row = GetRow("", "", [delivery](v1::GetRequest& r) { r.set_delivery(delivery); });
    EXPECT_EQ((*grpc)->Call(row.method, *row.request, row.reply.get()).code, Code::kFailedPrecondition);
  }
  const Row put = PutRow("", "", [](v1::PutRequest& r) { r.mutable_region()->set_region_id(1); });
  EXPECT_EQ((*grpc)->Call(put.method, *put.request, put.reply.get()).code, Code::kFailedPrecondition);
  v1::CancelRequest cancel;
  cancel.set_call_id(1);
  v1::CancelReply reply;
  EXPECT_EQ((*grpc)->Call(v1::METHOD_CANCEL, cancel, &reply).code, Code::kFailedPrecondition);
}

TEST(SessionOnly, RegionGetsMustNameABlockForEachKey) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok()) << room.status();
  absl::StatusOr<std::unique_ptr<CarrierClient>> session = OpenSessionCarrier((*room)->folder());
  ASSERT_TRUE(session.ok()) << session.status();
  const std::vector<Row> rows = {
      GetRow("NoRegions", "regions", [](v1::GetRequest& r) { r.set_delivery(v1::DELIVERY_REGION); }),
      GetRow("RegionZero", "regions[0].region_id",
             [](v1::GetRequest& r) {
               r.set_delivery(v1::DELIVERY_REGION);
               r.add_regions();
             }),
      GetRow("TooFewIndexes", "regions[0].block_indexes",
             [](v1::GetRequest& r) {
               r.set_delivery(v1::DELIVERY_REGION);
               r.add_regions()->set_region_id(1);
             }),
      PutRow("PayloadBesideRegion", "payload", [](v1::PutRequest& r) { r.mutable_region()->set_region_id(1); }),
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const CallEnd end = (*session)->Call(row.method, *row.request, row.reply.get());
    EXPECT_EQ(end.code, Code::kInvalidArgument) << end.message;
    EXPECT_EQ(end.field, row.field);
  }
}

}  // namespace
}  // namespace terrace::doubles
