#include "daemon/command_line.h"

#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>

#include "daemon/concat.h"
#include "daemon/config_secrets.h"
#include "daemon/quoted_text.h"

namespace terrace {
namespace {

constexpr char kFooter[] =
    "Without a file the daemon is embedded: 1 GiB of DRAM, folders DIR and DIR/run, metrics on any "
    "free loopback port.\n"
    "Environment: TERRACE_CONFIG names the file, TERRACE_RUNTIME the runtime folder; the command "
    "line goes before it.\n"
    "Signals: TERM and INT stop (a second one at once), HUP reads the file again.\n"
    "Exit status: 0; 1 it failed; 2 wrong usage; 78 the configuration is wrong.";

std::optional<std::string> Environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  return value;
}

CommandLine End(int exit_status, std::string text) {
  CommandLine command;
  command.action = CommandLine::Action::kEnd;
  command.exit_status = exit_status;
  command.text = std::move(text);
  return command;
}

CommandLine WrongUsage(std::string_view what) {
  return End(kExitUsage, Concat("terraced: ", what, "; see terraced --help\n"));
}

// terraced starts its workers itself, and says everything else over their sockets.
CommandLine WorkerOf(const std::string& role) {
  constexpr std::string_view kShared = "shared:";
  constexpr std::string_view kGpu = "gpu:";
  CommandLine command;
  if (role.starts_with(kShared) && role.size() > kShared.size()) {
    command.action = CommandLine::Action::kSharedWorker;
    command.shared_tier = role.substr(kShared.size());
    return command;
  }
  if (role.starts_with(kGpu) && role.size() > kGpu.size()) {
    command.action = CommandLine::Action::kGpuWorker;
    return command;
  }
  return WrongUsage("--worker takes shared:NAME or gpu:N");
}

void Print(std::FILE* stream, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream);
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv, const std::string& version) {
  CommandLine command;
  CLI::App app("Keeps the KV cache of LLM inference engines outside the GPU.", "terraced");
  app.footer(kFooter);
  bool check = false;
  bool print = false;
  bool show_version = false;
  std::string worker;
  app.add_option("--config", command.request.config_file, "Configuration file (TOML)")
      ->type_name("FILE");
  app.add_option("--data", command.request.data_dir, "Data folder")->type_name("DIR");
  app.add_option("--runtime", command.request.runtime_dir, "Folder of the sockets")
      ->type_name("DIR");
  app.add_option("--set", command.request.overrides,
                 "Override a setting, e.g. dram.capacity=4GiB; repeatable")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--check-config", check, "Check the configuration and exit");
  app.add_flag("--print-config", print,
               "Print every setting and where it came from, as TOML, and exit");
  app.add_flag("--json", command.json,
               "One JSON object on stdout (with --check-config, --print-config, --version)");
  app.add_flag("--version", show_version, "Print the version and exit");
  CLI::Option* worker_option =
      app.add_option("--worker", worker, "Run as a worker (terraced does it by itself)")
          ->type_name("ROLE")
          ->group("");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return End(kExitOk, app.help());
  } catch (const CLI::ParseError& error) {
    return WrongUsage(error.what());
  }
  if (worker_option->count() > 0) {
    return WorkerOf(worker);
  }
  if (show_version) {
    return End(kExitOk, command.json ? Concat("{\"version\":", QuotedText(version), "}\n")
                                     : Concat("terraced ", version, "\n"));
  }
  if (check && print) {
    return WrongUsage("--check-config and --print-config exclude each other");
  }
  if (command.json && !check && !print) {
    return WrongUsage("--json goes with --check-config, --print-config or --version");
  }
  if (check) {
    command.action = CommandLine::Action::kCheckConfig;
  }
  if (print) {
    command.action = CommandLine::Action::kPrintConfig;
  }
  command.request.environment_config = Environment("TERRACE_CONFIG");
  command.request.environment_runtime = Environment("TERRACE_RUNTIME");
  return command;
}

int AnswerConfigQuestion(const CommandLine& command) {
  const absl::StatusOr<LoadedConfig> loaded = LoadConfig(command.request);
  absl::StatusOr<std::vector<std::string>> unchecked = std::vector<std::string>();
  if (!loaded.ok()) {
    unchecked = loaded.status();
  } else if (command.action == CommandLine::Action::kCheckConfig) {
    unchecked = CheckSecrets(*loaded, CredentialsDir());
  }
  if (!unchecked.ok()) {
    const std::string error(unchecked.status().message());
    if (command.json) {
      Print(stdout, Concat("{\"valid\":false,\"error\":", QuotedText(error), "}\n"));
    }
    Print(stderr, Concat("terraced: ", error, "\n"));
    return kExitConfig;
  }
  if (command.action == CommandLine::Action::kPrintConfig) {
    Print(stdout, command.json ? PrintConfigJson(*loaded) + "\n" : PrintConfig(*loaded));
  } else if (command.json) {
    Print(stdout, Concat("{\"valid\":true,\"file\":", QuotedText(loaded->file), "}\n"));
  } else {
    const std::string subject = loaded->file.empty() ? "the embedded configuration" : loaded->file;
    Print(stdout, Concat(subject, ": the configuration is valid\n"));
    for (const std::string& tier : *unchecked) {
      Print(stdout, Concat("not checked: the key of tier ", tier,
                           ", a credential that is there only while the service runs\n"));
    }
  }
  return kExitOk;
}

}  // namespace terrace
