// Where a configuration comes from: files and their permissions, environment, command line.
#include <sys/stat.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/command_line.h"
#include "daemon/config.h"
#include "daemon/settings.h"
#include "tests/unit/daemon_ops/private_folder.h"

namespace terrace {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string OriginOf(const LoadedConfig& loaded, std::string_view name) {
  return loaded.origins[static_cast<size_t>(FindSetting(name))];
}

std::string MessageOf(const absl::StatusOr<LoadedConfig>& loaded) {
  return std::string(loaded.status().message());
}

class ConfigFile : public testing::Test {
 protected:
  PrivateFolder folder_;
};

TEST_F(ConfigFile, IsReadAndNamedInOrigins) {
  const std::string file = folder_.Write("t.toml", "\n[dram]\ncapacity = \"2GiB\"\n");
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.config_file = file});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->file, file);
  EXPECT_EQ(loaded->config.store.dram_bytes, uint64_t{2} << 30);
  EXPECT_EQ(OriginOf(*loaded, "dram.capacity"), file + ":3");
  EXPECT_EQ(loaded->config.runtime_dir, "/run/terrace");
  EXPECT_EQ(loaded->config.metrics_listen, "127.0.0.1:9464");
}

TEST_F(ConfigFile, ThatIsMissingIsSaidSo) {
  const std::string file = folder_.path() + "/none.toml";
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.config_file = file});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(MessageOf(loaded), file + ": cannot be opened: No such file or directory");
}

TEST_F(ConfigFile, ThatEveryoneMayWriteIsRefused) {
  const std::string file = folder_.Write("t.toml", "", 0666);
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.config_file = file});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(MessageOf(loaded), file + ": the file is writable by everyone; chmod o-w it");
}

TEST_F(ConfigFile, InAFolderThatEveryoneMayWriteIsRefused) {
  const std::string file = folder_.Write("open/t.toml", "");
  ASSERT_EQ(chmod((folder_.path() + "/open").c_str(), 0777), 0);
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.config_file = file});
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(MessageOf(loaded), file + ": its folder is writable by everyone; chmod o-w it");
}

TEST_F(ConfigFile, ThatIsAFolderIsRefused) {
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.config_file = folder_.path()});
  EXPECT_EQ(MessageOf(loaded), folder_.path() + ": is not a regular file");
}

TEST_F(ConfigFile, ThatIsAFifoIsRefusedWithoutWaitingForAWriter) {
  const std::string fifo = folder_.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(MessageOf(LoadConfig({.config_file = fifo})), fifo + ": is not a regular file");
}

TEST_F(ConfigFile, ThatIsTooLargeIsRefused) {
  const std::string file = folder_.Write("t.toml", std::string(kMaxConfigBytes + 1, '#'));
  EXPECT_EQ(MessageOf(LoadConfig({.config_file = file})), file + ": is larger than 1MiB");
  const std::string just_right = folder_.Write("u.toml", std::string(kMaxConfigBytes, '#'));
  EXPECT_TRUE(LoadConfig({.config_file = just_right}).ok());
}

TEST_F(ConfigFile, OfTheEnvironmentYieldsToTheCommandLine) {
  const std::string one = folder_.Write("one.toml", "[dram]\ncapacity = \"1GiB\"\n");
  const std::string two = folder_.Write("two.toml", "[dram]\ncapacity = \"2GiB\"\n");
  EXPECT_EQ(LoadConfig({.environment_config = one})->file, one);
  EXPECT_EQ(LoadConfig({.config_file = two, .environment_config = one})->file, two);
}

TEST_F(ConfigFile, WithAnEmptyNameIsRefused) {
  EXPECT_EQ(MessageOf(LoadConfig({.config_file = ""})), "--config: must not be empty");
  EXPECT_EQ(MessageOf(LoadConfig({.environment_config = ""})), "TERRACE_CONFIG: must not be empty");
}

TEST_F(ConfigFile, YieldsToEnvironmentAndTheEnvironmentToTheCommandLine) {
  const std::string file = folder_.Write("t.toml", "[daemon]\nruntime_dir = \"/from/file\"\n");
  ConfigRequest request = {.config_file = file};
  EXPECT_EQ(LoadConfig(request)->config.runtime_dir, "/from/file");
  request.environment_runtime = "/from/environment";
  EXPECT_EQ(LoadConfig(request)->config.runtime_dir, "/from/environment");
  EXPECT_EQ(OriginOf(*LoadConfig(request), "daemon.runtime_dir"), "TERRACE_RUNTIME");
  request.runtime_dir = "/from/command";
  EXPECT_EQ(LoadConfig(request)->config.runtime_dir, "/from/command");
  EXPECT_EQ(OriginOf(*LoadConfig(request), "daemon.runtime_dir"), "--runtime");
}

TEST(EmbeddedConfig, LiesBelowTheFolderThatIsNamed) {
  const absl::StatusOr<LoadedConfig> by_data = LoadConfig({.data_dir = "/d"});
  ASSERT_TRUE(by_data.ok()) << by_data.status();
  EXPECT_EQ(by_data->config.data_dir, "/d");
  EXPECT_EQ(by_data->config.runtime_dir, "/d/run");
  EXPECT_EQ(by_data->config.store.dram_bytes, uint64_t{1} << 30);
  EXPECT_EQ(by_data->config.metrics_listen, "127.0.0.1:0");

  const absl::StatusOr<LoadedConfig> by_runtime = LoadConfig({.environment_runtime = "/r"});
  ASSERT_TRUE(by_runtime.ok()) << by_runtime.status();
  EXPECT_EQ(by_runtime->config.runtime_dir, "/r");
  EXPECT_EQ(by_runtime->config.data_dir, "/r/data");

  const absl::StatusOr<LoadedConfig> by_both = LoadConfig({.data_dir = "/d", .runtime_dir = "/r"});
  ASSERT_TRUE(by_both.ok()) << by_both.status();
  EXPECT_EQ(by_both->config.data_dir, "/d");
  EXPECT_EQ(by_both->config.runtime_dir, "/r");
}

TEST(EmbeddedConfig, TakesFoldersRelativeToWhereItIsStarted) {
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig({.data_dir = "x/../y/"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.data_dir, (std::filesystem::current_path() / "y").string());
}

TEST(EmbeddedConfig, NamesTheOptionThatIsWrong) {
  EXPECT_EQ(MessageOf(LoadConfig({.data_dir = ""})), "--data: must not be empty");
  EXPECT_EQ(MessageOf(LoadConfig({.runtime_dir = "/" + std::string(94, 'r')})),
            "--runtime: daemon.runtime_dir: must be at most 94 bytes long, not 95");
}

TEST(Override, SetsAnySetting) {
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig(
      {.data_dir = "/d",
       .overrides = {"dram.capacity=4GiB", "dram.huge_pages=false", "sockets.mode=0600",
                     "dram.pin_share=0.5", "daemon.log_level=error", "metrics.listen=off",
                     "daemon.io_threads=4", "limits.get_cap=5s", "sockets.group=0"}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->config.store.dram_bytes, uint64_t{4} << 30);
  EXPECT_FALSE(loaded->config.huge_pages);
  EXPECT_EQ(loaded->config.socket_mode, 0600U);
  EXPECT_EQ(loaded->config.store.pin_share, 0.5);
  EXPECT_EQ(loaded->config.log_level, LogLevel::kError);
  EXPECT_EQ(loaded->config.metrics_listen, "");
  EXPECT_EQ(loaded->config.io_threads, 4U);
  EXPECT_EQ(loaded->config.front.get_cap, absl::Seconds(5));
  EXPECT_EQ(OriginOf(*loaded, "dram.capacity"), "--set");
}

TEST(Override, IsCheckedLikeTheFile) {
  const auto message = [](const std::string& text) {
    return MessageOf(LoadConfig({.overrides = {text}}));
  };
  EXPECT_EQ(message("dram.capacity"), "--set: must be SECTION.KEY=VALUE, not 'dram.capacity'");
  EXPECT_EQ(message("dram.capacty=1"), "--set: unknown setting 'dram.capacty'");
  EXPECT_EQ(message("dram.capacity=1"), "--set: dram.capacity: must be 64MiB to 64TiB, not 1B");
}

TEST(CommandLine, ReadsItsOptions) {
  const char* argv[] = {"terraced",     "--config", "/c",  "--data", "/d",
                        "--runtime=/r", "--set",    "a=b", "--set",  "c=d"};
  const CommandLine command = ParseCommandLine(10, argv, "1.2.3");
  EXPECT_EQ(command.action, CommandLine::Action::kRun);
  EXPECT_EQ(command.request.config_file, "/c");
  EXPECT_EQ(command.request.data_dir, "/d");
  EXPECT_EQ(command.request.runtime_dir, "/r");
  EXPECT_THAT(command.request.overrides, testing::ElementsAre("a=b", "c=d"));
}

CommandLine Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "terraced");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), "1.2.3");
}

TEST(CommandLine, SaysItsVersion) {
  EXPECT_EQ(Parse({"--version"}).text, "terraced 1.2.3\n");
  EXPECT_EQ(Parse({"--version", "--json"}).text, "{\"version\":\"1.2.3\"}\n");
  EXPECT_EQ(Parse({"--version"}).exit_status, kExitOk);
}

TEST(CommandLine, HelpNamesEveryOption) {
  const CommandLine command = Parse({"--help"});
  EXPECT_EQ(command.action, CommandLine::Action::kEnd);
  EXPECT_EQ(command.exit_status, kExitOk);
  for (const char* option : {"--config", "--data", "--runtime", "--set", "--check-config",
                             "--print-config", "--json", "--version"}) {
    EXPECT_THAT(command.text, HasSubstr(option));
  }
}

TEST(CommandLine, RefusesWrongUsageWithTwo) {
  for (const std::vector<const char*>& arguments :
       std::vector<std::vector<const char*>>{{"--frobnicate"},
                                             {"file.toml"},
                                             {"--config"},
                                             {"--json"},
                                             {"--check-config", "--print-config"}}) {
    const CommandLine command = Parse(arguments);
    EXPECT_EQ(command.action, CommandLine::Action::kEnd) << arguments.front();
    EXPECT_EQ(command.exit_status, kExitUsage) << arguments.front();
    EXPECT_THAT(command.text, StartsWith("terraced: "));
  }
}

TEST(CommandLine, HasWorkersOfSharedTiersAndGpus) {
  for (const char* role : {"--worker=gpu:", "--worker=shared:", "--worker=shared", "--worker=x"}) {
    const CommandLine command = Parse({role});
    EXPECT_EQ(command.exit_status, kExitUsage) << role;
    EXPECT_THAT(command.text, StartsWith("terraced: --worker takes shared:NAME")) << role;
  }
  const CommandLine command = Parse({"--worker=shared:g4"});
  EXPECT_EQ(command.action, CommandLine::Action::kSharedWorker);
  EXPECT_EQ(command.shared_tier, "g4");
  EXPECT_EQ(Parse({"--worker=gpu:0"}).action, CommandLine::Action::kGpuWorker);
}

}  // namespace
}  // namespace terrace
