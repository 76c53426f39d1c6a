#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <grp.h>
#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uid_t kNobody = 65534;

SealedMemory Make(uint64_t bytes, bool huge_pages = true, int threads = 2) {
  absl::StatusOr<SealedMemory> made =
      SealedMemory::Create({.bytes = bytes, .huge_pages = huge_pages, .touch_threads = threads});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : SealedMemory();
}

// Every way to write or to take memory away by the descriptor that somebody was given. Returns the
// first that was not refused, "" when all were. Async-signal-safe enough for a forked child.
std::string FirstWayIn(int fd, off_t bytes) {
  const size_t size = static_cast<size_t>(bytes);
  const auto maps_writable = [size](int target) {
    void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, target, 0);
    return at != MAP_FAILED;
  };
  if (maps_writable(fd)) {
    return "mmap";
  }
  void* const read_only = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (read_only == MAP_FAILED) {
    return "no read-only mapping";
  }
  if (mprotect(read_only, size, PROT_READ | PROT_WRITE) == 0) {
    return "mprotect";
  }
  if (madvise(read_only, size, MADV_REMOVE) == 0) {
    return "madvise(MADV_REMOVE)";
  }
  if (pwrite(fd, "x", 1, 0) >= 0) {
    return "pwrite";
  }
  if (ftruncate(fd, 0) == 0 || ftruncate(fd, bytes * 2) == 0) {
    return "ftruncate";
  }
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bytes) == 0 ||
      fallocate(fd, 0, 0, bytes * 2) == 0) {
    return "fallocate";
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0) {
    return "more seals";
  }
  // Opening it anew for writing may succeed; what matters is that writing through that does not.
  const Descriptor again(open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDWR | O_CLOEXEC));
  if (again.valid() && (maps_writable(again.get()) || pwrite(again.get(), "x", 1, 0) >= 0 ||
                        ftruncate(again.get(), 0) == 0)) {
    return "/proc/self/fd";
  }
  const Descriptor truncated(
      open(absl::StrCat("/proc/self/fd/", fd).c_str(), O_RDWR | O_TRUNC | O_CLOEXEC));
  if (truncated.valid()) {
    return "O_TRUNC";
  }
  return "";
}

class SealedMemoryOfEachKind : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Pages,
                         SealedMemoryOfEachKind,
                         testing::Values(true, false),
                         [](const auto& instance) {
                           return instance.param ? "HugeWanted" : "Small";
                         });

TEST_P(SealedMemoryOfEachKind, IsZeroedWritableHereAndOfTheSizeAskedFor) {
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  ASSERT_EQ(sealed.memory().size(), 4 * kMiB);
  EXPECT_TRUE(
      std::all_of(sealed.memory().begin(), sealed.memory().end(), [](char c) { return c == 0; }));
  std::memset(sealed.memory().data(), 'x', sealed.memory().size());
  EXPECT_EQ(lseek(sealed.descriptor().get(), 0, SEEK_END), static_cast<off_t>(4 * kMiB));
}

TEST_P(SealedMemoryOfEachKind, IsReadableByOthersThroughTheDescriptor) {
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  std::strcpy(sealed.memory().data() + 3 * kMiB, "payload");
  const absl::StatusOr<Mapping> other =
      Mapping::Map(sealed.descriptor().get(), 0, 4 * kMiB, MapAccess::kReadOnly);
  ASSERT_TRUE(other.ok());
  EXPECT_STREQ(other->data() + 3 * kMiB, "payload");
  std::strcpy(sealed.memory().data() + 3 * kMiB, "changed");
  EXPECT_STREQ(other->data() + 3 * kMiB, "changed");
}

TEST_P(SealedMemoryOfEachKind, RefusesEveryWayToWriteInThisProcess) {
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  EXPECT_EQ(FirstWayIn(sealed.descriptor().get(), 4 * kMiB), "");
  EXPECT_TRUE(
      std::all_of(sealed.memory().begin(), sealed.memory().end(), [](char c) { return c == 0; }));
}

TEST_P(SealedMemoryOfEachKind, RefusesEveryWayToWriteInAChildOfTheSameUser) {
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  EXPECT_EQ(
      InChild([&] { return FirstWayIn(sealed.descriptor().get(), 4 * kMiB).empty() ? 0 : 1; }), 0);
}

TEST_P(SealedMemoryOfEachKind, RefusesEveryWayToWriteInAChildOfAnotherUser) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "only root can become another user";
  }
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  std::strcpy(sealed.memory().data(), "payload");
  const int way_in = InChild([&] {
    if (setgroups(0, nullptr) != 0 || setgid(kNobody) != 0 || setuid(kNobody) != 0) {
      return 2;
    }
    return FirstWayIn(sealed.descriptor().get(), 4 * kMiB).empty() ? 0 : 1;
  });
  EXPECT_EQ(way_in, 0);
  EXPECT_STREQ(sealed.memory().data(), "payload");
}

// The check above must be able to fail.
TEST(SealedMemory, OfSeveralWritersIsWrittenByWhoeverMapsItAndKeepsItsSize) {
  absl::StatusOr<SealedMemory> shared =
      SealedMemory::Create({.bytes = 4 * kMiB,
                            .reserved_pages = false,
                            .writers = SealedMemory::Writers::kWhoeverMapsIt});
  ASSERT_TRUE(shared.ok()) << shared.status();
  const int fd = shared->descriptor().get();
  absl::StatusOr<Mapping> other = Mapping::Map(fd, 0, 4 * kMiB, MapAccess::kReadWrite);
  ASSERT_TRUE(other.ok()) << other.status();
  other->data()[4 * kMiB - 1] = 'w';
  EXPECT_EQ(shared->memory()[4 * kMiB - 1], 'w');
  EXPECT_NE(ftruncate(fd, 0), 0);
  EXPECT_NE(ftruncate(fd, 8 * kMiB), 0);
  EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(SealedMemory, AnUnsealedMemfdHasAWayIn) {
  const Descriptor fd = MakeMemfd(4 * kMiB);
  EXPECT_EQ(FirstWayIn(fd.get(), 4 * kMiB), "mmap");
}

TEST_P(SealedMemoryOfEachKind, HasTheFourSeals) {
  const SealedMemory sealed = Make(kMiB, GetParam());
  constexpr int kWanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  EXPECT_EQ(fcntl(sealed.descriptor().get(), F_GET_SEALS) & kWanted, kWanted);
}

TEST_P(SealedMemoryOfEachKind, EveryPageIsPresentBeforeCreateReturns) {
  for (const int threads : {1, 3, 1000}) {
    const SealedMemory sealed = Make(10 * kMiB, GetParam(), threads);
    std::vector<unsigned char> present(sealed.memory().size() / kPage, 0);
    ASSERT_EQ(mincore(sealed.memory().data(), sealed.memory().size(), present.data()), 0);
    EXPECT_TRUE(std::all_of(present.begin(), present.end(), [](unsigned char p) {
      return (p & 1) != 0;
    })) << threads;
  }
}

// Lines of /proc/self/smaps for the mapping at `address`.
std::vector<std::string> SmapsOf(const void* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::vector<std::string> lines;
  const std::string head = absl::StrCat(absl::Hex(reinterpret_cast<uintptr_t>(address)), "-");
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find("-") < line.find(" ") && line.find(":") > line.find(" ")) {
      ours = line.rfind(head, 0) == 0;
    }
    if (ours) {
      lines.push_back(line);
    }
  }
  return lines;
}

std::string SmapsField(const void* address, std::string_view name) {
  for (const std::string& line : SmapsOf(address)) {
    if (line.rfind(std::string(name) + ":", 0) == 0) {
      return line.substr(name.size() + 1);
    }
  }
  return "";
}

TEST_P(SealedMemoryOfEachKind, StaysOutOfCoreDumps) {
  const SealedMemory sealed = Make(4 * kMiB, GetParam());
  EXPECT_NE(SmapsField(sealed.memory().data(), "VmFlags").find(" dd"), std::string::npos);
}

TEST_P(SealedMemoryOfEachKind, PageKindIsWhatTheKernelSays) {
  const SealedMemory sealed = Make(8 * kMiB, GetParam());
  const void* const at = sealed.memory().data();
  const bool hugetlb = SmapsField(at, "KernelPageSize").find("2048 kB") != std::string::npos;
  const bool transparent = SmapsField(at, "ShmemPmdMapped").find(" 0 kB") == std::string::npos;
  switch (sealed.page_kind()) {
    case PageKind::kHuge:
      EXPECT_TRUE(hugetlb);
      break;
    case PageKind::kTransparentHuge:
      EXPECT_TRUE(transparent && !hugetlb);
      break;
    case PageKind::kSmall:
      EXPECT_FALSE(hugetlb);
      break;
  }
  if (!GetParam()) {
    EXPECT_EQ(sealed.page_kind(), PageKind::kSmall);
  }
  RecordProperty("page_kind", std::string(PageKindName(sealed.page_kind())));
}

TEST(SealedMemory, PageKindsHaveNames) {
  EXPECT_EQ(PageKindName(PageKind::kHuge), "huge");
  EXPECT_EQ(PageKindName(PageKind::kTransparentHuge), "transparent-huge");
  EXPECT_EQ(PageKindName(PageKind::kSmall), "small");
}

TEST(SealedMemory, OddSizesAreRoundedUpToThePageInUse) {
  EXPECT_EQ(Make(1, false).memory().size(), kPage);
  EXPECT_EQ(Make(kPage + 1, false).memory().size(), 2 * kPage);
  EXPECT_EQ(Make(3 * kMiB, true).memory().size() % kPage, 0U);
  EXPECT_GE(Make(3 * kMiB, true).memory().size(), 3 * kMiB);
}

TEST(SealedMemory, RefusesSizesThatMakeNoSense) {
  EXPECT_EQ(SealedMemory::Create({.bytes = 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SealedMemory::Create({.bytes = ~uint64_t{0}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SealedMemory, SaysThatThereIsNotEnoughMemoryInsteadOfTakingItAll) {
  for (const bool huge_pages : {true, false}) {
    const absl::Status status =
        SealedMemory::Create({.bytes = uint64_t{1} << 45, .huge_pages = huge_pages}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  }
}

TEST(SealedMemory, SaysThatDescriptorsRanOut) {
  const int code = InChild([] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_NOFILE, &none);
    return static_cast<int>(SealedMemory::Create({.bytes = kMiB}).status().code());
  });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST(SealedMemory, GivesEverythingBackWhenItDies) {
  int number = -1;
  char* at = nullptr;
  {
    const SealedMemory sealed = Make(4 * kMiB);
    number = sealed.descriptor().get();
    at = sealed.memory().data();
  }
  EXPECT_LT(fcntl(number, F_GETFD), 0);
  EXPECT_NE(msync(at, kPage, MS_ASYNC), 0);
}

}  // namespace
}  // namespace terrace
