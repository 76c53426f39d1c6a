// terracectl top: an ANSI screen that is drawn over itself, without ncurses. The terminal's state
// is put back on every way out, SIGINT and SIGTERM included.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <termios.h>

#include "tiers/os/descriptor.h"
#include "tools/ctl/top_screen.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

using Async = v1::Admin::StubInterface::async_interface;

absl::StatusOr<Look> TakeLook(Connection& daemon) {
  Look look;
  absl::StatusOr<v1::StatusReply> status =
      daemon.Admin(&Async::Status, v1::StatusRequest(), "reading status");
  if (!status.ok()) {
    return status.status();
  }
  look.status = *std::move(status);
  absl::StatusOr<v1::TiersReply> tiers =
      daemon.Admin(&Async::Tiers, v1::TiersRequest(), "reading tiers");
  if (!tiers.ok()) {
    return tiers.status();
  }
  look.tiers = *std::move(tiers);
  absl::StatusOr<v1::TenantsReply> tenants =
      daemon.Admin(&Async::Tenants, v1::TenantsRequest(), "reading tenants");
  if (!tenants.ok()) {
    return tenants.status();
  }
  look.tenants = *std::move(tenants);
  return look;
}

// The alternate screen, without cursor and with keys delivered one by one, for as long as this
// lives.
class FullScreen {
 public:
  explicit FullScreen(Terminal& terminal) : terminal_(terminal) {
    if (terminal_.in_kind == Terminal::Kind::kTerminal && tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      keys_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    terminal_.out << "\x1b[?1049h\x1b[?25l" << std::flush;
  }
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;
  ~FullScreen() {
    terminal_.out << "\x1b[?25h\x1b[?1049l" << std::flush;
    if (keys_) {
      (void)tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    }
  }

  // Each line clears what it leaves over of the earlier one, so nothing flickers.
  void Draw(const std::string& screen) {
    terminal_.out << "\x1b[H" << absl::StrReplaceAll(screen, {{"\n", "\x1b[K\r\n"}}) << "\x1b[J"
                  << std::flush;
  }
  [[nodiscard]] bool keys() const { return keys_; }

 private:
  Terminal& terminal_;
  termios before_{};
  bool keys_ = false;
};

ScreenSize SizeOfTerminal() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row < 2) {
    return {80, 24};
  }
  return {size.ws_col, static_cast<size_t>(size.ws_row - 1)};
}

// SIGINT and SIGTERM as a descriptor.
absl::StatusOr<Descriptor> QuitSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  (void)pthread_sigmask(SIG_BLOCK, &signals,
                        nullptr);  // before gRPC's threads start, which inherit it
  Descriptor fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return absl::InternalError("cannot listen for signals");
  }
  return fd;
}

// True: the operator wants to leave.
bool WaitForQuit(const Descriptor& signals, bool keys, absl::Time until) {
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(until - absl::Now());
    if (left_ms <= 0) {
      return false;
    }
    std::array<pollfd, 2> waits = {pollfd{signals.get(), POLLIN, 0},
                                   pollfd{keys ? STDIN_FILENO : -1, POLLIN, 0}};
    const int ready =
        poll(waits.data(), waits.size(), static_cast<int>(std::min<int64_t>(left_ms, 60'000)));
    if (ready > 0 && waits[0].revents != 0) {
      return true;
    }
    if (ready > 0 && waits[1].revents != 0) {
      char key = 0;
      if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') {
        return true;
      }
    }
  }
}

}  // namespace

absl::StatusOr<Answer> RunTop(const Run& run) {
  Answer answer;
  const TopOptions& top = run.line.top;
  if (top.repeat == TopOptions::Repeat::kOnce ||
      run.terminal.out_kind != Terminal::Kind::kTerminal) {
    absl::StatusOr<Look> look = TakeLook(run.daemon);
    if (!look.ok()) {
      return look.status();
    }
    answer.json = TopJson(*look);
    answer.text = TopScreen(nullptr, *look, absl::ZeroDuration(), run.terminal.style, {});
    return answer;
  }
  absl::StatusOr<Descriptor> signals = QuitSignals();
  if (!signals.ok()) {
    return signals.status();
  }
  absl::StatusOr<Look> look = TakeLook(run.daemon);
  if (!look.ok()) {
    return look.status();
  }
  FullScreen screen(run.terminal);
  std::optional<Look> before;
  absl::Time before_at;
  while (true) {
    const absl::Time at = absl::Now();
    if (look.ok()) {
      screen.Draw(TopScreen(before.has_value() ? &*before : nullptr, *look,
                            before.has_value() ? at - before_at : absl::ZeroDuration(),
                            run.terminal.style, SizeOfTerminal()));
      before = *std::move(look);
      before_at = at;
    } else {
      // A daemon that restarts is worth waiting for: the screen says so and goes on trying.
      screen.Draw(
          absl::StrCat(run.terminal.style.Paint(Tone::kBad, look.status().message()), "\n"));
      before.reset();
      run.daemon.Forget();
    }
    if (WaitForQuit(*signals, screen.keys(), at + top.interval)) {
      return answer;
    }
    look = TakeLook(run.daemon);
  }
}

}  // namespace terrace::ctl
