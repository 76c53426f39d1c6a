// service Admin on admin.sock.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "terrace/v1/admin.pb.h"
#include "tests/doubles/carrier_client.h"
#include "tests/doubles/front_room.h"

namespace terrace::doubles {
namespace {

using Code = absl::StatusCode;
constexpr uint32_t kBlockBytes = 4096;

class AdminTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FrontRoomOptions options;
    options.hooks.version = "1.2.3";
    options.hooks.metrics_address = [] { return std::string("127.0.0.1:1"); };
    options.hooks.publishers = [] {
      EventPublisherFigures figures;
      figures.tenant = "search";
      figures.endpoint = "tcp://127.0.0.1:2";
      figures.next_sequence = 9;
      figures.unsent = 3;
      return std::vector<EventPublisherFigures>{figures};
    };
    options.hooks.reload = [this]() -> absl::StatusOr<AdminHooks::ReloadResult> {
      if (!reload_works_) {
        return absl::InvalidArgumentError("tier.size: too large");
      }
      return AdminHooks::ReloadResult{{"log.level"}, {"dram.bytes"}};
    };
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    ASSERT_TRUE(client.ok());
    client_ = *std::move(client);
    admin_ = *OpenAdminCarrier(room_->folder());
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kBlockBytes);
    const auto opened = client_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
    ASSERT_TRUE(opened.ok());
    digest_ = opened->namespace_digest();
    v1::PutRequest put;
    put.mutable_part()->set_namespace_digest(digest_);
    put.mutable_part()->set_keys(TestKey(1) + TestKey(2));
    put.set_payload(TestPayload(1, kBlockBytes) + TestPayload(2, kBlockBytes));
    ASSERT_TRUE(client_->Call<v1::PutReply>(v1::METHOD_PUT, put).ok());
  }

  CallEnd Ask(const google::protobuf::Message& request, google::protobuf::Message* reply) {
    return CallAdmin(*admin_, request, reply);
  }
  v1::PutReply PutOne(uint64_t key) {
    v1::PutRequest put;
    put.mutable_part()->set_namespace_digest(digest_);
    put.mutable_part()->set_keys(TestKey(key));
    put.set_payload(TestPayload(key, kBlockBytes));
    const auto reply = client_->Call<v1::PutReply>(v1::METHOD_PUT, put);
    return reply.ok() ? *reply : v1::PutReply();
  }
  static std::string Tenant() { return "uid-" + std::to_string(getuid()); }

  bool reload_works_ = true;
  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::unique_ptr<CarrierClient> admin_;
  std::string digest_;
};

TEST_F(AdminTest, StatusTellsWhatIsHeldAndServed) {
  v1::StatusReply status;
  ASSERT_TRUE(Ask(v1::StatusRequest(), &status).ok());
  EXPECT_EQ(status.boot_id(), room_->front().boot_id());
  EXPECT_EQ(status.version(), "1.2.3");
  EXPECT_EQ(status.sessions(), 1U);
  EXPECT_EQ(status.blocks(), 2U);
  EXPECT_EQ(status.block_bytes(), uint64_t{2} * kBlockBytes);
  EXPECT_EQ(status.puts(), 2U);
  EXPECT_EQ(status.metrics_address(), "127.0.0.1:1");
  ASSERT_EQ(status.publishers_size(), 1);
  EXPECT_EQ(status.publishers(0).tenant(), "search");
  EXPECT_EQ(status.publishers(0).endpoint(), "tcp://127.0.0.1:2");
  EXPECT_EQ(status.publishers(0).next_sequence(), 9U);
  EXPECT_EQ(status.publishers(0).unsent(), 3U);
  EXPECT_GT(status.resident_bytes(), 0U);
  EXPECT_GT(status.open_descriptors(), 0U);
  EXPECT_FALSE(status.copy_kernel().empty());
  EXPECT_GT(status.features_size(), 0);
}

TEST_F(AdminTest, TiersTenantsAndNamespacesAreListed) {
  v1::TiersReply tiers;
  ASSERT_TRUE(Ask(v1::TiersRequest(), &tiers).ok());
  ASSERT_EQ(tiers.tiers_size(), 1);
  EXPECT_EQ(tiers.tiers(0).name(), "g2");
  EXPECT_EQ(tiers.tiers(0).kind(), "dram");
  EXPECT_EQ(tiers.tiers(0).blocks(), 2U);
  EXPECT_GT(tiers.tiers(0).capacity_bytes(), 0U);
  v1::TenantsReply tenants;
  ASSERT_TRUE(Ask(v1::TenantsRequest(), &tenants).ok());
  ASSERT_EQ(tenants.tenants_size(), 1);
  EXPECT_EQ(tenants.tenants(0).tenant(), Tenant());
  EXPECT_EQ(tenants.tenants(0).blocks(), 2U);
  v1::NamespacesReply namespaces;
  ASSERT_TRUE(Ask(v1::NamespacesRequest(), &namespaces).ok());
  ASSERT_EQ(namespaces.namespaces_size(), 1);
  EXPECT_EQ(namespaces.namespaces(0).namespace_digest(), digest_);
  EXPECT_EQ(namespaces.namespaces(0).record().model(), "test/model");
  EXPECT_EQ(namespaces.namespaces(0).blocks(), 2U);
}

TEST_F(AdminTest, ExplainSaysWhereAKeyIs) {
  v1::ExplainRequest request;
  request.set_namespace_digest(digest_);
  request.set_key(TestKey(1));
  v1::ExplainReply reply;
  ASSERT_TRUE(Ask(request, &reply).ok());
  EXPECT_EQ(reply.state(), v1::KEY_STATE_READY);
  EXPECT_EQ(reply.tier(), "g2");
  EXPECT_EQ(reply.payload_bytes(), kBlockBytes);
  EXPECT_FALSE(reply.text().empty());
  request.set_key("short");
  const CallEnd end = Ask(request, &reply);
  EXPECT_EQ(end.code, Code::kInvalidArgument);
  EXPECT_EQ(end.field, "key");
  request.set_key(TestKey(1));
  request.set_namespace_digest("short");
  EXPECT_EQ(Ask(request, &reply).field, "namespace_digest");
}

TEST_F(AdminTest, QuotasAreForTenantsThatExist) {
  v1::SetQuotaRequest request;
  request.set_tenant("nobody");
  v1::SetQuotaReply reply;
  EXPECT_EQ(Ask(request, &reply).code, Code::kNotFound);
  request.set_tenant(Tenant());
  request.set_guaranteed_bytes(uint64_t{1} << 20);
  request.set_limit_bytes(uint64_t{2} << 20);
  EXPECT_TRUE(Ask(request, &reply).ok());
  request.set_guaranteed_bytes(uint64_t{1} << 40);
  EXPECT_EQ(Ask(request, &reply).code, Code::kInvalidArgument);
  v1::TenantsReply tenants;
  ASSERT_TRUE(Ask(v1::TenantsRequest(), &tenants).ok());
  ASSERT_EQ(tenants.tenants_size(), 1);
  EXPECT_EQ(tenants.tenants(0).limit_bytes(), uint64_t{2} << 20);
}

TEST_F(AdminTest, EvictFreesDownToTheTarget) {
  v1::EvictRequest request;
  request.set_tier("g9");
  v1::EvictReply reply;
  EXPECT_EQ(Ask(request, &reply).code, Code::kNotFound);
  request.set_tier("g2");
  ASSERT_TRUE(Ask(request, &reply).ok());
  EXPECT_EQ(reply.evicted_blocks(), 2U);
  EXPECT_EQ(reply.used_bytes(), 0U);
}

TEST_F(AdminTest, DrainDeclinesPutsTellsSessionsAndResumes) {
  v1::DrainRequest request;
  v1::DrainReply reply;
  ASSERT_TRUE(Ask(request, &reply).ok());
  const std::optional<ClientFrame> push = client_->Receive();
  ASSERT_TRUE(push.has_value());
  EXPECT_EQ(push->method, v1::METHOD_BACK_PRESSURE_NOTICE);
  EXPECT_EQ(PutOne(3).reasons(), std::string(1, static_cast<char>(v1::REASON_DRAINING)));
  v1::StatusReply status;
  ASSERT_TRUE(Ask(v1::StatusRequest(), &status).ok());
  EXPECT_TRUE(status.draining());
  request.set_resume(true);
  ASSERT_TRUE(Ask(request, &reply).ok());
  EXPECT_EQ(PutOne(3).outcomes(), std::string(1, static_cast<char>(v1::PUT_OUTCOME_STORED)));
}

TEST_F(AdminTest, VerifyRecomputesEveryChecksum) {
  v1::VerifyReply reply;
  ASSERT_TRUE(Ask(v1::VerifyRequest(), &reply).ok());
  EXPECT_EQ(reply.blocks(), 2U);
  EXPECT_EQ(reply.bytes(), uint64_t{2} * kBlockBytes);
  EXPECT_EQ(reply.corrupt(), 0U);
}

TEST_F(AdminTest, ReloadTellsWhatChangedAndRefusesWhatIsWrong) {
  v1::ReloadReply reply;
  ASSERT_TRUE(Ask(v1::ReloadRequest(), &reply).ok());
  ASSERT_EQ(reply.changed_size(), 1);
  EXPECT_EQ(reply.changed(0), "log.level");
  ASSERT_EQ(reply.needs_restart_size(), 1);
  EXPECT_EQ(reply.needs_restart(0), "dram.bytes");
  reload_works_ = false;
  EXPECT_EQ(Ask(v1::ReloadRequest(), &reply).code, Code::kInvalidArgument);
}

TEST_F(AdminTest, WhatIsNotServedYetSaysSo) {
  v1::ScrubReply scrub;
  EXPECT_EQ(Ask(v1::ScrubRequest(), &scrub).code, Code::kFailedPrecondition) << "no local tier";
  v1::CheckpointReply checkpoint;
  EXPECT_EQ(Ask(v1::CheckpointRequest(), &checkpoint).code, Code::kUnimplemented);
}

TEST_F(AdminTest, TheDataPlaneIsNotOnTheAdminSocketNorTheOtherWayRound) {
  v1::FlushReply flush;
  EXPECT_EQ(Ask(v1::FlushRequest(), &flush).code, Code::kUnimplemented);
  const auto cache = OpenGrpcCarrier(room_->folder());
  v1::StatusReply status;
  EXPECT_EQ((*cache)->Call(v1::METHOD_UNSPECIFIED, v1::StatusRequest(), &status).code, Code::kUnimplemented);
}

}  // namespace
}  // namespace terrace::doubles
