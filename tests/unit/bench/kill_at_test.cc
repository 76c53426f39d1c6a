#include "tools/bench/kill_at.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include <pthread.h>

#include "tests/doubles/private_folder.h"

namespace terrace::bench {
namespace {

constexpr int kExitStatus = 7;

// Forks a child that begins its work at SIGTERM, which comes when counting has begun.
absl::StatusOr<KillReport> KillDuring(const std::function<void()>& work, KillPlan plan) {
  sigset_t asked;
  sigset_t before;
  sigemptyset(&asked);
  sigaddset(&asked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &asked, &before);
  const pid_t pid = fork();
  if (pid == 0) {
    int signal = 0;
    sigwait(&asked, &signal);
    work();
    _exit(kExitStatus);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  plan.start = KillPlan::Start::kSoftly;
  return KillAt(pid, plan);
}

bool Killed(const KillReport& report) {
  return WIFSIGNALED(report.wait_status) && WTERMSIG(report.wait_status) == SIGKILL;
}

class KillAtTest : public testing::Test {
 protected:
  // Makes a file and writes four bytes, one at a time: five calls that count.
  void WriteFour() const {
    const int file = open(Path().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 4; ++i) {
      getppid();  // a system call that does nothing to files
      static_cast<void>(!write(file, "x", 1));
    }
  }
  void ExpectFileAfter(const KillPlan& plan, uint64_t bytes) const {
    const auto report = KillDuring([this] { WriteFour(); }, plan);
    ASSERT_TRUE(report.ok()) << report.status();
    if (report->unit == KillUnit::kTime) {
      GTEST_SKIP() << "tracing is not allowed here";
    }
    EXPECT_TRUE(Killed(*report));
    EXPECT_EQ(report->unit, plan.unit);
    EXPECT_EQ(report->calls, plan.count);
    EXPECT_EQ(std::filesystem::file_size(Path()), bytes);
  }
  [[nodiscard]] std::string Path() const { return folder_.path() + "/file"; }

  const doubles::PrivateFolder folder_;
};

TEST_F(KillAtTest, TheCallBeforeWhichItIsKilledIsNotDone) {
  ExpectFileAfter({KillUnit::kFileCall, 4, KillPlan::Side::kBefore}, 2);
}

TEST_F(KillAtTest, TheCallAfterWhichItIsKilledIsDone) {
  ExpectFileAfter({KillUnit::kFileCall, 4, KillPlan::Side::kAfter}, 3);
}

TEST_F(KillAtTest, EveryCallCountsWhereAllDo) {
  // Were only those counted that do something to files, three bytes would have been written.
  const auto report =
      KillDuring([this] { WriteFour(); }, {KillUnit::kSystemCall, 5, KillPlan::Side::kBefore});
  ASSERT_TRUE(report.ok()) << report.status();
  if (report->unit == KillUnit::kTime) {
    GTEST_SKIP() << "tracing is not allowed here";
  }
  EXPECT_TRUE(Killed(*report));
  EXPECT_EQ(report->calls, 5U);
  std::error_code absent;
  const auto bytes = std::filesystem::file_size(Path(), absent);
  EXPECT_LE(absent ? 0 : bytes, 1U);
}

TEST_F(KillAtTest, CallsOfThreadsThatStartLaterCount) {
  const auto report = KillDuring([this] { std::thread([this] { WriteFour(); }).join(); },
                                 {KillUnit::kFileCall, 3, KillPlan::Side::kBefore});
  ASSERT_TRUE(report.ok()) << report.status();
  if (report->unit == KillUnit::kTime) {
    GTEST_SKIP() << "tracing is not allowed here";
  }
  EXPECT_TRUE(Killed(*report));
  EXPECT_EQ(std::filesystem::file_size(Path()), 1U);
}

TEST_F(KillAtTest, AProcessThatEndsBeforeIsReaped) {
  const auto report =
      KillDuring([this] { WriteFour(); }, {KillUnit::kFileCall, 1000, KillPlan::Side::kBefore});
  ASSERT_TRUE(report.ok()) << report.status();
  if (report->unit == KillUnit::kTime) {
    GTEST_SKIP() << "tracing is not allowed here";
  }
  ASSERT_TRUE(WIFEXITED(report->wait_status));
  EXPECT_EQ(WEXITSTATUS(report->wait_status), kExitStatus);
  EXPECT_EQ(report->calls, 5U);
}

TEST_F(KillAtTest, AThreadThatComputesForEverIsKilled) {
  const auto compute = [] {
    for (volatile bool on = true; on;) {
    }
  };
  for (const KillUnit unit : {KillUnit::kInstruction, KillUnit::kCpuTime, KillUnit::kTime}) {
    const auto report = KillDuring([&] { std::thread(compute).join(); }, {unit, 1'000'000, {}});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(Killed(*report));
  }
}

}  // namespace
}  // namespace terrace::bench
