#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <memory>

#include "absl/time/clock.h"
#include "terrace/v1/cache.grpc.pb.h"
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/e2e/daemon/one_block.h"
#include "tests/e2e/daemon/program.h"
#include "tests/e2e/daemon_lifecycle/daemon_run.h"

namespace terrace {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

mode_t ModeOf(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

Ran Ask(const std::vector<std::string>& arguments,
        const std::vector<std::string>& environment = {}) {
  std::vector<std::string> command = {TERRACED_PATH};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = {"TERRACE_CONFIG", "TERRACE_RUNTIME", "NOTIFY_SOCKET"};
  variables.insert(variables.end(), environment.begin(), environment.end());
  return RunProgram(command, "", variables);
}

TEST(Lifecycle, StartsServesAndStopsWithZero) {
  for (const int number : {SIGTERM, SIGINT}) {
    DaemonRun run;
    ASSERT_TRUE(run.StartSmall()) << run.err();
    EXPECT_TRUE(run.Logged("msg=\"ready\"")) << run.err();
    run.Signal(number);
    EXPECT_TRUE(run.Told("STOPPING=1"));
    EXPECT_EQ(run.End(), 0) << run.err();
    EXPECT_THAT(run.err(), HasSubstr("msg=\"stopped\""));
  }
}

TEST(Lifecycle, StartsAgainOnTheSameFoldersAfterStopAndAfterKill) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  run.Signal(SIGTERM);
  ASSERT_EQ(run.End(), 0) << run.err();
  ASSERT_TRUE(run.StartSmall()) << run.err();
  run.Signal(SIGKILL);
  ASSERT_EQ(run.End(), 128 + SIGKILL);
  EXPECT_TRUE(run.StartSmall()) << run.err();
}

TEST(Lifecycle, OpensItsFoldersAndSocketsToNobodyElse) {
  const mode_t before = umask(0);
  DaemonRun run;
  const bool started = run.StartSmall();
  umask(before);
  ASSERT_TRUE(started) << run.err();
  EXPECT_EQ(ModeOf(run.data()), 0700U);
  EXPECT_EQ(ModeOf(run.data() + "/terraced.lock"), 0600U);
  EXPECT_EQ(ModeOf(run.runtime()), 0750U);
  EXPECT_EQ(ModeOf(run.runtime() + "/terrace.sock"), 0660U);
  EXPECT_EQ(ModeOf(run.runtime() + "/session.sock"), 0660U);
  EXPECT_EQ(ModeOf(run.runtime() + "/admin.sock"), 0600U);
}

TEST(Lifecycle, DumpsNoCoreUnlessAskedTo) {
  const auto limit = [](const DaemonRun& run) {
    std::ifstream file("/proc/" + std::to_string(run.pid()) + "/limits");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("Max core file size")) {
        return line;
      }
    }
    return std::string("unknown");
  };
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  EXPECT_THAT(limit(run), testing::ContainsRegex("size +0 +0 "));
}

TEST(Lifecycle, ASecondDaemonOnTheSameDataFolderIsRefused) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  const Ran second = Ask(
      {"--data", run.data(), "--runtime", run.dir() + "/other", "--set", "dram.capacity=64MiB"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_EQ(second.err, "terraced: " + run.data() + ": is in use by another daemon (process " +
                            std::to_string(run.pid()) + ")\n");
  run.Signal(SIGTERM);
  EXPECT_EQ(run.End(), 0);
}

TEST(Lifecycle, ASecondDaemonOnTheSameRuntimeFolderIsRefused) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  const Ran second = Ask(
      {"--data", run.dir() + "/other", "--runtime", run.runtime(), "--set", "dram.capacity=64MiB"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_THAT(second.err,
              EndsWith("terraced: " + run.runtime() + ": another daemon serves there\n"));
  // The first one still has its sockets.
  EXPECT_NE(ModeOf(run.runtime() + "/session.sock"), 0U);
}

TEST(Lifecycle, AnArenaThatDoesNotFitIsRefusedBeforeItIsTouched) {
  const DaemonRun run;
  const Ran ran = Ask({"--data", run.data(), "--set", "dram.capacity=64TiB"});
  EXPECT_EQ(ran.exit_status, 1);
  EXPECT_THAT(ran.err, testing::MatchesRegex("terraced: dram.capacity of 64TiB does not fit: "
                                             "[^\n]* [0-9]+[KMGT]iB; lower dram.capacity\n"));
}

TEST(Lifecycle, AMetricsAddressThatIsTakenIsRefused) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  ASSERT_TRUE(run.Logged("metrics="));  // the log is written by a thread of its own
  const std::string log = run.err();
  const size_t at = log.find("metrics=") + 8;
  const std::string address = log.substr(at, log.find(' ', at) - at);
  ASSERT_THAT(address, StartsWith("127.0.0.1:"));
  const Ran second = Ask({"--data", run.dir() + "/other", "--set", "dram.capacity=64MiB", "--set",
                          "metrics.listen=" + address});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_THAT(second.err, StartsWith("terraced: metrics.listen: cannot listen on " + address));
}

TEST(Lifecycle, ReloadAppliesWhatCanChangeAndNamesTheRest) {
  DaemonRun run;
  const std::string rest = "[metrics]\nlisten = \"off\"\n[dram]\ncapacity = ";
  const std::string file = run.Write("t.toml", rest + "\"64MiB\"\n");
  run.Start({"--config", file, "--data", run.data(), "--runtime", run.runtime()});
  ASSERT_TRUE(run.Told("READY=1")) << run.err();

  static_cast<void>(
      run.Write("t.toml", rest + "\"128MiB\"\n[daemon]\nlog_level = \"debug\"\n"
                                 "[[tenant]]\nalias = \"a\"\nuids = [1]\nguaranteed = \"1MiB\"\n"
                                 "[[namespace]]\nmodel = \"*\"\npublish = \"never\"\n"));
  run.Signal(SIGHUP);
  EXPECT_TRUE(run.Told("RELOADING=1"));
  EXPECT_TRUE(run.Told("READY=1"));
  EXPECT_TRUE(run.Logged("msg=\"configuration reloaded\" changed=3 needs_restart=1")) << run.err();
  EXPECT_TRUE(run.Logged("setting=dram.capacity")) << run.err();

  static_cast<void>(run.Write("t.toml", "[dram]\ncapacity = \"lots\"\n"));
  run.Signal(SIGHUP);
  EXPECT_TRUE(
      run.Logged("msg=\"reload refused\" error=\"" + file + ":2: dram.capacity: must be a size"))
      << run.err();
  run.Signal(SIGTERM);
  EXPECT_EQ(run.End(), 0) << run.err();
}

TEST(Lifecycle, FeedsTheWatchdogWhileItLives) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall({}, {"WATCHDOG_USEC=500000"})) << run.err();
  for (int beat = 0; beat < 5; ++beat) {
    ASSERT_TRUE(run.Told("WATCHDOG=1")) << "beat " << beat;
  }
}

TEST(Lifecycle, DoesNotFeedAWatchdogThatNobodySet) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  run.Signal(SIGTERM);
  ASSERT_TRUE(run.Told("STOPPING=1"));
  ASSERT_EQ(run.End(), 0);
}

TEST(Lifecycle, ALogThatNobodyReadsHoldsNothingUp) {
  DaemonRun run;
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const Descriptor unread(ends[0]);
  Descriptor err(ends[1]);
  ASSERT_GE(fcntl(err.get(), F_SETPIPE_SZ, 4096), 4096);
  // The pipe is full before the daemon writes its first line.
  const std::string block(4096, 'x');
  ASSERT_EQ(write(err.get(), block.data(), block.size()), static_cast<ssize_t>(block.size()));
  run.Start({"--data", run.data(), "--set", "dram.capacity=64MiB"}, {}, err.get());
  err = Descriptor();
  ASSERT_TRUE(run.Told("READY=1"));
  for (int i = 0; i < 50; ++i) {
    run.Signal(SIGHUP);
    ASSERT_TRUE(run.Told("READY=1")) << i;
  }
  run.Signal(SIGTERM);
  EXPECT_EQ(run.End(), 0);
}

// A put that never ends, as a call in flight.
class EndlessPut {
 public:
  explicit EndlessPut(const DaemonRun& run) : stub_(CacheStub(run.runtime())) {
    const absl::StatusOr<v1::Part> part = OneBlockPart(*stub_, 4096);
    EXPECT_TRUE(part.ok()) << part.status();
    writer_ = stub_->PutStream(&context_, &reply_);
    v1::PutStreamRequest first;
    v1::PutRequest* put = first.mutable_request();
    *put->mutable_part() = part.ok() ? *part : v1::Part();
    put->add_payload_bytes(4096);
    EXPECT_TRUE(writer_->Write(first));
    v1::PutStreamRequest half;
    half.set_chunk(std::string(100, 'p'));
    EXPECT_TRUE(writer_->Write(half));
  }
  ~EndlessPut() {
    context_.TryCancel();
    static_cast<void>(writer_->Finish());
  }

 private:
  std::unique_ptr<v1::Cache::Stub> stub_;
  grpc::ClientContext context_;
  v1::PutReply reply_;
  std::unique_ptr<grpc::ClientWriter<v1::PutStreamRequest>> writer_;
};

TEST(Lifecycle, ACallThatNeverEndsDoesNotKeepItFromStopping) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  const EndlessPut put(run);
  run.Signal(SIGTERM);
  // Five times the promise of 5 s.
  EXPECT_EQ(run.End(absl::Seconds(25)), 0) << run.err();
}

TEST(Lifecycle, ASecondSignalEndsItAtOnce) {
  DaemonRun run;
  ASSERT_TRUE(run.StartSmall()) << run.err();
  const EndlessPut put(run);
  run.Signal(SIGTERM);
  ASSERT_TRUE(run.Told("STOPPING=1"));
  run.Signal(SIGTERM);
  EXPECT_EQ(run.End(), 1) << run.err();
  EXPECT_THAT(run.err(), Not(HasSubstr("msg=\"stopped\"")));
}

TEST(Questions, AWrongFileIsNamedWithItsLineAndEndsWith78) {
  const DaemonRun run;
  const std::string file = run.Write("t.toml", "[dram]\ncapacity = \"1GB\"\n");
  const std::string line =
      file +
      ":2: dram.capacity: must be a size such as \"64MiB\" (B, KiB, MiB, GiB, TiB), not '1GB'";
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--check-config"}, {"--print-config"}, {}}) {
    std::vector<std::string> all = {"--config", file};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Ran ran = Ask(all);
    EXPECT_EQ(ran.exit_status, 78);
    EXPECT_EQ(ran.err, "terraced: " + line + "\n");
    EXPECT_EQ(ran.out, "");
  }
}

TEST(Questions, AFileThatEveryoneMayWriteEndsWith78) {
  const DaemonRun run;
  const std::string file = run.Write("t.toml", "");
  ASSERT_EQ(chmod(file.c_str(), 0606), 0);
  const Ran ran = Ask({"--config", file});
  EXPECT_EQ(ran.exit_status, 78);
  EXPECT_EQ(ran.err, "terraced: " + file + ": the file is writable by everyone; chmod o-w it\n");
}

TEST(Questions, ACheckStartsNothing) {
  const DaemonRun run;
  const Ran ran = Ask({"--check-config", "--data", run.data()});
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_EQ(ran.out, "the embedded configuration: the configuration is valid\n");
  EXPECT_EQ(ModeOf(run.data()), 0U);
  EXPECT_EQ(Ask({"--check-config", "--json", "--data", run.data()}).out,
            "{\"valid\":true,\"file\":\"\"}\n");
}

TEST(Questions, AKeyThatCannotBeReadEndsWith78) {
  const DaemonRun run;
  const std::string tier = "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"" + run.dir() +
                           "/pool\"\ncapacity = \"10GiB\"\nauth = \"mac\"\n";
  const std::string missing =
      run.Write("t.toml", tier + "key_file = \"" + run.dir() + "/no.key\"\n");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--check-config", "--config", missing},
        std::vector<std::string>{"--config", missing}}) {
    const Ran ran = Ask(arguments);
    EXPECT_EQ(ran.exit_status, 78);
    EXPECT_EQ(ran.err, "terraced: " + missing + ":1: the key of tier g4: " + run.dir() +
                           "/no.key: cannot be opened: No such file or directory\n");
  }
  const std::string kept = run.Write("c.toml", tier + "key_credential = \"g4.key\"\n");
  const Ran ran = Ask({"--check-config", "--config", kept});
  EXPECT_EQ(ran.exit_status, 0);
  EXPECT_THAT(ran.out, HasSubstr("not checked: the key of tier g4"));
}

TEST(Questions, WhatIsPrintedIsAccepted) {
  const DaemonRun run;
  const Ran printed = Ask({"--print-config", "--data", run.data(), "--set", "dram.capacity=3GiB"});
  ASSERT_EQ(printed.exit_status, 0) << printed.err;
  EXPECT_THAT(printed.out, HasSubstr("capacity = \"3GiB\"  # --set\n"));
  const Ran again = Ask({"--print-config", "--config", run.Write("t.toml", printed.out)});
  ASSERT_EQ(again.exit_status, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("capacity = \"3GiB\"  # " + run.dir() + "/t.toml:"));
}

TEST(Questions, TheEnvironmentNamesFileAndRuntimeFolder) {
  const DaemonRun run;
  const std::string file = run.Write("t.toml", "[dram]\ncapacity = \"2GiB\"\n");
  const Ran ran = Ask({"--print-config"}, {"TERRACE_CONFIG=" + file, "TERRACE_RUNTIME=/r"});
  ASSERT_EQ(ran.exit_status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("capacity = \"2GiB\"  # " + file + ":2\n"));
  EXPECT_THAT(ran.out, HasSubstr("runtime_dir = \"/r\"  # TERRACE_RUNTIME\n"));
}

TEST(Questions, WrongUsageEndsWith2) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"--no-such-option"}, {"surplus"}, {"--json"}, {"--worker=gpu:0"}}) {
    const Ran ran = Ask(arguments);
    EXPECT_EQ(ran.exit_status, 2) << arguments.front();
    EXPECT_THAT(ran.err, StartsWith("terraced: "));
    EXPECT_EQ(ran.out, "");
  }
  // Only terraced itself starts one.
  const Ran worker = Ask({"--worker=shared:g4"});
  EXPECT_EQ(worker.exit_status, 2);
  EXPECT_EQ(worker.err, "terraced: a worker is started by terraced itself\n");
}

TEST(Questions, VersionAndHelpEndWithZero) {
  EXPECT_THAT(Ask({"--version"}).out, testing::MatchesRegex("terraced [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  const Ran help = Ask({"--help"});
  EXPECT_EQ(help.exit_status, 0);
  EXPECT_THAT(help.out, HasSubstr("--print-config"));
}

}  // namespace
}  // namespace terrace
