// The command line of terraced; hides CLI11.
#pragma once

#include <string>

#include "daemon/config.h"

namespace terrace {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitConfig = 78;

struct CommandLine {
  enum class Action : unsigned char {
    kRun,
    kCheckConfig,
    kPrintConfig,
    kSharedWorker,
    kGpuWorker,
    kEnd
  };
  Action action = Action::kRun;
  std::string shared_tier;  // kSharedWorker: the tier that it works for
  bool json = false;
  ConfigRequest request;  // with TERRACE_CONFIG and TERRACE_RUNTIME of the environment
  // kEnd: what to print, where, and the exit status.
  std::string text;
  int exit_status = kExitOk;  // kExitUsage prints to stderr, else stdout
};

CommandLine ParseCommandLine(int argc, const char* const* argv, const std::string& version);

// --check-config and --print-config: prints to stdout, errors to stderr, and returns the exit
// status.
int AnswerConfigQuestion(const CommandLine& command);

}  // namespace terrace
