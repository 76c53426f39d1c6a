#include "tools/bench/progress.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

namespace terrace::bench {
namespace {

constexpr uint64_t kBarCells = 30;

volatile std::sig_atomic_t interrupted = 0;

void NoteInterrupt(int /*signal*/) {
  interrupted = 1;
}

}  // namespace

Progress::Progress(Show show)
    : shown_(show == Show::kOnTerminal && isatty(STDERR_FILENO) == 1), started_(Clock::now()) {}

Progress::~Progress() {
  Clear();
}

void Progress::Begin(const std::string& text, uint64_t total) {
  text_ = text;
  total_ = total;
  last_draw_ = {};
  Advance(0);
}

void Progress::Advance(uint64_t done) {
  if (!shown_) {
    return;
  }
  const Clock::time_point now = Clock::now();
  if (now - started_ < std::chrono::seconds(1) ||
      now - last_draw_ < std::chrono::milliseconds(100)) {
    return;
  }
  last_draw_ = now;
  drawn_ = true;
  const uint64_t cells = total_ == 0 ? 0 : std::min(done, total_) * kBarCells / total_;
  const std::string bar = std::string(cells, '#') + std::string(kBarCells - cells, '.');
  std::fprintf(stderr, "\r\033[K[%s] %s", bar.c_str(), text_.c_str());
  std::fflush(stderr);
}

void Progress::Clear() {
  if (drawn_) {
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
    drawn_ = false;
  }
}

void CatchInterrupts() {
  struct sigaction action {};
  action.sa_handler = NoteInterrupt;  // without SA_RESTART: waits end early
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool Interrupted() {
  return interrupted != 0;
}

}  // namespace terrace::bench
