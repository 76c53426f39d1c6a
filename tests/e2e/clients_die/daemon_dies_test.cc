// The daemon is killed and started again under load: clients go on with misses, come back by
// themselves, and never see a wrong byte, also in leases of the daemon that is gone.
#include <functional>

#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "tests/e2e/clients_die/engine.h"
#include "tests/e2e/clients_die/witness.h"
#include "tests/e2e/daemon/started_daemon.h"

namespace terrace {
namespace {

constexpr absl::Duration kLimit = absl::Seconds(60);
constexpr uint32_t kKeyCount = 600;

class DaemonDies : public testing::Test {
 protected:
  void SetUp() override {
    StartedDaemon::Options options;
    options.dram = "192MiB";
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start(options);
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
  }

  std::unique_ptr<StartedDaemon> daemon_;
};

TEST_F(DaemonDies, AndClientsGoOnWithMissesAndComeBack) {
  std::vector<std::unique_ptr<Witness>> witnesses;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Witness::Options options;
    options.runtime_dir = daemon_->runtime_dir();
    options.name = "witness-" + std::to_string(seed);
    options.seed = seed;
    options.key_count = kKeyCount;
    options.expects = Witness::Expects::kOutages;
    witnesses.push_back(std::make_unique<Witness>(options));
  }
  for (uint32_t restart = 0; restart < 3; ++restart) {
    const absl::StatusOr<v1::StatusReply> status = daemon_->Status();
    ASSERT_TRUE(status.ok()) << status.status();
    for (const std::unique_ptr<Witness>& witness : witnesses) {
      const uint64_t hits = witness->account().hits;
      ASSERT_TRUE(witness->WaitUntil(
          [&](const Witness::Account& a) {
            return a.boot_id == status->boot_id() && a.hits >= hits + 50;
          },
          kLimit))
          << "restart " << restart << ": " << witness->account().first_fault;
    }
    daemon_->Kill();
    for (const std::unique_ptr<Witness>& witness : witnesses) {
      const uint64_t faults = witness->account().faults;
      ASSERT_TRUE(
          witness->WaitUntil([&](const Witness::Account& a) { return a.faults > faults; }, kLimit))
          << "nobody noticed";
    }
    ASSERT_TRUE(daemon_->StartAgain().ok());
  }
  for (const std::unique_ptr<Witness>& witness : witnesses) {
    ASSERT_TRUE(
        witness->WaitUntil([](const Witness::Account& a) { return a.reconnects >= 3; }, kLimit));
    const uint64_t hits = witness->account().hits;
    ASSERT_TRUE(
        witness->WaitUntil([&](const Witness::Account& a) { return a.hits > hits; }, kLimit));
    EXPECT_EQ(witness->account().wrong_bytes, 0U) << witness->account().first_fault;
    EXPECT_EQ(witness->account().hung, 0U) << witness->account().first_fault;
  }
}

TEST_F(DaemonDies, AndALeaseStaysReadable) {
  std::unique_ptr<Engine> engine = Engine::Open(daemon_->runtime_dir(), "reader", 5000);
  ASSERT_NE(engine, nullptr);
  ASSERT_TRUE(engine->WaitConnected(10'000));
  const std::vector<uint32_t> ids = {1, 2, 3};
  ASSERT_EQ(engine->Put(ids).status, TERRACE_OK);
  const Engine::Reply lease = engine->Lease(ids);
  ASSERT_EQ(lease.status, TERRACE_OK) << lease.error;
  ASSERT_EQ(lease.outcomes, std::vector<uint8_t>(3, TERRACE_GET_OK));
  daemon_->Kill();
  const Engine::Reply absent = engine->Probe(ids, 0);
  EXPECT_NE(absent.status, TERRACE_OK);
  EXPECT_NE(absent.status, Engine::kNever);
  ASSERT_TRUE(daemon_->StartAgain().ok());
  ASSERT_TRUE(engine->WaitConnected(10'000));
  // The staging region and the namespace are known to the new daemon without a call of ours.
  const std::vector<uint32_t> others = {4, 5, 6};
  const Engine::Reply put = engine->Put(others);
  EXPECT_EQ(put.status, TERRACE_OK) << put.error;
  EXPECT_EQ(put.outcomes, std::vector<uint8_t>(3, TERRACE_PUT_STORED));
  EXPECT_EQ(engine->Load(others).outcomes, std::vector<uint8_t>(3, TERRACE_GET_OK));
  EXPECT_EQ(engine->Load(ids).outcomes, std::vector<uint8_t>(3, TERRACE_GET_MISS))
      << "a cache may forget";
  for (size_t k = 0; k < ids.size(); ++k) {
    EXPECT_TRUE(IsPayload(ids[k], lease.payload[k], lease.payload_bytes[k]));
  }
  EXPECT_EQ(engine->Release({lease.lease}, {}).status, TERRACE_OK);
}

TEST_F(DaemonDies, BeforeAClientCameAndItStillOpens) {
  daemon_->Kill();
  std::unique_ptr<Engine> engine = Engine::Open(daemon_->runtime_dir(), "early", 2000);
  ASSERT_NE(engine, nullptr) << "an absent daemon is a miss, not a failure to open";
  const Engine::Reply probe = engine->Probe({1}, 0);
  EXPECT_EQ(probe.status, TERRACE_UNAVAILABLE) << probe.error;
  EXPECT_EQ(probe.states, std::vector<uint8_t>(1, TERRACE_KEY_MISS));
  ASSERT_TRUE(daemon_->StartAgain().ok());
  ASSERT_TRUE(engine->WaitConnected(20'000));
  EXPECT_EQ(engine->Put({1}).outcomes, std::vector<uint8_t>(1, TERRACE_PUT_STORED));
}

}  // namespace
}  // namespace terrace
