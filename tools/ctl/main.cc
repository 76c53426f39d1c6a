#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tools/ctl/ctl.h"

int main(int argc, char** argv) {
  using terrace::ctl::Style;
  using terrace::ctl::Terminal;
  const auto kind = [](int fd) {
    return isatty(fd) == 1 ? Terminal::Kind::kTerminal : Terminal::Kind::kStream;
  };
  std::ios::sync_with_stdio(false);
  // A reader that goes away (head, less) shows as a failed write.
  (void)std::signal(SIGPIPE, SIG_IGN);
  Terminal terminal{std::cin,           std::cout,           std::cerr,
                    kind(STDIN_FILENO), kind(STDOUT_FILENO), kind(STDERR_FILENO)};
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (terminal.out_kind == Terminal::Kind::kTerminal &&
      (no_colour == nullptr || *no_colour == '\0') &&
      (term == nullptr || std::string(term) != "dumb")) {
    terminal.style = Style(Style::Colour::kAnsi);
  }
  const char* runtime = std::getenv("TERRACE_RUNTIME");
  const std::vector<std::string> args(argv + 1, argv + std::max(argc, 1));
  return terrace::ctl::RunCtl(args, runtime == nullptr ? "" : runtime, terminal);
}
