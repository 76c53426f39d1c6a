#include "tiers/os/fault_guard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = uint64_t{1} << 20;

struct TestRegion {
  Descriptor fd;
  GuardedRegion region;

  [[nodiscard]] volatile char* bytes() const { return region.data(); }
  void Truncate(uint64_t to) const { ASSERT_EQ(ftruncate(fd.get(), static_cast<off_t>(to)), 0); }
};

TestRegion MakeRegion(uint64_t bytes, MapAccess access = MapAccess::kReadWrite) {
  TestRegion made;
  made.fd = MakeMemfd(bytes);
  const std::vector<char> content(bytes, 'x');
  EXPECT_EQ(pwrite(made.fd.get(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
  absl::StatusOr<GuardedRegion> region = GuardedRegion::Map(made.fd.get(), 0, bytes, access);
  EXPECT_TRUE(region.ok()) << region.status();
  if (region.ok()) {
    made.region = *std::move(region);
  }
  return made;
}

TEST(FaultGuard, RegionThatNobodyTruncatesIsNotFailed) {
  const TestRegion r = MakeRegion(kMiB);
  EXPECT_EQ(r.bytes()[kMiB - 1], 'x');
  r.bytes()[0] = 'y';
  EXPECT_EQ(r.bytes()[0], 'y');
  EXPECT_FALSE(r.region.failed());
  EXPECT_EQ(r.region.size(), kMiB);
}

TEST(FaultGuard, TruncatedRegionReadsAsZerosAndIsFailed) {
  const TestRegion r = MakeRegion(kMiB);
  r.Truncate(0);
  EXPECT_FALSE(r.region.failed()) << "failed before anybody looked";
  for (uint64_t at = 0; at < kMiB; at += kPage / 2) {
    ASSERT_EQ(r.bytes()[at], 0) << at;
  }
  EXPECT_TRUE(r.region.failed());
}

TEST(FaultGuard, TruncatedRegionSwallowsWrites) {
  for (const MapAccess access : {MapAccess::kReadWrite, MapAccess::kReadOnly}) {
    const TestRegion r = MakeRegion(kMiB, access);
    r.Truncate(0);
    ASSERT_EQ(r.bytes()[5], 0);  // through a read-only mapping only reads can be the first to fault
    for (uint64_t at = 0; at < kMiB; at += kPage) {
      r.bytes()[at] = 'z';
    }
    EXPECT_TRUE(r.region.failed());
  }
}

TEST(FaultGuard, StaysFailedWhenTheFileGrowsAgain) {
  const TestRegion r = MakeRegion(kMiB);
  r.Truncate(0);
  ASSERT_EQ(r.bytes()[0], 0);
  r.Truncate(kMiB);
  EXPECT_EQ(r.bytes()[0], 0);
  EXPECT_TRUE(r.region.failed());
}

TEST(FaultGuard, OnlyTheTruncatedOnesOfManyRegionsFail) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::vector<TestRegion> regions;
  for (int i = 0; i < 200; ++i) {
    regions.push_back(MakeRegion(kPage * (1 + random() % 8)));
  }
  std::shuffle(regions.begin(), regions.end(), random);
  for (size_t i = 0; i < regions.size() / 2; ++i) {
    regions[i].Truncate(0);
  }
  for (const TestRegion& r : regions) {
    for (uint64_t at = 0; at < r.region.size(); at += kPage) {
      [[maybe_unused]] const char touched = r.bytes()[at];
    }
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    EXPECT_EQ(regions[i].region.failed(), i < regions.size() / 2);
    EXPECT_EQ(regions[i].bytes()[0], i < regions.size() / 2 ? 0 : 'x');
  }
}

TEST(FaultGuard, CopySurvivesTruncationInTheMiddle) {
  const TestRegion r = MakeRegion(4 * kMiB);
  std::vector<char> copy(4 * kMiB);
  // memcpy itself, not a byte loop: what faults in the daemon is library code.
  std::memcpy(copy.data(), r.region.data(), kMiB);
  r.Truncate(2 * kMiB + kPage);
  std::memcpy(copy.data() + kMiB, r.region.data() + kMiB, 3 * kMiB);
  EXPECT_TRUE(r.region.failed());
  EXPECT_EQ(copy[kMiB - 1], 'x');
  EXPECT_EQ(copy[4 * kMiB - 1], 0);
}

TEST(FaultGuard, CopiesOnManyThreadsSurviveTruncationUnderneath) {
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    const TestRegion r = MakeRegion(2 * kMiB);
    std::atomic<int> started{0};
    std::vector<std::thread> copiers;
    for (int i = 0; i < 3; ++i) {
      copiers.emplace_back([&] {
        std::vector<char> copy(2 * kMiB);
        do {
          std::memcpy(copy.data(), r.region.data(), copy.size());
          started.fetch_add(1);
        } while (!r.region.failed());
      });
    }
    while (started.load() < 3) {
      std::this_thread::yield();
    }
    // From another process, as in life; the region's bytes are then nobody's race in this one.
    ASSERT_EQ(InChild([&] { return ftruncate(r.fd.get(), static_cast<off_t>(kPage)); }), 0);
    for (std::thread& copier : copiers) {
      copier.join();  // each ends because it sees the failure, or never
    }
  }
}

// The handler looks through the table while other threads change it.
TEST(FaultGuard, RegionsComeAndGoWhileOthersFault) {
  std::atomic<bool> stop{false};
  std::atomic<int> turned{0};
  std::vector<std::thread> churners;
  for (int i = 0; i < 2; ++i) {
    churners.emplace_back([&] {
      const Descriptor fd = MakeMemfd(kMiB);
      while (!stop.load()) {
        absl::StatusOr<GuardedRegion> region =
            GuardedRegion::Map(fd.get(), 0, kMiB, MapAccess::kReadWrite);
        ASSERT_TRUE(region.ok());
        region->data()[kMiB - 1] = 'y';
        ASSERT_FALSE(region->failed());
        ASSERT_EQ(region->data()[kMiB - 1], 'y')
            << "zeros were put under a region that nobody truncated";
        turned.fetch_add(1);
      }
    });
  }
  for (int i = 0; i < 300 || turned.load() < 300; ++i) {
    const TestRegion r = MakeRegion(kPage * 4);
    r.Truncate(0);
    ASSERT_EQ(r.bytes()[kPage], 0);
    ASSERT_TRUE(r.region.failed());
  }
  stop.store(true);
  for (std::thread& churner : churners) {
    churner.join();
  }
}

TEST(FaultGuard, ASlotIsUsedAgainWithoutItsOldFailure) {
  {
    const TestRegion r = MakeRegion(kPage);
    r.Truncate(0);
    ASSERT_EQ(r.bytes()[0], 0);
    ASSERT_TRUE(r.region.failed());
  }
  std::vector<TestRegion> fresh;
  for (int i = 0; i < 3; ++i) {
    fresh.push_back(MakeRegion(kPage));
    EXPECT_FALSE(fresh.back().region.failed());
    EXPECT_EQ(fresh.back().bytes()[0], 'x');
  }
}

TEST(FaultGuard, MovingARegionMovesItsGuard) {
  TestRegion a = MakeRegion(kPage);
  TestRegion b = MakeRegion(kPage);
  b.region = std::move(a.region);
  a.Truncate(0);
  EXPECT_EQ(b.bytes()[0], 0);
  EXPECT_TRUE(b.region.failed());
  EXPECT_FALSE(a.region.failed());  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(a.region.data(), nullptr);
}

TEST(FaultGuard, RefusesRegionsBeyondTheLimitAndTakesThemAgainLater) {
  const Descriptor fd = MakeMemfd(kPage);
  std::vector<GuardedRegion> regions;
  absl::Status status;
  while (regions.size() <= kMaxGuardedRegions) {
    absl::StatusOr<GuardedRegion> region =
        GuardedRegion::Map(fd.get(), 0, kPage, MapAccess::kReadOnly);
    if (!region.ok()) {
      status = region.status();
      break;
    }
    regions.push_back(*std::move(region));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(regions.size(), kMaxGuardedRegions);
  regions.pop_back();
  EXPECT_TRUE(GuardedRegion::Map(fd.get(), 0, kPage, MapAccess::kReadOnly).ok());
  // The last slot is guarded as the first is.
  const TestRegion last = MakeRegion(kPage);
  last.Truncate(0);
  EXPECT_EQ(last.bytes()[0], 0);
}

TEST(FaultGuard, RefusesFilesWhoseAccessCouldHang) {
  const Descriptor file(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const Descriptor reader(ends[0]);
  const Descriptor writer(ends[1]);
  const Descriptor on_disk(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  for (const int fd : {file.get(), reader.get(), on_disk.get(), -1}) {
    EXPECT_EQ(GuardedRegion::Map(fd, 0, kPage, MapAccess::kReadOnly).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(FaultGuard, RefusesRangesOutsideTheFileAndSealedOnesForWriting) {
  const Descriptor fd = MakeMemfd(kPage);
  EXPECT_EQ(GuardedRegion::Map(fd.get(), 0, kPage + 1, MapAccess::kReadOnly).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(GuardedRegion::Map(fd.get(), 0, kPage, MapAccess::kReadWrite).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(GuardedRegion::Map(fd.get(), 0, kPage, MapAccess::kReadOnly).ok());
}

// ---- what is not ours still ends the process. Sanitizers turn the signal into an exit of their
// own.

bool DiedOfSigbus(int status) {
#if defined(TERRACE_UNDER_TSAN) || defined(__SANITIZE_ADDRESS__)
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
#else
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
#endif
}

void FaultOutsideEveryRegion() {
  const TestRegion guarded = MakeRegion(kPage);
  const Descriptor fd = MakeMemfd(kPage);
  absl::StatusOr<Mapping> plain = Mapping::Map(fd.get(), 0, kPage, MapAccess::kReadWrite);
  if (ftruncate(fd.get(), 0) == 0) {
    *static_cast<volatile char*>(plain->data()) = 'x';
  }
}

class FaultGuardDeathTest : public testing::Test {
 protected:
  // The statement runs in a fresh process: what is installed once per process is installed there
  // anew.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(FaultGuardDeathTest, FaultElsewhereStillKills) {
  EXPECT_EXIT(
      {
        FaultOutsideEveryRegion();
        _exit(0);
      },
      DiedOfSigbus, "");
}

TEST_F(FaultGuardDeathTest, FaultBehindARegionThatIsGoneStillKills) {
  EXPECT_EXIT(
      {
        const Descriptor fd = MakeMemfd(kPage);
        char* at = nullptr;
        {
          absl::StatusOr<GuardedRegion> region =
              GuardedRegion::Map(fd.get(), 0, kPage, MapAccess::kReadWrite);
          at = region->data();
        }
        void* const plain =
            mmap(at, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd.get(), 0);
        if (plain == at && ftruncate(fd.get(), 0) == 0) {
          *static_cast<volatile char*>(at) = 'x';
        }
        _exit(0);
      },
      DiedOfSigbus, "");
}

TEST_F(FaultGuardDeathTest, SignalSentByAProcessStillKills) {
  EXPECT_EXIT(
      {
        InstallFaultGuard();
        kill(getpid(), SIGBUS);
        // Delivered before kill returns, unless another thread takes it.
        while (true) {
          pause();
        }
      },
      DiedOfSigbus, "");
}

TEST_F(FaultGuardDeathTest, FaultElsewhereGoesToTheHandlerThatWasThereBefore) {
  EXPECT_EXIT(
      {
        struct sigaction before {};
        before.sa_sigaction = [](int, siginfo_t* cause, void*) {
          _exit(cause->si_code == BUS_ADRERR ? 42 : 43);
        };
        before.sa_flags = SA_SIGINFO;
        sigaction(SIGBUS, &before, nullptr);
        FaultOutsideEveryRegion();
        _exit(0);
      },
      testing::ExitedWithCode(42), "");
}

TEST_F(FaultGuardDeathTest, PlainHandlerThatWasThereBeforeIsCalledToo) {
  EXPECT_EXIT(
      {
        signal(SIGBUS, [](int) { _exit(44); });
        FaultOutsideEveryRegion();
        _exit(0);
      },
      testing::ExitedWithCode(44), "");
}

TEST_F(FaultGuardDeathTest, IgnoredBeforeStaysIgnoredWhenSentAndKillsWhenAFault) {
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_IGN);
        InstallFaultGuard();
        kill(getpid(), SIGBUS);
        FaultOutsideEveryRegion();
        _exit(0);
      },
      DiedOfSigbus, "");
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_IGN);
        InstallFaultGuard();
        kill(getpid(), SIGBUS);
        _exit(45);
      },
      testing::ExitedWithCode(45), "");
}

}  // namespace
}  // namespace terrace
