// A pool's files over a worker, on a sick mount.
#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "daemon/worker/worker_child.h"
#include "daemon/worker/worker_pool_files.h"
#include "tests/doubles/eventually.h"
#include "tests/doubles/sick_mount/sick_mount.h"
#include "tiers/shared/pool_files.h"

namespace terrace {

using doubles::Eventually;
using doubles::SickMount;
using doubles::SickOp;

// An operation of the file system, and a call that needs it.
struct Trigger {
  std::string name;
  SickOp op = SickOp::kStat;
  PoolOp call = PoolOp::kCheckRoot;
  std::string path;
};

inline const Trigger kTriggers[] = {
    {"Open", SickOp::kOpen, PoolOp::kRead, "file"},
    {"Stat", SickOp::kStat, PoolOp::kCheckRoot, ""},
    {"Read", SickOp::kRead, PoolOp::kRead, "file"},
    {"Write", SickOp::kWrite, PoolOp::kWrite, "file"},
    {"Fsync", SickOp::kFsync, PoolOp::kSync, "file"},
    {"Close", SickOp::kClose, PoolOp::kRead, "file"},
    {"Readdir", SickOp::kReaddir, PoolOp::kList, ""},
    {"Unlink", SickOp::kUnlink, PoolOp::kRemove, "doomed"},
};

inline size_t OpenDescriptorsHere() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

class SickPool : public testing::Test {
 protected:
  static constexpr absl::Duration kDeadline = absl::Milliseconds(300);
  static constexpr uint64_t kBytes = 8192;

  void SetUp() override {
    absl::StatusOr<std::unique_ptr<SickMount>> mount = SickMount::Mount();
    if (!mount.ok()) {
      GTEST_SKIP() << mount.status().message();
    }
    mount_ = *std::move(mount);
    descriptors_before_ = OpenDescriptorsHere();
    files_ = *MakeWorkerPoolFiles(Options(), {&BootClock(), nullptr});
    for (const char* path : {"file", "doomed"}) {
      // Tried again where a machine is so busy that a worker takes too long to begin.
      ASSERT_TRUE(Eventually([this, path] {
        const absl::Status made = Call(PoolOp::kMake, path, absl::Seconds(60));
        return made.ok() || absl::IsAlreadyExists(made);
      }));
    }
  }
  void TearDown() override {
    if (mount_ != nullptr) {
      mount_->Heal();
    }
    files_.reset();
    EXPECT_TRUE(Eventually([] { return LeftWorkers() == 0; }));
  }

  [[nodiscard]] WorkerPoolFilesOptions Options() const {
    WorkerPoolFilesOptions options;
    options.name = "g4";
    options.root = mount_->path();
    options.program = POOL_WORKER_PATH;
    options.buffer_bytes = 1 << 20;
    options.start_deadline = start_deadline_;
    options.first_backoff = absl::Milliseconds(20);
    options.max_backoff = absl::Milliseconds(200);
    return options;
  }

  PoolCall CallOf(PoolOp op, const std::string& path, absl::Duration within) {
    PoolCall call;
    call.op = op;
    call.path = path;
    call.length = kBytes;
    call.how = ReadHow::kFresh;
    call.deadline = BootClock().Now() + within;
    if (op == PoolOp::kRead || op == PoolOp::kWrite || op == PoolOp::kCreate ||
        op == PoolOp::kReplace) {
      call.buffer = files_->TakeBuffer(kBytes);
      EXPECT_NE(call.buffer, nullptr);
    }
    return call;
  }
  absl::Status Call(PoolOp op, const std::string& path, absl::Duration within = kDeadline) {
    return files_->Call(CallOf(op, path, within)).status;
  }

  // A call whose answer is waited for elsewhere.
  struct Answer {
    absl::Mutex mutex;
    bool answered ABSL_GUARDED_BY(mutex) = false;
    absl::Status status ABSL_GUARDED_BY(mutex);
    bool Came() {
      absl::MutexLock lock(&mutex);
      return answered;
    }
    absl::Status Status() {
      absl::MutexLock lock(&mutex);
      return status;
    }
  };
  std::shared_ptr<Answer> Submit(PoolCall call) {
    auto answer = std::make_shared<Answer>();
    files_->Submit(std::move(call), [answer](PoolReply reply) {
      absl::MutexLock lock(&answer->mutex);
      answer->answered = true;
      answer->status = std::move(reply.status);
    });
    return answer;
  }

  bool Serves() {
    return Eventually([this] {
      return Call(PoolOp::kRead, "file", absl::Seconds(60)).ok() && files_->figures().serving;
    });
  }
  // That the end of the files waits for nobody: its promise is a second.
  void EndWithoutWaiting() {
    absl::Mutex mutex;
    bool ended = false;
    std::thread end([&] {
      files_.reset();
      absl::MutexLock lock(&mutex);
      ended = true;
    });
    EXPECT_TRUE(Eventually(
        [&] {
          absl::MutexLock lock(&mutex);
          return ended;
        },
        absl::Seconds(5)));
    mount_->Heal();  // else a failure would last for ever
    end.join();
  }

  absl::Duration start_deadline_ = absl::Seconds(10);
  std::unique_ptr<SickMount> mount_;
  std::unique_ptr<PoolFiles> files_;
  size_t descriptors_before_ = 0;
};

}  // namespace terrace
