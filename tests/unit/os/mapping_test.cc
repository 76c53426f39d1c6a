#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = uint64_t{1} << 20;

bool IsMapped(const void* address) {
  return msync(const_cast<void*>(address), kPage, MS_ASYNC) == 0;
}

absl::StatusCode CodeOfMap(int fd,
                           uint64_t offset,
                           uint64_t bytes,
                           MapAccess access = MapAccess::kReadOnly) {
  return Mapping::Map(fd, offset, bytes, access).status().code();
}

TEST(Mapping, IsSharedWithTheFileInBothDirections) {
  const Descriptor fd = MakeMemfd(3 * kPage);
  absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), kPage, kPage, MapAccess::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  ASSERT_EQ(pwrite(fd.get(), "abc", 3, kPage), 3);
  EXPECT_EQ(std::string(mapping->data(), 3), "abc");
  std::memcpy(mapping->data() + 3, "def", 3);
  std::array<char, 6> read{};
  ASSERT_EQ(pread(fd.get(), read.data(), read.size(), kPage), 6);
  EXPECT_EQ(std::string(read.data(), read.size()), "abcdef");
}

TEST(Mapping, KeepsTheSizeThatWasAskedFor) {
  const Descriptor fd = MakeMemfd(kPage);
  const absl::StatusOr<Mapping> mapping = Mapping::Map(fd.get(), 0, 100, MapAccess::kReadOnly);
  ASSERT_TRUE(mapping.ok());
  EXPECT_EQ(mapping->size(), 100U);
  EXPECT_EQ(mapping->mapped_bytes(), kPage);
}

TEST(Mapping, UnmapsWhenItDiesAndWhenItIsAssignedTo) {
  const Descriptor fd = MakeMemfd(4 * kMiB);
  const char* address = nullptr;
  {
    const absl::StatusOr<Mapping> mapping =
        Mapping::Map(fd.get(), 0, 3 * kMiB, MapAccess::kReadOnly);
    ASSERT_TRUE(mapping.ok());
    address = mapping->data();
    ASSERT_TRUE(IsMapped(address));
    ASSERT_TRUE(IsMapped(address + 3 * kMiB - kPage));
    // Nothing of the reservation that aligned it is left around it.
    EXPECT_FALSE(IsMapped(address + 3 * kMiB));
  }
  EXPECT_FALSE(IsMapped(address));
  EXPECT_FALSE(IsMapped(address + 3 * kMiB - kPage));

  absl::StatusOr<Mapping> a = Mapping::Map(fd.get(), 0, kPage, MapAccess::kReadOnly);
  absl::StatusOr<Mapping> b = Mapping::Map(fd.get(), 0, kPage, MapAccess::kReadOnly);
  ASSERT_TRUE(a.ok() && b.ok());
  const char* const old = a->data();
  const char* const taken = b->data();
  *a = *std::move(b);
  EXPECT_FALSE(IsMapped(old));
  EXPECT_EQ(a->data(), taken);
  EXPECT_TRUE(IsMapped(taken));
}

TEST(Mapping, LargeOnesArePlacedForHugePages) {
  const Descriptor fd = MakeMemfd(8 * kMiB);
  for (const uint64_t offset : {uint64_t{0}, 2 * kMiB}) {
    const absl::StatusOr<Mapping> mapping =
        Mapping::Map(fd.get(), offset, 2 * kMiB + 1, MapAccess::kReadOnly);
    ASSERT_TRUE(mapping.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(mapping->data()) % (2 * kMiB), 0U);
  }
}

TEST(Mapping, RefusesBadRanges) {
  const Descriptor fd = MakeMemfd(2 * kPage);
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(CodeOfMap(fd.get(), 0, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(fd.get(), 0, 2 * kPage + 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(fd.get(), 2 * kPage, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(fd.get(), 1, kPage), absl::StatusCode::kInvalidArgument)
      << "offset within a page";
  EXPECT_EQ(CodeOfMap(fd.get(), 0, kMax), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(fd.get(), kMax - kPage + 1, kPage), absl::StatusCode::kInvalidArgument)
      << "end wraps around";
  EXPECT_EQ(CodeOfMap(fd.get(), kPage, kMax - kPage), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(fd.get(), 0, 2 * kPage), absl::StatusCode::kOk);
}

TEST(Mapping, RefusesWhatCannotBeMapped) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const Descriptor reader(ends[0]);
  const Descriptor writer(ends[1]);
  EXPECT_EQ(CodeOfMap(reader.get(), 0, kPage), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfMap(-1, 0, kPage), absl::StatusCode::kInvalidArgument);
}

TEST(Mapping, RefusesToWriteThroughAReadOnlyDescriptor) {
  const Descriptor fd = MakeMemfd(kPage);
  const Descriptor read_only(
      open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(read_only.valid());
  EXPECT_EQ(CodeOfMap(read_only.get(), 0, kPage, MapAccess::kReadWrite),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOfMap(read_only.get(), 0, kPage, MapAccess::kReadOnly), absl::StatusCode::kOk);
}

TEST(Mapping, ReportsThatAddressSpaceRanOut) {
#if defined(TERRACE_UNDER_TSAN) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "sanitizers need more address space than a limit would leave";
#endif
  const int code = InChild([] {
    const Descriptor fd = MakeMemfd(uint64_t{1} << 40);
    const rlimit limit{uint64_t{1} << 36, uint64_t{1} << 36};
    setrlimit(RLIMIT_AS, &limit);
    return static_cast<int>(CodeOfMap(fd.get(), 0, uint64_t{1} << 40));
  });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace terrace
