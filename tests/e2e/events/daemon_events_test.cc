// KV events of a real daemon: a router over its stops, kills and starts; endpoints that it cannot
// have.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/doubles/eventually.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/router_double.h"
#include "tests/e2e/daemon/one_block.h"
#include "tests/e2e/daemon/program.h"
#include "tests/e2e/daemon/started_daemon.h"

namespace terrace {
namespace {

using doubles::Eventually;
using doubles::RouterDouble;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Media = std::set<std::string>;

constexpr uint32_t kBytes = 4096;

class DaemonEvents : public ::testing::Test {
 protected:
  void Start() {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon =
        StartedDaemon::Start({.dram = "64MiB", .more_config = Section(folder_.path())});
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
    router_ = std::make_unique<RouterDouble>(RouterDouble::Options{
        "ipc://" + folder_.path() + "/events", "ipc://" + folder_.path() + "/replay", "kv", 0});
  }
  static std::string Section(const std::string& folder) {
    return "[[events]]\ntenant = \"uid-" + std::to_string(getuid()) +
           "\"\nzmq_endpoint = \"ipc://" + folder + "/events\"\nzmq_replay_endpoint = \"ipc://" +
           folder + "/replay\"\ntopic = \"kv\"\n";
  }
  // As an engine that comes up: without it nobody knows what the namespace is.
  v1::Part Open() {
    stub_ = CacheStub(daemon_->runtime_dir());
    absl::StatusOr<v1::Part> part = OneBlockPart(*stub_, kBytes);
    EXPECT_TRUE(part.ok()) << part.status();
    return part.ok() ? *std::move(part) : v1::Part();
  }
  void Put(const v1::Part& part) {
    v1::PutRequest request;
    *request.mutable_part() = part;
    request.add_payload_bytes(kBytes);
    request.set_payload(std::string(kBytes, 'p'));
    request.set_wait_for(v1::LEVEL_LOCAL_SYNCED);
    v1::PutReply reply;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Put(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  [[nodiscard]] Media At() const {
    return router_->MediaOf(doubles::LowBitsOf(std::string(32, 'k')));
  }
  bool Becomes(const Media& media) {
    return Eventually([&] {
      while (router_->Hear()) {
      }
      return At() == media;
    });
  }

  const doubles::PrivateFolder folder_;
  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<RouterDouble> router_;
  std::unique_ptr<v1::Cache::Stub> stub_;
};

TEST_F(DaemonEvents, ARouterKnowsWhatIsHeldOverKillsAndStops) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Put(Open());
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return At() == Media{"CPU"};
  }));
  EXPECT_EQ(router_->events().front().type, "AllBlocksCleared");

  daemon_->Kill();
  ASSERT_TRUE(daemon_->StartAgain().ok()) << daemon_->Log();
  Open();
  ASSERT_TRUE(Becomes({"STORAGE"})) << daemon_->Log();

  ASSERT_EQ(daemon_->Stop(), 0) << daemon_->Log();
  ASSERT_TRUE(Becomes({})) << "who stops says so";

  ASSERT_TRUE(daemon_->StartAgain().ok()) << daemon_->Log();
  Open();
  ASSERT_TRUE(Becomes({"STORAGE"})) << daemon_->Log();
  EXPECT_EQ(router_->lost(), 0U);
  EXPECT_THAT(daemon_->Log(), HasSubstr("publishing events"));
}

TEST_F(DaemonEvents, AnEndpointThatIsTakenIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string config = folder_.path() + "/second.toml";
  std::ofstream(config) << "[dram]\ncapacity = \"64MiB\"\n[metrics]\nlisten = \"off\"\n"
                        << Section(folder_.path());
  const Ran second = RunProgram({TERRACED_PATH, "--config", config, "--data",
                                 folder_.path() + "/data", "--runtime", folder_.path() + "/run"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_THAT(second.err, HasSubstr("terraced: events cannot be published at ipc://" +
                                    folder_.path() + "/events: another process listens there\n"));
}

TEST_F(DaemonEvents, WhatIsNoEndpointIsAnErrorOfTheConfiguration) {
  const std::string config = folder_.path() + "/bad.toml";
  std::ofstream(config)
      << "[[events]]\ntenant = \"uid-0\"\nzmq_endpoint = \"tcp://localhost:5557\"\n";
  for (const char* action : {"--check-config", "--print-config"}) {
    const Ran ran = RunProgram({TERRACED_PATH, action, "--config", config});
    EXPECT_EQ(ran.exit_status, 78);
    EXPECT_THAT(ran.err, StartsWith("terraced: " + config +
                                    ":3: events.zmq_endpoint: must be \"tcp://ADDRESS:PORT\""));
  }
}

}  // namespace
}  // namespace terrace
