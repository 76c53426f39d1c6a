// Each test of this suite runs once over a session and once over gRPC, against a front of its own.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/doubles/carrier_client.h"
#include "tests/doubles/front_room.h"

namespace terrace::doubles {

enum class CarrierKind : uint8_t { kSession, kGrpc };

inline std::string CarrierName(const ::testing::TestParamInfo<CarrierKind>& kind) {
  return kind.param == CarrierKind::kSession ? "Session" : "Grpc";
}

class CarrierSuite : public ::testing::TestWithParam<CarrierKind> {
 protected:
  static constexpr uint32_t kBlockBytes = 4096;

  void SetUp() override {
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(Options());
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    client_ = NewClient();
    ASSERT_NE(client_, nullptr);
  }
  virtual FrontRoomOptions Options() { return {}; }

  std::unique_ptr<CarrierClient> NewClient() {
    absl::StatusOr<std::unique_ptr<CarrierClient>> client =
        GetParam() == CarrierKind::kSession ? OpenSessionCarrier(room_->folder())
                                            : OpenGrpcCarrier(room_->folder());
    return client.ok() ? *std::move(client) : nullptr;
  }

  // Opens the suite's namespace and returns its digest.
  std::string OpenNamespace() {
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(kBlockBytes);
    v1::OpenNamespaceReply reply;
    const CallEnd end = client_->Call(v1::METHOD_OPEN_NAMESPACE, request, &reply);
    EXPECT_TRUE(end.ok()) << end.message;
    return reply.namespace_digest();
  }

  static v1::Part PartOf(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::Part part;
    part.set_namespace_digest(digest);
    for (const uint64_t key : keys) {
      part.mutable_keys()->append(TestKey(key));
    }
    return part;
  }

  // Stores the keys' payloads inline.
  v1::PutReply Put(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest, keys);
    for (const uint64_t key : keys) {
      request.mutable_payload()->append(TestPayload(key, kBlockBytes));
    }
    v1::PutReply reply;
    const CallEnd end = client_->Call(v1::METHOD_PUT, request, &reply);
    EXPECT_TRUE(end.ok()) << end.message;
    return reply;
  }

  v1::GetReply Get(const std::string& digest, const std::vector<uint64_t>& keys) {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest, keys);
    v1::GetReply reply;
    const CallEnd end = client_->Call(v1::METHOD_GET, request, &reply);
    EXPECT_TRUE(end.ok()) << end.message;
    return reply;
  }

  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<CarrierClient> client_;
};

}  // namespace terrace::doubles
