// Folders, memory, the service manager, quotas.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/folders.h"
#include "daemon/process_facts.h"
#include "daemon/quotas.h"
#include "daemon/service_notify.h"
#include "tests/unit/daemon_ops/private_folder.h"
#include "tests/unit/daemon_ops/stub_store.h"

namespace terrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

mode_t ModeOf(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

class Folders : public testing::Test {
 protected:
  FolderOptions Options() const {
    return {.runtime_dir = root_.path() + "/run", .data_dir = root_.path() + "/data"};
  }
  PrivateFolder root_;
};

TEST_F(Folders, AreMadeWithTheirModes) {
  const absl::StatusOr<Descriptor> lock = PrepareFolders(Options());
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(ModeOf(root_.path() + "/run"), 0750U);
  EXPECT_EQ(ModeOf(root_.path() + "/data"), 0700U);
  EXPECT_EQ(ModeOf(root_.path() + "/data/terraced.lock"), 0600U);
}

TEST_F(Folders, AreMadeWithTheirParents) {
  const absl::StatusOr<Descriptor> lock =
      PrepareFolders({.runtime_dir = root_.path() + "/a/b/run", .data_dir = root_.path() + "/c/d"});
  EXPECT_TRUE(lock.ok()) << lock.status();
}

TEST_F(Folders, BelongToOneDaemon) {
  absl::StatusOr<Descriptor> first = PrepareFolders(Options());
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::StatusOr<Descriptor> second = PrepareFolders(Options());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(MessageOf(second.status()), root_.path() +
                                            "/data: is in use by another daemon (process " +
                                            std::to_string(getpid()) + ")");
  first = absl::InternalError("closed");
  EXPECT_TRUE(PrepareFolders(Options()).ok());
}

// What a daemon leaves that is killed between making a process and that one's own begin.
TEST_F(Folders, AreWaitedForWhereTheirDaemonIsDeadAndItsLockIsAboutToGo) {
  const pid_t dead = fork();
  if (dead == 0) {
    _exit(0);
  }
  ASSERT_EQ(waitpid(dead, nullptr, 0), dead);
  ASSERT_TRUE(PrepareFolders(Options()).ok());
  const std::string path = root_.path() + "/data/terraced.lock";
  std::optional<Descriptor> left(Descriptor(open(path.c_str(), O_RDWR | O_TRUNC | O_CLOEXEC)));
  const std::string pid = std::to_string(dead) + "\n";
  ASSERT_EQ(pwrite(left->get(), pid.data(), pid.size(), 0), static_cast<ssize_t>(pid.size()));
  ASSERT_EQ(flock(left->get(), LOCK_EX | LOCK_NB), 0);
  std::optional<absl::StatusOr<Descriptor>> prepared;
  std::thread starting([&] { prepared = PrepareFolders(Options()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // whichever comes first, it starts
  left.reset();
  starting.join();
  EXPECT_TRUE(prepared->ok()) << prepared->status();
}

TEST_F(Folders, AnOpenDataFolderIsClosedWhenItIsEmptyOrOurs) {
  ASSERT_TRUE(std::filesystem::create_directory(root_.path() + "/data"));
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(chmod((root_.path() + "/data").c_str(), 0755), 0);
    const absl::StatusOr<Descriptor> lock = PrepareFolders(Options());
    ASSERT_TRUE(lock.ok()) << lock.status();
    EXPECT_EQ(ModeOf(root_.path() + "/data"), 0700U);
  }
}

TEST_F(Folders, AnOpenDataFolderOfSomebodyElseIsLeftAlone) {
  static_cast<void>(root_.Write("data/theirs", "x"));
  ASSERT_EQ(chmod((root_.path() + "/data").c_str(), 0755), 0);
  const absl::StatusOr<Descriptor> lock = PrepareFolders(Options());
  EXPECT_EQ(lock.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ModeOf(root_.path() + "/data"), 0755U);
}

TEST_F(Folders, ARuntimeFolderThatEveryoneMayWriteIsRefused) {
  ASSERT_TRUE(std::filesystem::create_directory(root_.path() + "/run"));
  ASSERT_EQ(chmod((root_.path() + "/run").c_str(), 01777), 0);
  const absl::StatusOr<Descriptor> lock = PrepareFolders(Options());
  EXPECT_EQ(lock.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(lock.status()), HasSubstr(root_.path() + "/run: everyone may write to it"));
}

TEST_F(Folders, ARuntimeFolderThatExistsKeepsItsMode) {
  ASSERT_TRUE(std::filesystem::create_directory(root_.path() + "/run"));
  ASSERT_EQ(chmod((root_.path() + "/run").c_str(), 0755), 0);
  ASSERT_TRUE(PrepareFolders(Options()).ok());
  EXPECT_EQ(ModeOf(root_.path() + "/run"), 0755U);
}

TEST_F(Folders, AFileInTheirPlaceIsAnError) {
  static_cast<void>(root_.Write("data", "x"));
  const absl::StatusOr<Descriptor> lock = PrepareFolders(Options());
  EXPECT_EQ(lock.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(MessageOf(lock.status()), root_.path() + "/data: cannot be opened: Not a directory");
}

TEST_F(Folders, ALinkInPlaceOfTheLockIsNotFollowed) {
  const std::string victim = root_.Write("victim", "x");
  ASSERT_TRUE(std::filesystem::create_directory(root_.path() + "/data"));
  std::filesystem::create_symlink(victim, root_.path() + "/data/terraced.lock");
  EXPECT_FALSE(PrepareFolders(Options()).ok());
  EXPECT_EQ(std::filesystem::file_size(victim), 1U);
}

// A machine as the kernel would show it.
class Memory : public testing::Test {
 protected:
  void SetUp() override {
    static_cast<void>(
        kernel_.Write("proc/meminfo",
                      "MemTotal: 9000000 kB\nMemAvailable:    1024 kB\nHugePages_Free:        3\n"
                      "Hugepagesize:       2048 kB\n"));
  }
  [[nodiscard]] KernelFolders Kernel() const {
    return {kernel_.path() + "/proc", kernel_.path() + "/cgroup"};
  }
  PrivateFolder kernel_;
};

TEST_F(Memory, ThatIsAvailableSuffices) {
  EXPECT_TRUE(CheckMemory(uint64_t{1} << 20, false, Kernel()).ok());
  EXPECT_TRUE(CheckMemory(uint64_t{7} << 20, true, Kernel()).ok());
}

TEST_F(Memory, ThatIsMissingIsNamed) {
  const absl::Status status = CheckMemory(uint64_t{2} << 20, false, Kernel());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(
      MessageOf(status),
      "dram.capacity of 2MiB does not fit: the machine has available 1MiB; lower dram.capacity");
  EXPECT_FALSE(CheckMemory(uint64_t{8} << 20, true, Kernel()).ok());
}

TEST_F(Memory, IsLimitedByTheControlGroupAndItsAncestors) {
  static_cast<void>(kernel_.Write("proc/meminfo", "MemAvailable: 99999999 kB\n"));
  static_cast<void>(kernel_.Write("proc/self/cgroup", "0::/a/b\n"));
  static_cast<void>(kernel_.Write("cgroup/a/b/memory.max", "max\n"));
  static_cast<void>(kernel_.Write("cgroup/a/b/memory.current", "1\n"));
  static_cast<void>(kernel_.Write("cgroup/a/memory.max", "10485760\n"));
  static_cast<void>(kernel_.Write("cgroup/a/memory.current", "6291456\n"));
  EXPECT_TRUE(CheckMemory(uint64_t{4} << 20, false, Kernel()).ok());
  const absl::Status status = CheckMemory(uint64_t{5} << 20, false, Kernel());
  EXPECT_EQ(MessageOf(status),
            "dram.capacity of 5MiB does not fit: the memory limit of the control group leaves "
            "4MiB; lower dram.capacity");
  // The page cache gives way.
  static_cast<void>(kernel_.Write("cgroup/a/memory.stat", "anon 1\ninactive_file 2097152\n"));
  EXPECT_TRUE(CheckMemory(uint64_t{6} << 20, false, Kernel()).ok());
}

TEST_F(Memory, ThatCannotBeSeenLimitsNothing) {
  EXPECT_TRUE(
      CheckMemory(uint64_t{1} << 60, true, {kernel_.path() + "/none", kernel_.path() + "/none"})
          .ok());
}

TEST(ProcessFacts, AreKnown) {
  EXPECT_GT(ResidentBytes(), uint64_t{1} << 20);
  EXPECT_GE(OpenDescriptors(), 3U);
}

TEST(ProcessSetup, ForbidsCoreDumpsAndOpensNoFileToOthers) {
  const PrivateFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    SetUpProcess({});
    const bool no_core = prctl(PR_GET_DUMPABLE) == 0;
    _exit(no_core && umask(0) == 0077 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// The service manager's end of NOTIFY_SOCKET.
class Notify : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = folder_.path() + "/notify";
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  void TearDown() override {
    close(fd_);
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
      unsetenv(name);
    }
  }
  std::string Next() const {
    char buffer[4096];
    const ssize_t got = recv(fd_, buffer, sizeof(buffer), 0);
    return got < 0 ? "" : std::string(buffer, static_cast<size_t>(got));
  }
  PrivateFolder folder_;
  int fd_ = -1;
};

TEST_F(Notify, TellsWhatHappens) {
  const ServiceNotify notify;
  notify.Ready("serving\nMAINPID=1");
  EXPECT_EQ(Next(), "READY=1\nSTATUS=serving MAINPID=1");
  notify.Status("half");
  EXPECT_EQ(Next(), "STATUS=half");
  notify.ExtendStart(absl::Seconds(2));
  EXPECT_EQ(Next(), "EXTEND_TIMEOUT_USEC=2000000");
  notify.Reloading();
  EXPECT_THAT(Next(), testing::MatchesRegex("RELOADING=1\nMONOTONIC_USEC=[0-9]+"));
  notify.Watchdog();
  EXPECT_EQ(Next(), "WATCHDOG=1");
  notify.Stopping("bye");
  EXPECT_EQ(Next(), "STOPPING=1\nSTATUS=bye");
  EXPECT_EQ(Next(), "");
}

TEST_F(Notify, KnowsTheWatchdogThatIsMeantForThisProcess) {
  EXPECT_EQ(ServiceNotify().watchdog_interval(), absl::ZeroDuration());
  setenv("WATCHDOG_USEC", "3000000", 1);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  EXPECT_EQ(ServiceNotify().watchdog_interval(), absl::Seconds(3));
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(ServiceNotify().watchdog_interval(), absl::ZeroDuration());
}

TEST(ServiceNotifyAlone, DoesNothingWithoutAServiceManager) {
  unsetenv("NOTIFY_SOCKET");
  const ServiceNotify notify;
  notify.Ready("nobody listens");
  notify.Watchdog();
}

using Quota = StubStore::Quota;

TEST(Quotas, AreSetForConfiguredTenants) {
  StubStore store(100);
  ASSERT_TRUE(
      ApplyQuotas(store, {},
                  {{.alias = "a", .guaranteed_bytes = 60, .limit_bytes = 80}, {.alias = "b"}})
          .ok());
  EXPECT_THAT(store.quotas, ElementsAre(Pair("a", Quota{60, 80}), Pair("b", Quota{0, 0})));
}

TEST(Quotas, MoveBetweenTenantsWithoutEverExceedingTheCapacity) {
  StubStore store(100);
  const std::vector<TenantConfig> before = {{.alias = "a", .guaranteed_bytes = 90},
                                            {.alias = "b", .guaranteed_bytes = 10}};
  const std::vector<TenantConfig> after = {
      {.alias = "a", .guaranteed_bytes = 10, .limit_bytes = 20},
      {.alias = "b", .guaranteed_bytes = 90, .limit_bytes = 90}};
  ASSERT_TRUE(ApplyQuotas(store, {}, before).ok());
  ASSERT_TRUE(ApplyQuotas(store, before, after).ok());
  EXPECT_THAT(store.quotas, ElementsAre(Pair("a", Quota{10, 20}), Pair("b", Quota{90, 90})));
  ASSERT_TRUE(ApplyQuotas(store, after, before).ok());
  EXPECT_THAT(store.quotas, ElementsAre(Pair("a", Quota{90, 0}), Pair("b", Quota{10, 0})));
}

TEST(Quotas, ComeWithWhatTheTenantsPublish) {
  StubStore store(100);
  const std::vector<TenantConfig> before = {{.alias = "a", .publish = PublishWhen::kNever},
                                            {.alias = "b", .publish = PublishWhen::kOnReuse}};
  ASSERT_TRUE(ApplyQuotas(store, {}, before).ok());
  EXPECT_EQ(store.publishing["a"], PublishWhen::kNever);
  EXPECT_EQ(store.publishing["b"], PublishWhen::kOnReuse);
  ASSERT_TRUE(ApplyQuotas(store, before, {{.alias = "b"}}).ok());
  EXPECT_EQ(store.publishing["a"], std::nullopt);
  EXPECT_EQ(store.publishing["b"], std::nullopt);
}

TEST(Quotas, OfTenantsThatAreGoneAreLifted) {
  StubStore store(100);
  const std::vector<TenantConfig> before = {
      {.alias = "a", .guaranteed_bytes = 60, .limit_bytes = 80}};
  ASSERT_TRUE(ApplyQuotas(store, {}, before).ok());
  ASSERT_TRUE(ApplyQuotas(store, before, {}).ok());
  EXPECT_THAT(store.quotas, ElementsAre(Pair("a", Quota{0, 0})));
}

TEST(Quotas, StayAsTheyAreWhenOneIsRefused) {
  StubStore store(100);
  const std::vector<TenantConfig> before = {
      {.alias = "a", .guaranteed_bytes = 60, .limit_bytes = 80}, {.alias = "z"}};
  ASSERT_TRUE(ApplyQuotas(store, {}, before).ok());
  store.refuse_alias = "z";
  const absl::Status status =
      ApplyQuotas(store, before,
                  {{.alias = "a", .guaranteed_bytes = 10, .limit_bytes = 20},
                   {.alias = "z", .guaranteed_bytes = 5}});
  EXPECT_EQ(MessageOf(status), "quota of tenant z: refused");
  EXPECT_THAT(store.quotas, ElementsAre(Pair("a", Quota{60, 80}), Pair("z", Quota{0, 0})));
}

}  // namespace
}  // namespace terrace
