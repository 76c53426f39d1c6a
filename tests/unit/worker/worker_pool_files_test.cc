// Workers that die, that do not answer, that break the rules; and what a worker is allowed to have.
#include "daemon/worker/worker_pool_files.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "daemon/worker/bounce_room.h"
#include "daemon/worker/worker_channel.h"
#include "daemon/worker/worker_child.h"
#include "daemon/worker/worker_frame.h"
#include "tests/doubles/eventually.h"
#include "tests/doubles/private_folder.h"

namespace terrace {
namespace {

using doubles::Eventually;

class WorkerPoolFilesTest : public testing::Test {
 protected:
  WorkerPoolFilesTest() {
    options_.name = "g4";
    options_.root = private_.path() + "/pool";
    options_.program = POOL_WORKER_PATH;
    options_.buffer_bytes = 1 << 20;
    std::filesystem::create_directory(options_.root);
  }

  void Open() { files_ = *MakeWorkerPoolFiles(options_, {&BootClock(), nullptr}); }

  static PoolCall CallOf(PoolOp op,
                         std::string path = "",
                         absl::Duration within = absl::Seconds(60)) {
    PoolCall call;
    call.op = op;
    call.path = std::move(path);
    call.deadline = BootClock().Now() + within;
    return call;
  }
  absl::Status Do(PoolCall call) { return files_->Call(std::move(call)).status; }
  absl::Status Check(absl::Duration within = absl::Seconds(60)) {
    return Do(CallOf(PoolOp::kCheckRoot, "", within));
  }
  absl::Status Make(const std::string& path) { return Do(CallOf(PoolOp::kMake, path)); }
  bool Serves() {
    return Eventually([this] { return Check().ok(); });
  }
  pid_t pid() { return static_cast<pid_t>(files_->figures().pid); }
  // Until none of its threads makes another step: a signal takes its time to get around.
  static bool Stop(pid_t process) {
    return kill(process, SIGSTOP) == 0 && Eventually([process] {
             for (const auto& task :
                  std::filesystem::directory_iterator(absl::StrCat("/proc/", process, "/task"))) {
               std::string text;
               std::getline(std::ifstream(task.path() / "stat") >> std::ws, text);
               if (!absl::StrContains(text, ") T ")) {
                 return false;
               }
             }
             return true;
           });
  }
  static bool IsGone(pid_t process) {
    return Eventually([process] { return kill(process, 0) != 0; });
  }

  doubles::PrivateFolder private_;
  WorkerPoolFilesOptions options_;
  std::unique_ptr<PoolFiles> files_;
};

TEST_F(WorkerPoolFilesTest, OptionsThatCannotBeAreNamed) {
  const auto refused = [this](const char* field, const auto& spoil) {
    WorkerPoolFilesOptions options = options_;
    spoil(options);
    const absl::Status status = MakeWorkerPoolFiles(options, {&BootClock(), nullptr}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), field)) << status;
  };
  using Options = WorkerPoolFilesOptions;
  refused("name", [](Options& o) { o.name = ""; });
  refused("name", [](Options& o) { o.name = "a/b"; });
  refused("name", [](Options& o) { o.name = std::string(33, 'x'); });
  refused("root", [](Options& o) { o.root = "relative"; });
  refused("root", [](Options& o) { o.root = "/" + std::string(5000, 'x'); });
  refused("buffer_bytes", [](Options& o) { o.buffer_bytes = 4096; });
  refused("buffer_bytes", [](Options& o) { o.buffer_bytes = uint64_t{1} << 40; });
  refused("max_calls", [](Options& o) { o.max_calls = 0; });
  refused("max_calls", [](Options& o) { o.max_calls = 257; });
  refused("max_stuck", [](Options& o) { o.max_stuck = 0; });
  refused("faults_in_a_row", [](Options& o) { o.faults_in_a_row = 0; });
  refused("start_deadline", [](Options& o) { o.start_deadline = absl::ZeroDuration(); });
  refused("backoff", [](Options& o) { o.max_backoff = absl::Milliseconds(1); });
}

TEST_F(WorkerPoolFilesTest, ARootThatIsAbsentIsWaitedForAndNeverMade) {
  std::filesystem::remove(options_.root);
  Open();
  EXPECT_TRUE(absl::IsUnavailable(Check()));
  EXPECT_TRUE(Eventually([this] { return files_->figures().suspended; }));
  EXPECT_FALSE(files_->figures().serving);
  EXPECT_TRUE(absl::StrContains(files_->figures().last_fault, "No such file"))
      << files_->figures().last_fault;
  EXPECT_FALSE(std::filesystem::exists(options_.root));
  std::filesystem::create_directory(options_.root);
  EXPECT_TRUE(Serves());
  EXPECT_FALSE(files_->figures().suspended);
}

TEST_F(WorkerPoolFilesTest, AProgramThatIsNoWorkerIsTriedEverMoreRarely) {
  for (const char* program : {"/nonexistent/terraced", "/bin/true"}) {
    options_.program = program;
    Open();
    EXPECT_TRUE(absl::IsUnavailable(Check())) << program;
    EXPECT_TRUE(Eventually([this] { return files_->figures().suspended; })) << program;
    EXPECT_TRUE(absl::IsUnavailable(Check())) << program;
  }
}

TEST_F(WorkerPoolFilesTest, AWorkerThatBreaksTheRulesLosesItsPlace) {
  options_.name = "rude";
  Open();
  EXPECT_TRUE(absl::IsUnavailable(Check()));
  EXPECT_TRUE(absl::StrContains(files_->figures().last_fault, "rules"));
  EXPECT_TRUE(Eventually([this] { return files_->figures().suspended; }));
}

TEST_F(WorkerPoolFilesTest, AWorkerThatIsKilledIsReplacedAndBuffersOfItsTimeStayGood) {
  Open();
  ASSERT_TRUE(Make("a").ok());
  const std::shared_ptr<PoolBuffer> buffer = files_->TakeBuffer(5);
  std::memcpy(buffer->memory().data(), "hello", 5);
  for (int i = 0; i < 3; ++i) {
    const pid_t killed = pid();
    ASSERT_EQ(kill(killed, SIGKILL), 0);
    ASSERT_TRUE(IsGone(killed));
    ASSERT_TRUE(Serves());
    EXPECT_NE(pid(), killed);
  }
  EXPECT_GE(files_->figures().starts, 4U);
  EXPECT_EQ(files_->figures().abandoned, 0U);
  PoolCall write = CallOf(PoolOp::kWrite, "a");
  write.length = 5;
  write.buffer = buffer;
  ASSERT_TRUE(Do(std::move(write)).ok());
  std::memset(buffer->memory().data(), 0, 5);
  PoolCall read = CallOf(PoolOp::kRead, "a");
  read.length = 5;
  read.buffer = buffer;
  ASSERT_TRUE(Do(std::move(read)).ok());
  EXPECT_EQ(std::string(buffer->memory().data(), 5), "hello");
}

TEST_F(WorkerPoolFilesTest, WhatBecomesOfWorkersIsSaid) {
  absl::Mutex mutex;
  std::vector<std::string> events;
  const auto said = [&](const std::string& event) {
    absl::MutexLock lock(&mutex);
    return std::find(events.begin(), events.end(), event) != events.end();
  };
  files_ = *MakeWorkerPoolFiles(options_, {&BootClock(), [&](const std::string& event) {
                                             absl::MutexLock lock(&mutex);
                                             events.push_back(event);
                                           }});
  EXPECT_TRUE(Eventually([&] { return said("a worker serves"); }));
  ASSERT_EQ(kill(pid(), SIGKILL), 0);
  EXPECT_TRUE(Eventually([&] { return said("a worker lost its place: it has died"); }));
  files_.reset();
}

TEST_F(WorkerPoolFilesTest, AWorkerThatDoesNotAnswerLosesItsPlaceAndItsMemory) {
  Open();
  ASSERT_TRUE(Make("a").ok());
  const std::shared_ptr<PoolBuffer> before = files_->TakeBuffer(1 << 20);
  ASSERT_NE(before, nullptr);
  ASSERT_EQ(files_->TakeBuffer(1), nullptr);
  const pid_t stopped = pid();
  ASSERT_TRUE(Stop(stopped));
  absl::Status other;
  absl::Notification answered;
  files_->Submit(CallOf(PoolOp::kList), [&](PoolReply reply) {
    other = reply.status;
    answered.Notify();
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(Check(absl::Milliseconds(100))));
  answered.WaitForNotification();
  EXPECT_TRUE(absl::IsUnavailable(other)) << other;
  EXPECT_TRUE(IsGone(stopped));
  EXPECT_TRUE(Serves());
  const PoolFilesFigures figures = files_->figures();
  EXPECT_EQ(figures.abandoned, 1U);
  EXPECT_EQ(figures.deadlines, 1U);
  EXPECT_EQ(figures.stuck, 0U);
  // The memory is another's, and all of it is there.
  const std::shared_ptr<PoolBuffer> after = files_->TakeBuffer(1 << 20);
  ASSERT_NE(after, nullptr);
  EXPECT_NE(after->memory().data(), before->memory().data());
  PoolCall write = CallOf(PoolOp::kWrite, "a");
  write.length = 5;
  write.buffer = before;
  EXPECT_TRUE(absl::IsUnavailable(Do(std::move(write)))) << "there is no room to stage it";
}

TEST_F(WorkerPoolFilesTest, CallsThatWaitForAPlaceExpireWithoutCostToTheWorker) {
  options_.max_calls = 1;
  Open();
  ASSERT_TRUE(Check().ok());
  ASSERT_TRUE(Stop(pid()));
  absl::Notification first;
  absl::Notification second;
  absl::Status first_status;
  absl::Status second_status;
  files_->Submit(CallOf(PoolOp::kList), [&](PoolReply reply) {
    first_status = reply.status;
    first.Notify();
  });
  files_->Submit(CallOf(PoolOp::kList, "", absl::Milliseconds(50)), [&](PoolReply reply) {
    second_status = reply.status;
    second.Notify();
  });
  second.WaitForNotification();
  EXPECT_TRUE(absl::IsDeadlineExceeded(second_status));
  ASSERT_EQ(kill(pid(), SIGCONT), 0);
  first.WaitForNotification();
  EXPECT_TRUE(first_status.ok()) << first_status;
  EXPECT_EQ(files_->figures().abandoned, 0U);
}

TEST_F(WorkerPoolFilesTest, MoreCallsThanMayWaitAreRefused) {
  Open();
  ASSERT_TRUE(Check().ok());
  ASSERT_TRUE(Stop(pid()));
  int refused = 0;
  for (uint32_t i = 0; i < kMaxWaitingCalls + 10; ++i) {
    files_->Submit(CallOf(PoolOp::kList), [&refused](PoolReply reply) {
      refused += absl::StrContains(reply.status.message(), "too many") ? 1 : 0;
    });
  }
  EXPECT_EQ(files_->figures().calls_in_flight, uint64_t{kMaxWaitingCalls});
  files_.reset();
  EXPECT_EQ(refused, 10);
}

TEST_F(WorkerPoolFilesTest, ARootThatWasWrittenToIsNotExchangedForAnother) {
  Open();
  ASSERT_TRUE(Make("a").ok());
  std::filesystem::rename(options_.root, options_.root + "-away");
  EXPECT_TRUE(absl::IsUnavailable(Check()));
  std::filesystem::create_directory(options_.root);
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(files_->figures().last_fault, "another folder than the one");
  })) << files_->figures().last_fault;
  EXPECT_TRUE(absl::IsUnavailable(Make("b")));
  EXPECT_TRUE(std::filesystem::is_empty(options_.root));
  std::filesystem::remove(options_.root);
  std::filesystem::rename(options_.root + "-away", options_.root);
  EXPECT_TRUE(Serves());
  EXPECT_TRUE(Make("b").ok());
}

TEST_F(WorkerPoolFilesTest, ARootThatWasOnlyLookedAtMayBeExchanged) {
  Open();
  ASSERT_TRUE(Check().ok());
  std::filesystem::rename(options_.root, options_.root + "-away");
  std::filesystem::create_directory(options_.root);
  EXPECT_TRUE(absl::IsUnavailable(Check()));
  EXPECT_TRUE(Serves());
}

TEST_F(WorkerPoolFilesTest, AWorkerHoldsNothingOfTheCoresButItsSocketAndTheRoot) {
  Open();
  ASSERT_TRUE(Check().ok());
  std::vector<std::string> held;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid(), "/fd"))) {
    const std::string target = std::filesystem::read_symlink(entry.path());
    held.push_back(absl::StartsWith(target, "socket:") ? "socket" : target);
  }
  std::sort(held.begin(), held.end());
  EXPECT_EQ(held, (std::vector<std::string>{"/dev/null", "/dev/null", "/dev/null", options_.root,
                                            "socket"}));
  EXPECT_EQ(std::filesystem::read_symlink(absl::StrCat("/proc/", pid(), "/cwd")), "/");
}

TEST_F(WorkerPoolFilesTest, AWorkerOutlivesTheSignalsThatStopADaemonAndEndsWithTheFiles) {
  Open();
  ASSERT_TRUE(Check().ok());
  const pid_t worker = pid();
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    ASSERT_EQ(kill(worker, number), 0);
  }
  EXPECT_TRUE(Check().ok());
  EXPECT_EQ(pid(), worker);
  files_.reset();
  EXPECT_TRUE(IsGone(worker));
  EXPECT_EQ(LeftWorkers(), 0);
}

TEST_F(WorkerPoolFilesTest, AWorkerEndsWithACoreThatIsKilled) {
  int pipe_ends[2] = {-1, -1};
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t core = fork();
  if (core == 0) {
    Open();
    const pid_t worker = Check().ok() ? pid() : 0;
    [[maybe_unused]] const ssize_t written = write(pipe_ends[1], &worker, sizeof(worker));
    pause();
    _exit(0);
  }
  pid_t worker = 0;
  ASSERT_EQ(read(pipe_ends[0], &worker, sizeof(worker)), static_cast<ssize_t>(sizeof(worker)));
  ASSERT_GT(worker, 0);
  ASSERT_EQ(kill(core, SIGKILL), 0);
  ASSERT_EQ(waitpid(core, nullptr, 0), core);
  EXPECT_TRUE(Eventually([worker] {
    // It may be a zombie, of whoever inherits it.
    std::ifstream stat(absl::StrCat("/proc/", worker, "/stat"));
    std::string text;
    return !std::getline(stat, text) || absl::StrContains(text, ") Z ");
  }));
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

// A worker that is spoken to without the core.
class WorkerProcessTest : public WorkerPoolFilesTest {
 protected:
  void SetUp() override {
    auto ends = *WorkerChannel::MakePair();
    child_ = *WorkerChild::Start(POOL_WORKER_PATH, "shared:g4", std::move(ends.second));
    channel_.emplace(std::move(ends.first));
  }
  void Greet() {
    ASSERT_TRUE(channel_
                    ->Send(EncodeGreeting({options_.root, room_->bytes(), 2}), Waiting::kWait,
                           room_->descriptor())
                    .ok());
    const std::optional<WorkerReady> ready = DecodeReady(Receive());
    ASSERT_TRUE(ready.has_value());
    EXPECT_TRUE(ready->status.ok()) << ready->status;
    struct stat status {};
    ASSERT_EQ(stat(options_.root.c_str(), &status), 0);
    EXPECT_EQ(ready->root_inode, status.st_ino);
  }
  absl::Span<const char> Receive() {
    const absl::StatusOr<ReceivedPacket> packet =
        channel_->Receive(absl::MakeSpan(packet_), Waiting::kWait);
    return packet.ok() ? packet->bytes : absl::Span<const char>();
  }
  absl::Status Ask(const WorkerRequest& request) {
    EXPECT_TRUE(channel_->Send(EncodeRequest(request), Waiting::kWait).ok());
    const std::optional<WorkerReply> reply = DecodeReply(Receive());
    if (!reply.has_value()) {
      return absl::DataLossError("no reply");
    }
    EXPECT_EQ(reply->call, request.call);
    return reply->reply.status;
  }

  std::string packet_ = std::string(kMaxWorkerPacket, '\0');
  std::shared_ptr<BounceRoom> room_ = *BounceRoom::Make(8192);
  std::optional<WorkerChild> child_;
  std::optional<WorkerChannel> channel_;
};

TEST_F(WorkerProcessTest, RefusesWhatLiesBeyondTheMemoryOrBreaksARule) {
  Greet();
  std::ofstream(options_.root + "/a") << "x";
  const auto status = [this](uint64_t length, uint64_t at, const char* path = "a") {
    return Ask({9, PoolOp::kRead, ReadHow::kKept, path, 0, length, at});
  };
  EXPECT_TRUE(status(8192, 0).ok());
  EXPECT_TRUE(status(4096, 4096).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(status(8193, 0)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(4097, 4096)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(1, 8192)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(1, 8193)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(4096, ~uint64_t{0} - 4095)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(~uint64_t{0}, 4096)));
  EXPECT_TRUE(absl::IsInvalidArgument(status(1, 0, "../a")));
  EXPECT_TRUE(absl::IsInvalidArgument(status(1, 0, "")));
}

TEST_F(WorkerProcessTest, EndsAtTheFirstMessageThatIsNone) {
  Greet();
  ASSERT_TRUE(channel_->Send("nonsense", Waiting::kWait).ok());
  EXPECT_TRUE(Receive().empty());
  EXPECT_TRUE(child_->Gone(absl::Seconds(60)));
}

TEST_F(WorkerProcessTest, EndsWithoutAGreeting) {
  ASSERT_TRUE(channel_->Send("nonsense", Waiting::kWait).ok());
  EXPECT_TRUE(Receive().empty());
  EXPECT_TRUE(child_->Gone(absl::Seconds(60)));
}

TEST_F(WorkerProcessTest, EndsWhereTheGreetingHasNoMemoryOrLess) {
  ASSERT_TRUE(channel_
                  ->Send(EncodeGreeting({options_.root, room_->bytes() + 1, 2}), Waiting::kWait,
                         room_->descriptor())
                  .ok());
  EXPECT_TRUE(Receive().empty());
  EXPECT_TRUE(child_->Gone(absl::Seconds(60)));
  SetUp();
  ASSERT_TRUE(
      channel_->Send(EncodeGreeting({options_.root, room_->bytes(), 2}), Waiting::kWait).ok());
  EXPECT_TRUE(Receive().empty());
}

TEST_F(WorkerProcessTest, EndsWhenTheSocketIsClosed) {
  Greet();
  channel_.reset();
  EXPECT_TRUE(child_->Gone(absl::Seconds(60)));
}

TEST_F(WorkerProcessTest, SaysWhyTheRootCannotBeOpened) {
  options_.root += "-absent";
  ASSERT_TRUE(channel_
                  ->Send(EncodeGreeting({options_.root, room_->bytes(), 2}), Waiting::kWait,
                         room_->descriptor())
                  .ok());
  const std::optional<WorkerReady> ready = DecodeReady(Receive());
  ASSERT_TRUE(ready.has_value());
  EXPECT_TRUE(absl::IsNotFound(ready->status)) << ready->status;
  EXPECT_TRUE(Receive().empty());
}

}  // namespace
}  // namespace terrace
