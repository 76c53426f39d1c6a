// Clients are killed at random moments with leases, holds, puts and regions open. Afterwards the
// daemon holds what it held before, and a client that lived beside them saw no error and no wrong
// byte.
//
// TERRACE_KILLS=10000 TERRACE_SEED=7 build/release/tests/e2e/clients_die/clients_die_test
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <functional>

#include "absl/time/clock.h"
#include <gtest/gtest.h>

#include "tests/doubles/from_environment.h"
#include "tests/e2e/clients_die/payload.h"
#include "tests/e2e/clients_die/witness.h"
#include "tests/e2e/daemon/program.h"
#include "tests/e2e/daemon/started_daemon.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// About 190 MiB of payload, more than the tier holds, so that slots are reused all the time.
constexpr uint32_t kKeyCount = 800;
constexpr uint32_t kTogether = 5;
constexpr absl::Duration kBaselineLimit = absl::Seconds(5);  // five times the promise of one second
constexpr absl::Duration kLimit = absl::Seconds(60);

// A doomed client and the count of what it has done.
class Victim {
 public:
  Victim(const StartedDaemon& daemon, uint32_t number, uint64_t seed) {
    const std::string path = daemon.dir() + "/progress-" + std::to_string(number);
    const Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
    const Descriptor log(
        open((daemon.dir() + "/victims").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    absl::StatusOr<Mapping> shared = absl::InternalError("no file");
    if (ftruncate(file.get(), 4096) == 0) {
      shared = Mapping::Map(file.get(), 0, 4096, MapAccess::kReadWrite);
    }
    absl::StatusOr<pid_t> pid = Spawn({DOOMED_CLIENT_PATH, daemon.runtime_dir(),
                                       std::to_string(seed), std::to_string(kKeyCount), path},
                                      {}, nothing.get(), nothing.get(), log.get());
    if (shared.ok() && pid.ok()) {
      shared_ = *std::move(shared);
      pid_ = *pid;
    }
  }
  Victim(Victim&& other) noexcept
      : shared_(std::move(other.shared_)), pid_(std::exchange(other.pid_, -1)) {}
  Victim& operator=(Victim&&) = delete;
  ~Victim() {
    if (pid_ > 0) {
      Kill();
    }
  }

  [[nodiscard]] bool started() const { return pid_ > 0; }
  [[nodiscard]] uint64_t steps() const {
    return reinterpret_cast<const std::atomic<uint64_t>*>(shared_.data())->load();
  }
  // The exit status as of a shell: 137 when it was the signal that ended it.
  int Kill() {
    kill(pid_, SIGKILL);
    const int status = WaitForChild(pid_, kLimit);
    pid_ = -1;
    return status;
  }

 private:
  Mapping shared_;
  pid_t pid_ = -1;
};

class ClientsDie : public testing::Test {
 protected:
  void SetUp() override {
    StartedDaemon::Options options;
    options.dram = "192MiB";
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon = StartedDaemon::Start(options);
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    daemon_ = *std::move(daemon);
    Witness::Options witness;
    witness.runtime_dir = daemon_->runtime_dir();
    witness.name = "witness";
    witness.seed = seed_;
    witness.key_count = kKeyCount;
    witness_ = std::make_unique<Witness>(witness);
    ASSERT_TRUE(
        witness_->WaitUntil([](const Witness::Account& a) { return a.hits >= 100; }, kLimit))
        << witness_->account().first_fault;
  }

  // "" when everything that clients hold is what the witness alone holds, else what differs.
  std::string Difference() {
    const absl::StatusOr<v1::StatusReply> now = daemon_->StatusBesideTiers();
    if (!now.ok()) {
      return std::string(now.status().message());
    }
    std::string difference;
    const auto compare = [&](const char* name, uint64_t is, uint64_t was) {
      if (is != was) {
        difference +=
            std::string(name) + " " + std::to_string(is) + ", was " + std::to_string(was) + "; ";
      }
    };
    compare("sessions", now->sessions(), baseline_.sessions());
    compare("leases", now->leases(), baseline_.leases());
    compare("leased bytes", now->leased_bytes(), baseline_.leased_bytes());
    compare("holds", now->holds(), baseline_.holds());
    compare("regions", now->regions(), baseline_.regions());
    compare("region bytes", now->region_bytes(), baseline_.region_bytes());
    compare("quarantined bytes", now->quarantined_bytes(), baseline_.quarantined_bytes());
    compare("tickets", now->tickets(), baseline_.tickets());
    compare("open descriptors", now->open_descriptors(), baseline_.open_descriptors());
    return difference;
  }

  testing::AssertionResult BackAtBaseline() {
    const absl::Time until = absl::Now() + kBaselineLimit;
    std::string difference = Difference();
    while (!difference.empty() && absl::Now() < until) {
      absl::SleepFor(absl::Milliseconds(5));  // between two polls
      difference = Difference();
    }
    return difference.empty() ? testing::AssertionSuccess()
                              : testing::AssertionFailure() << difference;
  }

  void NoteWhatIsHeld() {
    const absl::StatusOr<v1::StatusReply> now = daemon_->Status();
    if (now.ok()) {
      most_.set_leases(std::max(most_.leases(), now->leases()));
      most_.set_holds(std::max(most_.holds(), now->holds()));
      most_.set_regions(std::max(most_.regions(), now->regions()));
      most_.set_sessions(std::max(most_.sessions(), now->sessions()));
    }
  }

  // Each at its own moment: some while they connect, most after a random number of steps.
  void KillTogether(uint32_t count) {
    std::vector<Victim> victims;
    std::vector<uint64_t> last_steps;
    for (uint32_t i = 0; i < count; ++i) {
      victims.emplace_back(*daemon_, i, dice_.Next());
      ASSERT_TRUE(victims.back().started());
      last_steps.push_back(dice_.Below(8) == 0 ? 0 : 1 + dice_.Below(60));
    }
    const absl::Time until = absl::Now() + kLimit;
    for (uint32_t i = 0; i < count; ++i) {
      while (victims[i].steps() < last_steps[i]) {
        ASSERT_LT(absl::Now(), until) << "a client made only " << victims[i].steps() << " steps";
        absl::SleepFor(
            absl::Microseconds(50 + dice_.Below(500)));  // the random moment within a step
      }
      NoteWhatIsHeld();
      EXPECT_EQ(victims[i].Kill(), 128 + SIGKILL) << "3 is a wrong byte, 4 a call that never ended";
    }
  }

  const uint64_t seed_ = doubles::FromEnvironment(
      "TERRACE_SEED", static_cast<uint64_t>(absl::ToUnixNanos(absl::Now())));
  Dice dice_{seed_};
  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<Witness> witness_;
  v1::StatusReply baseline_;
  v1::StatusReply most_;  // of what was seen held while clients lived
};

TEST_F(ClientsDie, AndTheDaemonHoldsWhatItHeldBefore) {
  const uint64_t kills = doubles::FromEnvironment("TERRACE_KILLS", 200);
  std::printf("seed %llu, %llu kills\n", static_cast<unsigned long long>(seed_),
              static_cast<unsigned long long>(kills));
  ASSERT_TRUE(witness_->Pause(kLimit));
  const absl::StatusOr<v1::StatusReply> baseline = daemon_->StatusBesideTiers();
  ASSERT_TRUE(baseline.ok()) << baseline.status();
  baseline_ = *baseline;
  EXPECT_EQ(baseline_.sessions(), 1U);
  EXPECT_EQ(baseline_.leases(), 0U);
  EXPECT_EQ(baseline_.regions(), 1U);
  for (uint64_t killed = 0; killed < kills && !HasFailure(); killed += kTogether) {
    witness_->Resume();
    const uint64_t rounds = witness_->account().rounds;
    KillTogether(kTogether);
    ASSERT_TRUE(
        witness_->WaitUntil([&](const Witness::Account& a) { return a.rounds > rounds; }, kLimit));
    ASSERT_TRUE(witness_->Pause(kLimit));
    ASSERT_TRUE(BackAtBaseline()) << "after " << killed + kTogether << " kills\n" << daemon_->Log();
  }
  const Witness::Account account = witness_->account();
  EXPECT_EQ(account.wrong_bytes, 0U) << account.first_fault;
  EXPECT_EQ(account.faults, 0U) << account.first_fault;
  EXPECT_EQ(account.reconnects, 0U);
  EXPECT_GT(account.hits, 100U);
  const absl::StatusOr<v1::StatusReply> end = daemon_->Status();
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->boot_id(), baseline_.boot_id()) << "the daemon restarted";
  EXPECT_EQ(end->corrupt(), 0U);
  EXPECT_GT(end->evictions(), 0U) << "slots were never reused: the test would prove nothing";
  // What was never open proves nothing by being closed.
  EXPECT_GT(most_.sessions(), 2U);
  EXPECT_GT(most_.leases(), 24U) << "more than the witness keeps";
  EXPECT_GT(most_.holds(), 1U);
  EXPECT_GT(most_.regions(), 2U);
  std::printf("witness: %llu rounds, %llu hits, %llu stored; daemon: %llu evictions\n",
              static_cast<unsigned long long>(account.rounds),
              static_cast<unsigned long long>(account.hits),
              static_cast<unsigned long long>(account.stored),
              static_cast<unsigned long long>(end->evictions()));
}

}  // namespace
}  // namespace terrace
