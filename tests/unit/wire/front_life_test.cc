// How a front begins, drains and ends.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "tests/doubles/carrier_client.h"
#include "tests/doubles/front_room.h"
#include "tests/doubles/step_executor.h"

namespace terrace::doubles {
namespace {

mode_t ModeOf(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 ? found.st_mode & mode_t{0777} : 0;
}

FrontOptions OptionsFor(const std::string& folder) {
  FrontOptions options;
  options.runtime_dir = folder;
  options.tenant_of = [](const PeerCredentials&) -> absl::StatusOr<std::string> { return "t"; };
  return options;
}

TEST(FrontLife, SocketsHaveTheirModesUnderEveryUmask) {
  for (const mode_t mask : {mode_t{0}, mode_t{022}, mode_t{077}}) {
    const mode_t before = umask(mask);
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
    umask(before);
    ASSERT_TRUE(room.ok()) << room.status();
    EXPECT_EQ(ModeOf((*room)->path("session.sock")), 0660U);
    EXPECT_EQ(ModeOf((*room)->path("terrace.sock")), 0660U);
    EXPECT_EQ(ModeOf((*room)->path("admin.sock")), 0600U);
  }
}

TEST(FrontLife, ASecondFrontInTheSameFolderIsRefusedAndTheFirstGoesOn) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  CountingObserver observer;
  const auto second =
      Front::Start(OptionsFor((*room)->folder()), (*room)->store(), BootClock(), observer, {});
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_TRUE((*room)->NewSession().ok());
}

TEST(FrontLife, AFrontStartsAgainWhereOneHasStopped) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  const uint64_t first_boot = (*room)->front().boot_id();
  (*room)->StopFront();
  EXPECT_FALSE(std::filesystem::exists((*room)->path("session.sock")));
  CountingObserver observer;
  const auto second =
      Front::Start(OptionsFor((*room)->folder()), (*room)->store(), BootClock(), observer, {});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE((*second)->boot_id(), first_boot);
  EXPECT_TRUE((*room)->NewSession().ok());
}

TEST(FrontLife, BadOptionsAreRefused) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  (*room)->StopFront();
  CountingObserver observer;
  FrontOptions options = OptionsFor((*room)->folder());
  options.socket_mode = 0666;
  EXPECT_TRUE(absl::IsInvalidArgument(
      Front::Start(options, (*room)->store(), BootClock(), observer, {}).status()));
  options = OptionsFor((*room)->folder());
  options.io_threads = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(
      Front::Start(options, (*room)->store(), BootClock(), observer, {}).status()));
  options = OptionsFor((*room)->folder() + "/" + std::string(100, 'x'));
  std::filesystem::create_directory(options.runtime_dir);
  EXPECT_TRUE(absl::IsInvalidArgument(
      Front::Start(options, (*room)->store(), BootClock(), observer, {}).status()));
}

TEST(FrontLife, APeerWithoutTenantIsClosedBeforeItSpeaks) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  (*room)->StopFront();
  CountingObserver observer;
  FrontOptions options = OptionsFor((*room)->folder());
  options.tenant_of = [](const PeerCredentials&) -> absl::StatusOr<std::string> {
    return absl::PermissionDeniedError("no tenant");
  };
  const auto front = Front::Start(options, (*room)->store(), BootClock(), observer, {});
  ASSERT_TRUE(front.ok());
  for (const char* name : {"session.sock", "terrace.sock"}) {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = FrameClient::Connect((*room)->path(name));
    ASSERT_TRUE(client.ok());
    EXPECT_TRUE((*client)->SeesEnd());
  }
  EXPECT_EQ(observer.Connections(Carrier::kSession, "refused_identity"), 1);
  EXPECT_EQ(observer.Connections(Carrier::kGrpc, "refused_identity"), 1);
}

TEST(FrontLife, ThreadsThatTurnOverAreAlive) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  for (int i = 0; i < 3; ++i) {
    // Every thread must have turned over since the last question, which each does in 50 ms.
    EXPECT_TRUE(Eventually([&] { return (*room)->front().Alive(); }, absl::Seconds(20),
                           absl::Milliseconds(250)));
  }
}

TEST(FrontLife, DrainingRefusesNewPeersTellsOldOnesAndAnswersThem) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  absl::StatusOr<std::unique_ptr<FrameClient>> client = (*room)->NewSession();
  ASSERT_TRUE(client.ok());
  (*room)->front().BeginDrain(absl::Seconds(5));
  const std::optional<ClientFrame> push = (*client)->Receive();
  ASSERT_TRUE(push.has_value());
  EXPECT_EQ(push->method, v1::METHOD_DRAIN_NOTICE);
  v1::DrainNotice notice;
  ASSERT_TRUE(notice.ParseFromString(push->payload));
  EXPECT_EQ(notice.grace_ms(), 5000U);
  EXPECT_TRUE(Eventually([&] { return !(*room)->Connect().ok(); }));
  EXPECT_TRUE((*client)->Call<v1::PingReply>(v1::METHOD_PING, v1::PingRequest()).ok());
}

TEST(FrontLife, AnAnswerThatComesAfterTheFrontHasGoneIsHarmless) {
  StepExecutor executor;
  FrontRoomOptions options;
  options.executor = &executor;
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
  ASSERT_TRUE(room.ok());
  absl::StatusOr<std::unique_ptr<FrameClient>> client = (*room)->NewSession();
  ASSERT_TRUE(client.ok());
  v1::OpenNamespaceRequest open;
  *open.mutable_record() = TestRecord(16);
  const auto opened = (*client)->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
  ASSERT_TRUE(opened.ok());
  v1::PutRequest put;
  put.mutable_part()->set_namespace_digest(opened->namespace_digest());
  put.mutable_part()->set_keys(TestKey(1));
  put.set_payload(std::string(16, 'p'));
  (*client)->Send(v1::METHOD_PUT, put);
  ASSERT_TRUE(Eventually([&] { return (*room)->store().Usage().calls_in_flight >= 1; }));
  (*room)->StopFront();
  EXPECT_TRUE((*client)->SeesEnd());
  executor.RunAll();
}

TEST(FrontLife, AFrontMayGoWhileCallsComeIn) {
  absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open();
  ASSERT_TRUE(room.ok());
  std::vector<std::thread> callers;
  std::atomic<int> running{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&room, &running, i] {
      absl::StatusOr<std::unique_ptr<CarrierClient>> client =
          i % 2 == 0 ? OpenSessionCarrier((*room)->folder()) : OpenGrpcCarrier((*room)->folder());
      ++running;
      v1::FlushReply reply;
      while (client.ok() && (*client)->Call(v1::METHOD_FLUSH, v1::FlushRequest(), &reply).ok()) {
      }
    });
  }
  EXPECT_TRUE(Eventually([&] {
    return running == 4 && (*room)->observer().Calls("Flush", absl::StatusCode::kOk) > 100;
  }));
  (*room)->StopFront();
  for (std::thread& caller : callers) {
    caller.join();
  }
}

}  // namespace
}  // namespace terrace::doubles
