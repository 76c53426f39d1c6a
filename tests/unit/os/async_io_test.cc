// What single engines do that the contract does not say: limits of the host, and order.
#include "tiers/os/async_io.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>
#include <stddef.h>

#include "tests/doubles/faulty_file_system.h"
#include "tests/doubles/in_child.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/simulated_disk.h"
#include "tests/unit/os/memfd.h"
#include "tiers/os/transfer_progress.h"

namespace terrace {
namespace {

IoRequest RequestOf(IoKind kind, File* file, IoPieces pieces, uint64_t offset = 0) {
  IoRequest request;
  request.kind = kind;
  request.file = file;
  request.offset = offset;
  request.pieces = std::move(pieces);
  return request;
}

class TransferProgressTest : public testing::Test {
 protected:
  std::unique_ptr<File> Make(Caching caching) {
    if (folder_ == nullptr) {
      folder_ = *disk_.OpenFolder("/x", FolderMode::kCreate);
    }
    return *folder_->Open(caching == Caching::kDirect ? "direct" : "buffered", OpenMode::kCreateNew,
                          caching);
  }
  doubles::SimulatedDisk disk_;
  std::unique_ptr<Folder> folder_;
  AlignedBuffer buffer_{16384};
};

TEST_F(TransferProgressTest, AShortTransferGoesOnInTheMiddleOfAPiece) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kWrite, file.get(),
                                      {buffer_.span().first(4096), buffer_.span().subspan(4096)},
                                      8192));
  EXPECT_FALSE(progress.Take(8192));
  EXPECT_EQ(progress.offset(), 8192U + 8192);
  ASSERT_EQ(progress.rest().size(), 1U);
  EXPECT_EQ(progress.rest()[0].data(), buffer_.bytes() + 8192);
  EXPECT_TRUE(progress.Take(8192));
  EXPECT_TRUE(progress.status().ok());
  EXPECT_EQ(progress.bytes(), 16384U);
}

TEST_F(TransferProgressTest, InterruptionsAreRepeatedButNotForEver) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kRead, file.get(), {buffer_.span()}));
  for (uint32_t i = 0; i < TransferProgress::kMaxRepeats; ++i) {
    EXPECT_FALSE(progress.Take(i % 2 == 0 ? -EINTR : -EAGAIN));
  }
  EXPECT_TRUE(progress.Take(-EAGAIN));
  EXPECT_TRUE(absl::IsUnavailable(progress.status()));
}

TEST_F(TransferProgressTest, ProgressMakesInterruptionsForgotten) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kWrite, file.get(), {buffer_.span()}));
  for (uint32_t i = 0; i < TransferProgress::kMaxRepeats; ++i) {
    EXPECT_FALSE(progress.Take(-EINTR));
  }
  EXPECT_FALSE(progress.Take(4096));
  EXPECT_FALSE(progress.Take(-EINTR));
}

TEST_F(TransferProgressTest, AFullDiskThatTakesNothingIsNotASuccess) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kWrite, file.get(), {buffer_.span()}));
  EXPECT_FALSE(progress.Take(4096));
  EXPECT_TRUE(progress.Take(0));
  EXPECT_TRUE(absl::IsResourceExhausted(progress.status()));
}

TEST_F(TransferProgressTest, ADirectWriteThatStopsInsideASectorIsNotContinued) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kWrite, file.get(), {buffer_.span()}));
  EXPECT_TRUE(progress.Take(1000));
  EXPECT_FALSE(progress.status().ok());
}

TEST_F(TransferProgressTest, ADirectReadThatStopsInsideASectorIsTheEndOfTheFile) {
  const std::unique_ptr<File> direct = Make(Caching::kDirect);
  TransferProgress read(RequestOf(IoKind::kRead, direct.get(), {buffer_.span()}));
  EXPECT_TRUE(read.Take(1000));
  EXPECT_TRUE(read.status().ok());
  EXPECT_EQ(read.bytes(), 1000U);
  const std::unique_ptr<File> buffered = Make(Caching::kBuffered);
  TransferProgress other(RequestOf(IoKind::kRead, buffered.get(), {buffer_.span()}));
  EXPECT_FALSE(other.Take(1000));
}

TEST_F(TransferProgressTest, ErrorsKeepTheirKind) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  const std::pair<int, absl::StatusCode> cases[] = {{EIO, absl::StatusCode::kInternal},
                                                    {ENOSPC, absl::StatusCode::kResourceExhausted},
                                                    {EDQUOT, absl::StatusCode::kResourceExhausted},
                                                    {EROFS, absl::StatusCode::kPermissionDenied}};
  for (const auto& [error, code] : cases) {
    TransferProgress progress(RequestOf(IoKind::kWrite, file.get(), {buffer_.span()}));
    EXPECT_TRUE(progress.Take(-error));
    EXPECT_EQ(progress.status().code(), code);
  }
}

TEST_F(TransferProgressTest, MoreBytesThanAskedForAreAFault) {
  const std::unique_ptr<File> file = Make(Caching::kDirect);
  TransferProgress progress(RequestOf(IoKind::kRead, file.get(), {buffer_.span()}));
  EXPECT_TRUE(progress.Take(16385));
  EXPECT_FALSE(progress.status().ok());
}

TEST(RequestTest, RequestsBeyondTheLimitsAreRefusedNamingThem) {
  doubles::SimulatedDisk disk;
  const std::unique_ptr<Folder> folder = *disk.OpenFolder("/x", FolderMode::kCreate);
  const std::unique_ptr<File> file = *folder->Open("a", OpenMode::kCreateNew, Caching::kDirect);
  const AlignedBuffer buffer(4096);
  EXPECT_FALSE(ValidateRequest(RequestOf(IoKind::kRead, file.get(), {absl::Span<char>()})).ok());
  EXPECT_FALSE(ValidateRequest(
                   RequestOf(IoKind::kRead, file.get(), IoPieces(kMaxIoPieces + 1, buffer.span())))
                   .ok());
  EXPECT_FALSE(
      ValidateRequest(RequestOf(IoKind::kRead, file.get(), {buffer.span()}, ~uint64_t{0})).ok());
  EXPECT_TRUE(ValidateRequest(RequestOf(IoKind::kSync, file.get(), {})).ok());
}

// ---- the pool over a file system that a test controls

class ThreadedIoTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = *files_.OpenFolder("/x", FolderMode::kCreate);
    file_ = *folder_->Open("a", OpenMode::kCreateNew, Caching::kDirect);
    io_ = MakeThreadedIo({.threads = 1}, clock_);
  }
  IoCompletion Do(IoRequest request) {
    absl::Notification ended;
    IoCompletion result;
    EXPECT_TRUE(io_->Submit(std::move(request),
                            [&](IoCompletion completion) {
                              result = std::move(completion);
                              ended.Notify();
                            })
                    .ok());
    ended.WaitForNotification();
    return result;
  }
  doubles::ManualClock clock_;
  doubles::SimulatedDisk disk_;
  doubles::FaultPlan plan_;
  doubles::FaultyFileSystem files_{disk_, plan_};
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<File> file_;
  std::unique_ptr<AsyncIo> io_;
};

TEST_F(ThreadedIoTest, ShortTransfersAreCompleted) {
  plan_.Shorten(4096);
  AlignedBuffer written(65536);
  std::memset(written.bytes(), 'w', written.size());
  EXPECT_EQ(Do(RequestOf(IoKind::kWrite, file_.get(), {written.span()})).bytes, written.size());
  const AlignedBuffer got(65536);
  EXPECT_EQ(Do(RequestOf(IoKind::kRead, file_.get(), {got.span()})).bytes, got.size());
  EXPECT_EQ(std::memcmp(written.bytes(), got.bytes(), got.size()), 0);
  EXPECT_GT(io_->facts().resubmitted, 20U);
}

TEST_F(ThreadedIoTest, FaultsOfTheMediumReachTheCompletion) {
  const AlignedBuffer buffer(4096);
  plan_.Fail(doubles::FileCall::kWrite, 1, absl::ResourceExhaustedError("no space"));
  plan_.Fail(doubles::FileCall::kSync, 1, absl::InternalError("EIO"));
  EXPECT_TRUE(absl::IsResourceExhausted(
      Do(RequestOf(IoKind::kWrite, file_.get(), {buffer.span()})).status));
  EXPECT_TRUE(absl::IsInternal(Do(RequestOf(IoKind::kSync, file_.get(), {})).status));
  EXPECT_TRUE(Do(RequestOf(IoKind::kWrite, file_.get(), {buffer.span()})).status.ok());
}

TEST_F(ThreadedIoTest, MoreThanAllowedInFlightIsRefused) {
  absl::Notification go;
  absl::Notification blocked;
  io_ = MakeThreadedIo({.max_in_flight = 2, .threads = 1}, clock_);
  const AlignedBuffer buffer(4096);
  const auto read = [&] { return RequestOf(IoKind::kRead, file_.get(), {buffer.span()}); };
  // A completion that does not return holds the only thread; its own operation is over by then.
  ASSERT_TRUE(io_->Submit(read(),
                          [&](IoCompletion) {
                            blocked.Notify();
                            go.WaitForNotification();
                          })
                  .ok());
  blocked.WaitForNotification();
  EXPECT_TRUE(io_->Submit(read(), [](IoCompletion) {}).ok());
  EXPECT_TRUE(io_->Submit(read(), [](IoCompletion) {}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(io_->Submit(read(), [](IoCompletion) {}).status()));
  go.Notify();
  io_.reset();
}

TEST_F(ThreadedIoTest, HigherPriorityBeginsFirst) {
  absl::Notification go;
  absl::Notification blocked;
  absl::Notification last;
  const AlignedBuffer buffer(4096);
  absl::Mutex mutex;
  std::vector<Priority> order;
  ASSERT_TRUE(io_->Submit(RequestOf(IoKind::kRead, file_.get(), {buffer.span()}),
                          [&](IoCompletion) {
                            blocked.Notify();
                            go.WaitForNotification();
                          })
                  .ok());
  blocked.WaitForNotification();
  for (const Priority priority : {Priority::kLow, Priority::kNormal, Priority::kHigh}) {
    IoRequest request = RequestOf(IoKind::kRead, file_.get(), {buffer.span()});
    request.priority = priority;
    ASSERT_TRUE(io_->Submit(std::move(request),
                            [&, priority](IoCompletion) {
                              absl::MutexLock lock(&mutex);
                              order.push_back(priority);
                              if (order.size() == 3) {
                                last.Notify();
                              }
                            })
                    .ok());
  }
  go.Notify();
  last.WaitForNotification();
  io_.reset();
  EXPECT_EQ(order, (std::vector<Priority>{Priority::kHigh, Priority::kNormal, Priority::kLow}));
}

TEST_F(ThreadedIoTest, AWaitingOperationEndsAtItsDeadlineWithoutTouchingTheFile) {
  const AlignedBuffer buffer(4096);
  IoRequest late = RequestOf(IoKind::kRead, file_.get(), {buffer.span()});
  late.deadline = clock_.Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(Do(std::move(late)).status));
  EXPECT_EQ(plan_.calls(doubles::FileCall::kRead), 0U);
}

// ---- io_uring where the host says no

TEST(UringIoTest, AFileThatIsNotTheKernelsIsRefused) {
  doubles::SimulatedDisk disk;
  const std::unique_ptr<Folder> folder = *disk.OpenFolder("/x", FolderMode::kCreate);
  const std::unique_ptr<File> file = *folder->Open("a", OpenMode::kCreateNew, Caching::kDirect);
  const std::unique_ptr<AsyncIo> io = *MakeUringIo({}, BootClock());
  const AlignedBuffer buffer(4096);
  EXPECT_TRUE(absl::IsInvalidArgument(
      io->Submit(RequestOf(IoKind::kRead, file.get(), {buffer.span()}), [](IoCompletion) {
        }).status()));
}

// Makes io_uring_setup fail with EPERM in this process, as container runtimes do.
bool ForbidUring() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(UringIoTest, WhereItIsForbiddenThreadsDoTheWorkAndSayWhy) {
  EXPECT_EQ(InChild([] {
              if (!ForbidUring()) {
                return 2;
              }
              if (!absl::IsUnavailable(MakeUringIo({}, BootClock()).status())) {
                return 3;
              }
              const std::unique_ptr<AsyncIo> io = MakeAsyncIo({}, BootClock());
              const IoFacts facts = io->facts();
              return facts.engine == "threads" && !facts.fallback_reason.empty() ? 0 : 4;
            }),
            0);
}

TEST(UringIoTest, MemoryBeyondTheLockLimitIsRefusedAndTransfersGoOn) {
  EXPECT_EQ(InChild([] {
              const rlimit limit = {uint64_t{256} << 10, uint64_t{256} << 10};
              if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
                  (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)) {
                return 2;
              }
              const absl::StatusOr<std::unique_ptr<AsyncIo>> io =
                  MakeUringIo({.depth = 4}, BootClock());
              if (!io.ok()) {
                return 3;
              }
              const AlignedBuffer memory(uint64_t{4} << 20);
              const absl::Status refused = (*io)->RegisterMemory(memory.span());
              if (!absl::IsResourceExhausted(refused) && !absl::IsUnimplemented(refused)) {
                return 4;
              }
              const IoFacts facts = (*io)->facts();
              return facts.registered_bytes == 0 && !facts.registration_refusal.empty() ? 0 : 5;
            }),
            0);
}

TEST(UringIoTest, DeadlinesOfWhatTheKernelHoldsEndIt) {
  // Reading from a terminal-less pipe end never completes by itself; it is no regular file, so it
  // is handed over as a descriptor.
  class PipeFile final : public File {
   public:
    explicit PipeFile(int fd) : fd_(fd) {}
    absl::StatusOr<uint64_t> ReadAt(uint64_t, absl::Span<char>) override { return 0; }
    absl::StatusOr<uint64_t> WriteAt(uint64_t, absl::Span<const char>) override { return 0; }
    absl::Status Sync() override { return absl::OkStatus(); }
    absl::Status Preallocate(uint64_t) override { return absl::OkStatus(); }
    [[nodiscard]] absl::StatusOr<uint64_t> Size() const override { return 0; }
    [[nodiscard]] int descriptor() const override { return fd_; }
    [[nodiscard]] bool direct() const override { return false; }

   private:
    const int fd_;
  };
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const Descriptor reading(ends[0]);
  const Descriptor writing(ends[1]);
  PipeFile file(reading.get());
  doubles::ManualClock clock;
  const std::unique_ptr<AsyncIo> io = *MakeUringIo({.depth = 1}, clock);
  const AlignedBuffer buffer(4096);
  const auto submit = [&](absl::Duration deadline, absl::Notification* ended,
                          absl::Status* status) {
    IoRequest request = RequestOf(IoKind::kRead, &file, {buffer.span().first(16)});
    request.deadline = deadline;
    absl::StatusOr<uint64_t> token = io->Submit(std::move(request), [=](IoCompletion completion) {
      *status = completion.status;
      ended->Notify();
    });
    return *token;
  };
  absl::Notification first;
  absl::Notification second;
  absl::Notification third;
  absl::Status statuses[3];
  submit(clock.Now() + absl::Seconds(1), &first, &statuses[0]);
  submit(clock.Now() + absl::Seconds(2), &second, &statuses[1]);  // waits behind it
  const uint64_t token = submit(absl::InfiniteDuration(), &third, &statuses[2]);
  clock.Advance(absl::Seconds(3));
  first.WaitForNotification();
  second.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(statuses[0])) << statuses[0];
  EXPECT_TRUE(absl::IsDeadlineExceeded(statuses[1])) << statuses[1];
  io->Cancel(token);
  third.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(statuses[2])) << statuses[2];
}

}  // namespace
}  // namespace terrace
