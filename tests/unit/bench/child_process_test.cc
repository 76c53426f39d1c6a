#include "tools/bench/child_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/os/descriptor.h"

namespace terrace::bench {
namespace {

// Polls, bounded: processes come and go in their own time.
template <typename Condition>
bool Eventually(const Condition& condition) {
  for (int i = 0; i < 2'000; ++i) {
    if (condition()) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

bool Exists(pid_t pid) {
  return kill(pid, 0) == 0;
}

class ChildProcessTest : public testing::Test {
 protected:
  ChildProcessTest() {
    std::string name = (std::filesystem::temp_directory_path() / "terrace-child.XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~ChildProcessTest() override { std::filesystem::remove_all(folder_); }
  [[nodiscard]] std::string Log() const { return (folder_ / "log").string(); }
  [[nodiscard]] std::string LogText() const {
    std::ifstream file(Log());
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_;
};

TEST_F(ChildProcessTest, ItsOutputGoesToTheLog) {
  auto child = ChildProcess::Start({"sh", "-c", "echo out; echo err >&2"}, Log());
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_TRUE(Eventually([&] { return !child->Running(); }));
  EXPECT_EQ(LogText(), "out\nerr\n");
}

TEST_F(ChildProcessTest, AProgramThatIsNotThereIsNotFound) {
  const auto child = ChildProcess::Start({(folder_ / "absent").string()}, Log());
  EXPECT_EQ(child.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ChildProcessTest, ALogThatCannotBeWrittenIsAnError) {
  EXPECT_EQ(ChildProcess::Start({"true"}, (folder_ / "no" / "log").string()).status().code(),
            absl::StatusCode::kInternal);
}

TEST_F(ChildProcessTest, IsHandedDescriptorsInOrderAndAnEnvironment) {
  ASSERT_EQ(setenv("TERRACE_CHILD_TEST", "of the parent", 1), 0);
  std::vector<Descriptor> files;
  Handover handover;
  for (const char* const text : {"first", "second", "third"}) {
    std::ofstream(folder_ / text) << text;
    files.emplace_back(open((folder_ / text).c_str(), O_RDONLY | O_CLOEXEC));
    // Higher numbers first: one that is handed over must not overwrite one that is still to be.
    handover.descriptors.insert(handover.descriptors.begin(), files.back().get());
  }
  handover.environment = {"TERRACE_CHILD_TEST=handed over", "OTHER="};
  auto child =
      ChildProcess::Start({"sh", "-c",
                           "cat <&3; cat <&4; cat <&5; echo \" $TERRACE_CHILD_TEST$OTHER\"; "
                           "[ $LISTEN_PID = $$ ] && echo mine; [ -n \"$PATH\" ] && echo inherited"},
                          Log(), handover);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_TRUE(Eventually([&] { return !child->Running(); }));
  EXPECT_EQ(LogText(), "thirdsecondfirst handed over\nmine\ninherited\n");
  unsetenv("TERRACE_CHILD_TEST");
}

TEST_F(ChildProcessTest, NobodyElseHasAListenPid) {
  auto child = ChildProcess::Start({"sh", "-c", "echo ${LISTEN_PID-none}"}, Log());
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_TRUE(Eventually([&] { return !child->Running(); }));
  EXPECT_EQ(LogText(), "none\n");
}

TEST_F(ChildProcessTest, StopLetsItEndInItsOwnWay) {
  auto child = ChildProcess::Start(
      {"sh", "-c", "trap 'echo asked; exit' TERM; echo ready; while :; do sleep 0.01; done"},
      Log());
  ASSERT_TRUE(child.ok()) << child.status();
  ASSERT_TRUE(Eventually([&] { return LogText() == "ready\n"; }));
  child->Stop();
  EXPECT_EQ(LogText(), "ready\nasked\n");
  EXPECT_FALSE(child->Running());
  child->Stop();  // idempotent
}

TEST_F(ChildProcessTest, IsGoneWhenItsOwnerIs) {
  pid_t pid = 0;
  {
    auto child = ChildProcess::Start({"sleep", "1000"}, Log());
    ASSERT_TRUE(child.ok()) << child.status();
    pid = child->pid();
    EXPECT_TRUE(Exists(pid));
  }
  EXPECT_FALSE(Exists(pid));
}

TEST_F(ChildProcessTest, IsKilledWhenTheBenchIsKilled) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const pid_t bench = fork();
  if (bench == 0) {
    auto child = ChildProcess::Start({"sleep", "1000"}, Log());
    const pid_t pid = child.ok() ? child->pid() : 0;
    static_cast<void>(!write(writing.get(), &pid, sizeof(pid)));
    pause();
    _exit(0);
  }
  pid_t child = 0;
  ASSERT_EQ(read(reading.get(), &child, sizeof(child)), static_cast<ssize_t>(sizeof(child)));
  ASSERT_GT(child, 0);
  EXPECT_TRUE(Exists(child));
  kill(bench, SIGKILL);
  waitpid(bench, nullptr, 0);
  // It may stay a zombie until init takes it: dead is what counts.
  EXPECT_TRUE(Eventually([&] {
    std::ifstream file("/proc/" + std::to_string(child) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    return text.empty() || text.find(") Z") != std::string::npos;
  }));
}

}  // namespace
}  // namespace terrace::bench
