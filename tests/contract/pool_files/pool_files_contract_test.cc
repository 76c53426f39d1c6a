// What every PoolFiles promises, by threads of this process and by a worker.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "daemon/worker/worker_pool_files.h"
#include "tests/doubles/private_folder.h"
#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_files.h"

namespace terrace {
namespace {

constexpr uint64_t kRoomBytes = uint64_t{4} << 20;

struct Room {
  doubles::PrivateFolder folder;
  virtual ~Room() = default;
  virtual std::unique_ptr<PoolFiles> Make() = 0;
};

struct ThreadedRoom final : Room {
  std::unique_ptr<RootedFiles> files = *OpenRootedFiles(folder.path());
  std::unique_ptr<PoolFiles> Make() override {
    return MakeThreadedPoolFiles({.threads = 4, .buffer_bytes = kRoomBytes}, *files, BootClock());
  }
};

struct WorkerRoom final : Room {
  std::unique_ptr<PoolFiles> Make() override {
    WorkerPoolFilesOptions options;
    options.name = "g4";
    options.root = folder.path();
    options.program = POOL_WORKER_PATH;
    options.buffer_bytes = kRoomBytes;
    return *MakeWorkerPoolFiles(options, {&BootClock(), nullptr});
  }
};

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Room>()> make;
  friend void PrintTo(const Implementation& implementation, std::ostream* out) {
    *out << implementation.name;
  }
};

class PoolFilesContract : public testing::TestWithParam<Implementation> {
 protected:
  static PoolCall CallOf(PoolOp op, std::string path, uint64_t length = 0) {
    PoolCall call;
    call.op = op;
    call.path = std::move(path);
    call.length = length;
    call.deadline = BootClock().Now() + absl::Seconds(60);
    return call;
  }
  PoolCall With(PoolOp op, std::string path, const std::string& content) {
    PoolCall call = CallOf(op, std::move(path), content.size());
    call.buffer = files_->TakeBuffer(content.size());
    EXPECT_NE(call.buffer, nullptr);
    std::memcpy(call.buffer->memory().data(), content.data(), content.size());
    return call;
  }
  absl::Status Do(PoolCall call) { return files_->Call(std::move(call)).status; }
  std::string Text(const std::string& path, ReadHow how = ReadHow::kKept) {
    PoolCall call = CallOf(PoolOp::kRead, path, 65536);
    call.buffer = files_->TakeBuffer(65536);
    call.how = how;
    const std::shared_ptr<PoolBuffer> buffer = call.buffer;
    const PoolReply reply = files_->Call(std::move(call));
    return reply.status.ok() ? std::string(buffer->memory().data(), reply.bytes)
                             : reply.status.ToString();
  }

  std::unique_ptr<Room> room_ = GetParam().make();
  std::unique_ptr<PoolFiles> files_ = room_->Make();
};

INSTANTIATE_TEST_SUITE_P(
    All,
    PoolFilesContract,
    testing::Values(Implementation{"Threads", [] { return std::make_unique<ThreadedRoom>(); }},
                    Implementation{"Worker", [] { return std::make_unique<WorkerRoom>(); }}),
    [](const auto& instance) { return instance.param.name; });

TEST_P(PoolFilesContract, EveryCallOfRootedFilesCanBeMade) {
  EXPECT_TRUE(Do(CallOf(PoolOp::kMakeFolder, "f")).ok());
  EXPECT_TRUE(Do(CallOf(PoolOp::kMake, "f/a", 10)).ok());
  PoolCall write = With(PoolOp::kWrite, "f/a", "hello");
  write.offset = 3;
  EXPECT_TRUE(Do(std::move(write)).ok());
  EXPECT_TRUE(Do(CallOf(PoolOp::kSync, "f/a")).ok());
  EXPECT_EQ(Text("f/a"), std::string("\0\0\0hello\0\0", 10));
  EXPECT_TRUE(Do(With(PoolOp::kCreate, "f/b", "created")).ok());
  EXPECT_EQ(Text("f/b"), "created");
  EXPECT_TRUE(Do(With(PoolOp::kReplace, "f/b", "replaced")).ok());
  EXPECT_EQ(Text("f/b", ReadHow::kFresh), "replaced");
  const PoolReply listed = files_->Call(CallOf(PoolOp::kList, "f"));
  ASSERT_TRUE(listed.status.ok()) << listed.status;
  ASSERT_EQ(listed.entries.size(), 2U);
  EXPECT_EQ(listed.entries[0].name, "a");
  EXPECT_EQ(listed.entries[1].kind, EntryKind::kFile);
  const PoolReply space = files_->Call(CallOf(PoolOp::kSpace, ""));
  ASSERT_TRUE(space.status.ok()) << space.status;
  EXPECT_GT(space.space.total_bytes, 0U);
  EXPECT_TRUE(Do(CallOf(PoolOp::kCheckRoot, "")).ok());
  EXPECT_TRUE(Do(CallOf(PoolOp::kRemove, "f/a")).ok());
  EXPECT_TRUE(Do(CallOf(PoolOp::kRemove, "f/b")).ok());
  EXPECT_TRUE(Do(CallOf(PoolOp::kRemoveFolder, "f")).ok());
  EXPECT_TRUE(files_->Call(CallOf(PoolOp::kList, "")).entries.empty());
}

TEST_P(PoolFilesContract, OutcomesComeBackAsWhatTheyAre) {
  ASSERT_TRUE(Do(With(PoolOp::kCreate, "a", "x")).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Do(With(PoolOp::kCreate, "a", "y"))));
  EXPECT_TRUE(absl::IsNotFound(Do(CallOf(PoolOp::kSync, "b"))));
  EXPECT_TRUE(absl::IsInvalidArgument(Do(CallOf(PoolOp::kList, "a"))));
  ASSERT_TRUE(Do(CallOf(PoolOp::kMakeFolder, "f")).ok());
  ASSERT_TRUE(Do(CallOf(PoolOp::kMake, "f/c", 1)).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Do(CallOf(PoolOp::kRemoveFolder, "f"))));
  EXPECT_EQ(files_->figures().faults, 0U);
}

TEST_P(PoolFilesContract, CallsThatBreakARuleAreRefusedBeforeSubmitReturns) {
  const std::shared_ptr<PoolBuffer> small = files_->TakeBuffer(4096);
  std::vector<PoolCall> bad;
  bad.push_back(CallOf(PoolOp::kSync, "../a"));
  bad.push_back(CallOf(PoolOp::kSync, ""));
  bad.push_back(CallOf(static_cast<PoolOp>(0), "a"));
  bad.push_back(CallOf(static_cast<PoolOp>(kPoolOps + 1), "a"));
  bad.push_back(CallOf(PoolOp::kRead, "a", 1));  // no buffer
  bad.push_back(CallOf(PoolOp::kRead, "a", 4097));
  bad.back().buffer = small;
  bad.push_back(CallOf(PoolOp::kWrite, "a", ~uint64_t{0}));
  bad.back().buffer = small;
  bad.push_back(CallOf(PoolOp::kWrite, "a", 1));
  bad.back().buffer = small;
  bad.back().offset = ~uint64_t{0};
  bad.push_back(CallOf(PoolOp::kCreate, "a", kMaxSmallFileBytes + 1));
  bad.back().buffer = small;
  bad.push_back(CallOf(PoolOp::kSync, "a"));
  bad.back().priority = static_cast<Priority>(0);
  for (PoolCall& call : bad) {
    absl::Status status;
    const std::string what = absl::StrCat(static_cast<int>(call.op), " ", call.path);
    files_->Submit(std::move(call), [&status](PoolReply reply) { status = reply.status; });
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << what << ": " << status;
  }
}

TEST_P(PoolFilesContract, ManyCallsAtOnceAreAllAnsweredOnce) {
  constexpr int kCalls = 400;
  std::vector<std::atomic<int>> answers(kCalls);
  absl::BlockingCounter left(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    files_->Submit(CallOf(PoolOp::kMake, absl::StrCat("f", i), 1), [&, i](PoolReply reply) {
      EXPECT_TRUE(reply.status.ok()) << reply.status;
      ++answers[i];
      left.DecrementCount();
    });
  }
  left.Wait();
  EXPECT_TRUE(std::all_of(answers.begin(), answers.end(), [](const auto& n) { return n == 1; }));
  const PoolReply listed = files_->Call(CallOf(PoolOp::kList, ""));
  EXPECT_EQ(listed.entries.size(), static_cast<size_t>(kCalls));
  const PoolFilesFigures figures = files_->figures();
  EXPECT_EQ(figures.calls[static_cast<size_t>(PoolOp::kMake)], static_cast<uint64_t>(kCalls));
  EXPECT_EQ(figures.calls_in_flight, 0U);
  EXPECT_TRUE(figures.serving);
  EXPECT_EQ(figures.starts, 1U);
}

TEST_P(PoolFilesContract, ALongListingArrivesWhole) {
  constexpr int kFiles = 5000;
  for (int i = 0; i < kFiles; ++i) {
    std::ofstream(absl::StrCat(room_->folder.path(), "/", std::string(50, 'x'), "-", i));
  }
  const PoolReply listed = files_->Call(CallOf(PoolOp::kList, ""));
  ASSERT_TRUE(listed.status.ok()) << listed.status;
  EXPECT_EQ(listed.entries.size(), static_cast<size_t>(kFiles));
  EXPECT_TRUE(std::is_sorted(listed.entries.begin(), listed.entries.end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));
}

TEST_P(PoolFilesContract, BuffersAreAlignedBoundedAndComeBack) {
  EXPECT_EQ(files_->max_buffer_bytes(), kRoomBytes);
  EXPECT_EQ(files_->TakeBuffer(kRoomBytes + 1), nullptr);
  std::shared_ptr<PoolBuffer> all = files_->TakeBuffer(kRoomBytes);
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(files_->figures().buffer_bytes_used, kRoomBytes);
  EXPECT_EQ(files_->TakeBuffer(1), nullptr);
  all.reset();
  EXPECT_EQ(files_->figures().buffer_bytes_used, 0U);
  const std::shared_ptr<PoolBuffer> one = files_->TakeBuffer(1);
  const std::shared_ptr<PoolBuffer> other = files_->TakeBuffer(5000);
  ASSERT_NE(one, nullptr);
  ASSERT_NE(other, nullptr);
  for (const auto& buffer : {one, other}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->memory().data()) % 4096, 0U);
  }
  EXPECT_GE(other->memory().size(), 5000U);
  // The files go first.
  files_.reset();
  std::memset(other->memory().data(), 1, other->memory().size());
}

TEST_P(PoolFilesContract, ABufferIsGivenBackBeforeTheAnswerIsSeen) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(files_->figures().buffer_bytes_used, 0U);
    ASSERT_TRUE(Do(With(PoolOp::kReplace, "a", std::string(10000, 'x'))).ok());
  }
}

TEST_P(PoolFilesContract, ACallWhoseDeadlineHasPassedIsNotMade) {
  // The one before says that somebody serves.
  ASSERT_TRUE(Do(CallOf(PoolOp::kCheckRoot, "")).ok());
  PoolCall late = CallOf(PoolOp::kMake, "a", 1);
  late.deadline = BootClock().Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(Do(std::move(late))));
  EXPECT_TRUE(absl::IsNotFound(Do(CallOf(PoolOp::kSync, "a"))));
  EXPECT_EQ(files_->figures().deadlines, 1U);
}

TEST_P(PoolFilesContract, AfterAStopEveryCallIsCancelled) {
  constexpr int kCalls = 200;
  ASSERT_TRUE(Do(CallOf(PoolOp::kCheckRoot, "")).ok());
  absl::BlockingCounter left(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    files_->Submit(CallOf(PoolOp::kMake, absl::StrCat("f", i), 1), [&left](PoolReply reply) {
      EXPECT_TRUE(reply.status.ok() || absl::IsCancelled(reply.status)) << reply.status;
      left.DecrementCount();
    });
  }
  files_->Stop();
  left.Wait();
  EXPECT_TRUE(absl::IsCancelled(Do(CallOf(PoolOp::kCheckRoot, ""))));
  files_->Stop();
  EXPECT_TRUE(absl::IsCancelled(Do(CallOf(PoolOp::kCheckRoot, ""))));
}

TEST_P(PoolFilesContract, WhatIsNotAnsweredAtTheEndIsCancelled) {
  constexpr int kCalls = 200;
  std::atomic<int> ok{0};
  std::atomic<int> cancelled{0};
  for (int i = 0; i < kCalls; ++i) {
    files_->Submit(CallOf(PoolOp::kMake, absl::StrCat("f", i), 1),
                   [&](PoolReply reply) { ++(absl::IsCancelled(reply.status) ? cancelled : ok); });
  }
  files_.reset();
  EXPECT_EQ(ok + cancelled, kCalls);
}

}  // namespace
}  // namespace terrace
