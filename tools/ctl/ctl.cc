#include "tools/ctl/ctl.h"

#include <array>
#include <variant>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

struct Verb {
  absl::string_view name;
  absl::StatusOr<Answer> (*run)(const Run&);
};
constexpr std::array<Verb, 23> kVerbs = {{
    {"status", RunStatus},
    {"top", RunTop},
    {"tiers", RunTiers},
    {"tenants", RunTenants},
    {"namespaces", RunNamespaces},
    {"explain", RunExplain},
    {"doctor", RunDoctor},
    {"probe", RunProbe},
    {"put", RunPut},
    {"get", RunGet},
    {"prefetch", RunPrefetch},
    {"delete", RunDelete},
    {"pin", RunPin},
    {"unpin", RunUnpin},
    {"evict", RunEvict},
    {"drain", RunDrain},
    {"verify", RunVerify},
    {"quota", RunQuota},
    {"reload", RunReload},
    {"scrub", RunScrub},
    {"events", RunEvents},
    {"pool", RunPool},
    {"segment", RunSegment},
}};

// "UNAVAILABLE", ...
std::string CodeName(absl::StatusCode code) {
  return absl::StatusCodeToString(code);
}

void Complain(CommandLine::Output output,
              absl::string_view code,
              absl::string_view message,
              int exit_code,
              Terminal& terminal) {
  if (output == CommandLine::Output::kJson) {
    const Json json = {
        {"error",
         {{"code", std::string(code)}, {"message", std::string(message)}, {"exit", exit_code}}}};
    terminal.out << DumpJson(json) << "\n" << std::flush;
  } else {
    terminal.err << "terracectl: " << message << "\n" << std::flush;
  }
}

int EndEarly(const EarlyEnd& end, Terminal& terminal) {
  if (end.exit_code != kExitOk) {
    Complain(end.output, absl::AsciiStrToUpper(end.topic), end.text, end.exit_code, terminal);
  } else if (end.output == CommandLine::Output::kJson) {
    Json json;
    json[end.topic] = end.topic == "version" ? std::string(Version()) : end.text;
    terminal.out << DumpJson(json) << "\n" << std::flush;
  } else {
    terminal.out << end.text << "\n" << std::flush;
  }
  return end.exit_code;
}

// A configuration that the daemon refuses to load is the operator's, not the daemon's, failure.
int ExitOf(const absl::Status& status, const CommandLine& line) {
  return line.verb == "reload" && absl::IsInvalidArgument(status) ? kExitConfiguration
                                                                  : kExitFailed;
}

int Show(const Answer& answer, const CommandLine& line, Terminal& terminal) {
  if (answer.text_to == Answer::Text::kShown) {
    terminal.out << std::flush;
  } else if (line.output == CommandLine::Output::kJson) {
    terminal.out << DumpJson(answer.json) << "\n" << std::flush;
  } else if (answer.text_to == Answer::Text::kError) {
    // Beside payload on standard output only bad news is worth a word.
    if (answer.exit_code != kExitOk) {
      terminal.err << answer.text << std::flush;
    }
  } else {
    terminal.out << answer.text << std::flush;
  }
  if (!terminal.out) {
    terminal.err << "terracectl: writing standard output failed\n" << std::flush;
    return kExitFailed;
  }
  return answer.exit_code;
}

}  // namespace

int RunCtl(absl::Span<const std::string> args,
           absl::string_view runtime_from_environment,
           Terminal& terminal) {
  const std::variant<CommandLine, EarlyEnd> parsed =
      ParseCommandLine(args, runtime_from_environment);
  if (const auto* end = std::get_if<EarlyEnd>(&parsed)) {
    return EndEarly(*end, terminal);
  }
  const auto& line = std::get<CommandLine>(parsed);
  if (line.output == CommandLine::Output::kJson) {
    terminal.style = Style(Style::Colour::kNever);
  }
  Connection daemon(line.runtime_dir, line.timeout, terminal);
  for (const Verb& verb : kVerbs) {
    if (verb.name != line.verb) {
      continue;
    }
    const absl::StatusOr<Answer> answer = verb.run({line, daemon, terminal});
    if (answer.ok()) {
      return Show(*answer, line, terminal);
    }
    const int exit_code = ExitOf(answer.status(), line);
    const std::string message =
        answer.status().code() == absl::StatusCode::kUnimplemented
            ? absl::StrCat(line.verb, ": not in this version: ", answer.status().message())
            : std::string(answer.status().message());
    Complain(line.output, CodeName(answer.status().code()), message, exit_code, terminal);
    return exit_code;
  }
  Complain(line.output, "INTERNAL", absl::StrCat("the verb ", line.verb, " is not wired"),
           kExitFailed, terminal);
  return kExitFailed;
}

}  // namespace terrace::ctl
