// What a generic gRPC client finds on terrace.sock: reflection, health, and the calls themselves.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "terrace/v1/cache.grpc.pb.h"
#include "tests/doubles/front_room.h"
#include "tests/doubles/step_executor.h"
#include "tests/unit/wire/reflection_client.h"

namespace terrace::doubles {
namespace {

class GrpcFrontTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FrontRoomOptions options;
    options.executor = &executor_;
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    channel_ = NewChannel("terrace.sock");
  }
  void TearDown() override {
    channel_ = nullptr;
    if (room_ != nullptr) {
      room_->StopFront();
    }
    executor_.RunAll();
  }
  std::shared_ptr<grpc::Channel> NewChannel(const std::string& name) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("unix:" + room_->path(name), grpc::InsecureChannelCredentials(), arguments);
  }
  static void Bound(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  }

  StepExecutor executor_;
  std::unique_ptr<FrontRoom> room_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(GrpcFrontTest, HealthIsServingAndNoLongerSoWhileDraining) {
  const auto stub = grpc::health::v1::Health::NewStub(channel_);
  grpc::health::v1::HealthCheckResponse response;
  {
    grpc::ClientContext context;
    Bound(context);
    ASSERT_TRUE(stub->Check(&context, {}, &response).ok());
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  }
  room_->front().BeginDrain(absl::Seconds(5));
  grpc::ClientContext context;
  Bound(context);
  ASSERT_TRUE(stub->Check(&context, {}, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(GrpcFrontTest, ReflectionListsAndDescribesEveryService) {
  ReflectionClient reflection(channel_);
  const std::vector<std::string> services = reflection.Services();
  for (const std::string name : {"terrace.v1.Cache", "grpc.health.v1.Health"}) {
    EXPECT_NE(std::find(services.begin(), services.end(), name), services.end()) << name;
    EXPECT_TRUE(reflection.Describes(name)) << name;
  }
  EXPECT_EQ(std::find(services.begin(), services.end(), "terrace.v1.Admin"), services.end());
  ReflectionClient admin(NewChannel("admin.sock"));
  EXPECT_TRUE(admin.Describes("terrace.v1.Admin"));
}

TEST_F(GrpcFrontTest, MessagesAndMetadataOverTheirLimitsAreRefused) {
  const auto stub = v1::Cache::NewStub(channel_);
  v1::ProbeReply reply;
  {
    grpc::ClientContext context;
    Bound(context);
    v1::ProbeRequest large;
    large.set_request_id(std::string((4U << 20) + 1, 'x'));
    EXPECT_EQ(stub->Probe(&context, large, &reply).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  grpc::ClientContext context;
  Bound(context);
  context.AddMetadata("x-large", std::string(20000, 'm'));
  EXPECT_EQ(stub->Probe(&context, {}, &reply).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcFrontTest, ACallThatIsNotAnsweredEndsWithItsDeadlineAndDoesNotHoldUpStop) {
  const auto stub = v1::Cache::NewStub(channel_);
  v1::OpenNamespaceReply opened;
  {
    grpc::ClientContext context;
    Bound(context);
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(16);
    ASSERT_TRUE(stub->OpenNamespace(&context, request, &opened).ok());
  }
  v1::PutRequest put;
  put.mutable_part()->set_namespace_digest(opened.namespace_digest());
  put.mutable_part()->set_keys(TestKey(1));
  put.set_payload(std::string(16, 'p'));
  v1::PutReply reply;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    EXPECT_EQ(stub->Put(&context, put, &reply).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  grpc::ClientContext context;
  Bound(context);
  put.mutable_part()->set_keys(TestKey(2));
  const uint64_t before = room_->store().Usage().calls_in_flight;  // the one given up is still there
  std::thread caller([&] {
    EXPECT_EQ(stub->Put(&context, put, &reply).error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  EXPECT_TRUE(Eventually([&] { return room_->store().Usage().calls_in_flight > before; }));
  room_->StopFront();
  caller.join();
}

}  // namespace
}  // namespace terrace::doubles
