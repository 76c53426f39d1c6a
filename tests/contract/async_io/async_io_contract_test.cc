// What every AsyncIo promises: on io_uring, on threads over the kernel and over the simulated disk,
// and on the double that steps.
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "tests/doubles/manual_clock.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/doubles/simulated_disk.h"
#include "tests/doubles/step_io.h"
#include "tiers/os/async_io.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<AsyncIo>(const AsyncIoOptions&, const Clock&)> make;
  bool simulated = false;
};

class AsyncIoContract : public testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    io_ = GetParam().make(options_, clock_);
    FileSystem& files = GetParam().simulated ? static_cast<FileSystem&>(disk_) : KernelFileSystem();
    absl::StatusOr<std::unique_ptr<Folder>> folder =
        files.OpenFolder(private_.path() + "/io", FolderMode::kCreate);
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_ = *std::move(folder);
    const absl::StatusOr<TransferFact> fact = folder_->ProbeTransfers();
    ASSERT_TRUE(fact.ok()) << fact.status();
    absl::StatusOr<std::unique_ptr<File>> file =
        folder_->Open("a", OpenMode::kCreateNew, fact->caching);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }

  void StepUntil(const std::function<bool()>& reached) {
    while (!reached()) {
      if (auto* steps = dynamic_cast<doubles::StepIo*>(io_.get()); steps != nullptr) {
        ASSERT_TRUE(steps->Step());
      }
    }
  }

  IoCompletion Do(IoRequest request) {
    absl::Notification ended;
    IoCompletion result;
    const absl::StatusOr<uint64_t> token =
        io_->Submit(std::move(request), [&](IoCompletion completion) {
          result = std::move(completion);
          ended.Notify();
        });
    EXPECT_TRUE(token.ok()) << token.status();
    if (token.ok()) {
      StepUntil([&] { return ended.HasBeenNotified(); });
    }
    return result;
  }
  IoCompletion Do(IoKind kind, uint64_t offset, IoPieces pieces) {
    IoRequest request;
    request.kind = kind;
    request.file = file_.get();
    request.offset = offset;
    request.pieces = std::move(pieces);
    return Do(std::move(request));
  }
  static AlignedBuffer Filled(uint64_t bytes, uint64_t seed) {
    AlignedBuffer buffer(bytes);
    std::memcpy(buffer.bytes(), doubles::Seeded(seed).Bytes(bytes).data(), bytes);
    return buffer;
  }
  static bool Same(const AlignedBuffer& a, const AlignedBuffer& b) {
    return a.size() == b.size() && std::memcmp(a.bytes(), b.bytes(), a.size()) == 0;
  }

  AsyncIoOptions options_;
  doubles::ManualClock clock_;
  doubles::PrivateFolder private_;
  doubles::SimulatedDisk disk_;
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<File> file_;
  std::unique_ptr<AsyncIo> io_;
};

std::unique_ptr<AsyncIo> MustUring(const AsyncIoOptions& options, const Clock& clock) {
  absl::StatusOr<std::unique_ptr<AsyncIo>> made = MakeUringIo(options, clock);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(
    All,
    AsyncIoContract,
    testing::Values(Implementation{"Uring", MustUring},
                    Implementation{"Threads", MakeThreadedIo},
                    Implementation{"ThreadsOverSimulated", MakeThreadedIo, true},
                    Implementation{"Steps",
                                   [](const AsyncIoOptions&, const Clock& clock) {
                                     return std::make_unique<doubles::StepIo>(clock, 7);
                                   },
                                   true}),
    [](const auto& instance) { return instance.param.name; });

TEST_P(AsyncIoContract, WhatIsWrittenIsReadAndThePiecesComeBack) {
  const AlignedBuffer written = Filled(1 << 20, 1);
  const IoCompletion wrote = Do(IoKind::kWrite, 8192, {written.span()});
  ASSERT_TRUE(wrote.status.ok()) << wrote.status;
  EXPECT_EQ(wrote.bytes, written.size());
  ASSERT_EQ(wrote.pieces.size(), 1U);
  EXPECT_EQ(wrote.pieces[0].data(), written.bytes());
  const AlignedBuffer got(1 << 20);
  const IoCompletion read = Do(IoKind::kRead, 8192, {got.span()});
  ASSERT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.bytes, got.size());
  EXPECT_TRUE(Same(written, got));
}

TEST_P(AsyncIoContract, ManyPiecesAreOneTransferInOrder) {
  const AlignedBuffer written = Filled(16 * 4096, 2);
  IoPieces pieces;
  for (size_t i = 0; i < 16; ++i) {
    pieces.push_back(written.span().subspan(i * 4096, 4096));
  }
  ASSERT_TRUE(Do(IoKind::kWrite, 0, pieces).status.ok());
  const AlignedBuffer got(16 * 4096);
  ASSERT_TRUE(
      Do(IoKind::kRead, 0,
         {got.span().subspan(0, 4096), got.span().subspan(4096, 8192), got.span().subspan(12288)})
          .status.ok());
  EXPECT_TRUE(Same(written, got));
}

TEST_P(AsyncIoContract, ARegisteredBufferMovesTheSameBytes) {
  const AlignedBuffer written = Filled(1 << 20, 3);
  const absl::Status registered = io_->RegisterMemory(written.span());
  EXPECT_TRUE(registered.ok() || absl::IsUnimplemented(registered)) << registered;
  EXPECT_EQ(io_->facts().registered_bytes, registered.ok() ? written.size() : 0);
  ASSERT_TRUE(Do(IoKind::kWrite, 4096, {written.span().subspan(4096, 65536)}).status.ok());
  AlignedBuffer got(65536);
  ASSERT_TRUE(io_->RegisterMemory(got.span()).ok() == registered.ok());
  ASSERT_TRUE(Do(IoKind::kRead, 4096, {got.span()}).status.ok());
  EXPECT_EQ(std::memcmp(got.bytes(), written.bytes() + 4096, got.size()), 0);
  io_->UnregisterMemory(written.span());
  io_->UnregisterMemory(got.span());
  EXPECT_EQ(io_->facts().registered_bytes, 0U);
  EXPECT_TRUE(Do(IoKind::kRead, 4096, {got.span()}).status.ok());
}

TEST_P(AsyncIoContract, ReadingBeyondTheEndIsShortAndNoError) {
  const AlignedBuffer written = Filled(8192, 4);
  ASSERT_TRUE(Do(IoKind::kWrite, 0, {written.span()}).status.ok());
  const AlignedBuffer got(65536);
  const IoCompletion read = Do(IoKind::kRead, 4096, {got.span()});
  EXPECT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.bytes, 4096U);
  EXPECT_EQ(Do(IoKind::kRead, 1 << 20, {got.span()}).bytes, 0U);
}

TEST_P(AsyncIoContract, SyncCompletes) {
  const IoCompletion synced = Do(IoKind::kSync, 0, {});
  EXPECT_TRUE(synced.status.ok()) << synced.status;
}

TEST_P(AsyncIoContract, WritingToAFileOpenForReadingFailsWithAStatus) {
  ASSERT_TRUE(file_->Preallocate(4096).ok());
  if (GetParam().simulated) {
    disk_.SetCapacity(4096);
    const AlignedBuffer more(8192);
    EXPECT_TRUE(absl::IsResourceExhausted(Do(IoKind::kWrite, 0, {more.span()}).status));
    return;
  }
  file_ = *folder_->Open("a", OpenMode::kRead, Caching::kBuffered);
  const AlignedBuffer written(4096);
  const IoCompletion wrote = Do(IoKind::kWrite, 0, {written.span()});
  EXPECT_FALSE(wrote.status.ok());
  EXPECT_EQ(wrote.pieces[0].data(), written.bytes());
}

TEST_P(AsyncIoContract, RequestsThatMakeNoSenseAreRefused) {
  const AlignedBuffer buffer(4096);
  std::vector<IoRequest> bad(3);
  bad[0].pieces = {buffer.span()};
  bad[1].file = file_.get();
  bad[2].file = file_.get();
  bad[2].kind = IoKind::kSync;
  bad[2].pieces = {buffer.span()};
  for (IoRequest& request : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        io_->Submit(std::move(request), [](IoCompletion) { FAIL(); }).status()));
  }
}

TEST_P(AsyncIoContract, APassedDeadlineEndsTheOperationAndGivesThePiecesBack) {
  const AlignedBuffer buffer(4096);
  IoRequest request;
  request.file = file_.get();
  request.pieces = {buffer.span()};
  request.deadline = clock_.Now() - absl::Seconds(1);
  const IoCompletion ended = Do(std::move(request));
  // What the kernel finished before the end reached it is finished.
  EXPECT_TRUE(ended.status.ok() || absl::IsDeadlineExceeded(ended.status)) << ended.status;
  EXPECT_EQ(ended.pieces[0].data(), buffer.bytes());
}

TEST_P(AsyncIoContract, EveryOperationCompletesOnceWhateverIsCancelled) {
  constexpr int kOperations = 400;
  const AlignedBuffer content = Filled(kOperations * 4096, 5);
  ASSERT_TRUE(Do(IoKind::kWrite, 0, {content.span()}).status.ok());
  std::vector<AlignedBuffer> buffers;
  std::vector<uint64_t> tokens;
  std::vector<std::atomic<int>> completions(kOperations);
  std::atomic<int> ended{0};
  std::atomic<int> wrong{0};
  for (int i = 0; i < kOperations; ++i) {
    buffers.emplace_back(4096);
    IoRequest request;
    request.file = file_.get();
    request.offset = static_cast<uint64_t>(i) * 4096;
    request.pieces = {buffers.back().span()};
    request.priority = static_cast<Priority>(1 + i % 3);
    const absl::StatusOr<uint64_t> token =
        io_->Submit(std::move(request), [&, i](IoCompletion completion) {
          ++completions[static_cast<size_t>(i)];
          if (completion.status.ok() &&
              std::memcmp(completion.pieces[0].data(), content.bytes() + i * 4096, 4096) != 0) {
            ++wrong;
          }
          if (!completion.status.ok() && !absl::IsCancelled(completion.status)) {
            ++wrong;
          }
          ++ended;
        });
    ASSERT_TRUE(token.ok());
    tokens.push_back(*token);
    if (i % 4 == 0) {
      io_->Cancel(tokens[static_cast<size_t>(i / 2)]);
    }
  }
  StepUntil([&] { return ended == kOperations; });
  EXPECT_EQ(wrong, 0);
  for (const std::atomic<int>& count : completions) {
    EXPECT_EQ(count, 1);
  }
  io_->Cancel(tokens[0]);
  io_->Cancel(123456789);
}

TEST_P(AsyncIoContract, EndingTheEngineCompletesWhatWasAccepted) {
  constexpr int kOperations = 200;
  std::vector<AlignedBuffer> buffers;
  std::atomic<int> ended{0};
  ASSERT_TRUE(file_->Preallocate(1 << 20).ok());
  for (int i = 0; i < kOperations; ++i) {
    buffers.emplace_back(65536);
    IoRequest request;
    request.file = file_.get();
    request.pieces = {buffers.back().span()};
    ASSERT_TRUE(io_->Submit(std::move(request), [&](IoCompletion) { ++ended; }).ok());
  }
  io_.reset();
  EXPECT_EQ(ended, kOperations);
}

}  // namespace
}  // namespace terrace
