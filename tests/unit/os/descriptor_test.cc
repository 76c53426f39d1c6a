#include "tiers/os/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/unit/os/memfd.h"

namespace terrace {
namespace {

bool IsOpen(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

bool Readable(int fd) {
  pollfd wanted{fd, POLLIN, 0};
  return poll(&wanted, 1, 0) == 1;
}

TEST(Descriptor, ClosesWhenItDies) {
  int number = -1;
  {
    const Descriptor fd = MakeMemfd(1);
    number = fd.get();
    ASSERT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(Descriptor, MovingHandsItOnAndLeavesNothing) {
  Descriptor from = MakeMemfd(1);
  const int number = from.get();
  const Descriptor to = std::move(from);
  EXPECT_EQ(to.get(), number);
  EXPECT_FALSE(from.valid());  // NOLINT(bugprone-use-after-move): that is what is tested
}

TEST(Descriptor, AssigningClosesTheOldOneAtOnce) {
  Descriptor a = MakeMemfd(1);
  Descriptor b = MakeMemfd(1);
  const int old = a.get();
  const int taken = b.get();
  a = std::move(b);
  EXPECT_FALSE(IsOpen(old));
  EXPECT_EQ(a.get(), taken);
}

TEST(Descriptor, ReleaseGivesUpOwnership) {
  int number = -1;
  {
    Descriptor fd = MakeMemfd(1);
    number = fd.Release();
  }
  EXPECT_TRUE(IsOpen(number));
  const Descriptor closer(number);
}

TEST(Descriptor, DuplicateIsTheSameFileAndClosesOnExec) {
  const Descriptor fd = MakeMemfd(7);
  const absl::StatusOr<Descriptor> copy = fd.Duplicate();
  ASSERT_TRUE(copy.ok());
  EXPECT_NE(copy->get(), fd.get());
  EXPECT_EQ(lseek(copy->get(), 0, SEEK_END), 7);
  EXPECT_EQ(fcntl(copy->get(), F_GETFD), FD_CLOEXEC);
}

TEST(Descriptor, DuplicateReportsThatDescriptorsRanOut) {
  const int code = InChild([] {
    const Descriptor fd = MakeMemfd(1);
    const rlimit standard_input{1, 1};
    setrlimit(RLIMIT_NOFILE, &standard_input);
    return static_cast<int>(fd.Duplicate().status().code());
  });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST(Descriptor, DuplicateOfNoneIsAnError) {
  EXPECT_EQ(Descriptor().Duplicate().status().code(), absl::StatusCode::kInternal);
}

TEST(EventDescriptor, IsReadableAfterNotifyUntilCleared) {
  absl::StatusOr<EventDescriptor> event = EventDescriptor::Create();
  ASSERT_TRUE(event.ok());
  EXPECT_FALSE(Readable(event->get()));
  event->Notify();
  event->Notify();
  EXPECT_TRUE(Readable(event->get()));
  event->Clear();
  EXPECT_FALSE(Readable(event->get()));
}

TEST(EventDescriptor, ClearWithoutNotificationDoesNotBlock) {
  absl::StatusOr<EventDescriptor> event = EventDescriptor::Create();
  ASSERT_TRUE(event.ok());
  event->Clear();
  EXPECT_NE(fcntl(event->get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(EventDescriptor, CreateReportsThatDescriptorsRanOut) {
  const int code = InChild([] {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_NOFILE, &none);
    return static_cast<int>(EventDescriptor::Create().status().code());
  });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST(FillRandom, FillsEveryByteAndNeverTwiceTheSame) {
  std::set<std::string> seen;
  std::array<char, 16> bytes{};
  for (int i = 0; i < 100; ++i) {
    FillRandom(absl::MakeSpan(bytes));
    EXPECT_TRUE(seen.insert(std::string(bytes.begin(), bytes.end())).second);
  }
  // 4096 bytes that were all left alone, or hold one value, do not happen by chance.
  std::string many(4096, '\0');
  FillRandom(absl::MakeSpan(many));
  EXPECT_EQ(std::set<char>(many.begin(), many.end()).size(), 256U);
}

TEST(StatusFromErrno, SaysWhatFailedAndWhy) {
  const absl::Status status = StatusFromErrno(ENOSPC, "write segment");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "write segment: No space left on device");
}

TEST(StatusFromErrno, KeepsTheKindsApart) {
  EXPECT_EQ(StatusFromErrno(EINVAL, "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusFromErrno(EACCES, "x").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(StatusFromErrno(EPERM, "x").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(StatusFromErrno(ENOMEM, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusFromErrno(EMFILE, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusFromErrno(ENOENT, "x").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(StatusFromErrno(EEXIST, "x").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(StatusFromErrno(ENOSYS, "x").code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(StatusFromErrno(EPIPE, "x").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusFromErrno(ETIMEDOUT, "x").code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(StatusFromErrno(EIO, "x").code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace terrace
