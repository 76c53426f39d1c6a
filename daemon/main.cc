// terraced: command line, process set-up, and the loop that waits for signals.
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/command_line.h"
#include "daemon/concat.h"
#include "daemon/config.h"
#include "daemon/config_secrets.h"
#include "daemon/core.h"
#include "daemon/gpu/gpu_worker.h"
#include "daemon/log.h"
#include "daemon/process_facts.h"
#include "daemon/service_notify.h"
#include "daemon/settings.h"
#include "daemon/worker/worker_process.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

void PrintLine(std::string_view text) {
  const std::string line = Concat("terraced: ", text, "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// SIGTERM, SIGINT and SIGHUP as readable events; blocked for every thread that is started later.
class Signals {
 public:
  static absl::StatusOr<Signals> Block() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
      sigaddset(&set, number);
    }
    if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) {
      return absl::InternalError("cannot block signals");
    }
    Descriptor fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd.valid()) {
      return absl::InternalError("cannot make a signalfd");
    }
    return Signals(std::move(fd));
  }

  // The number of the next signal; 0: there is none.
  [[nodiscard]] int Next() const {
    signalfd_siginfo signal = {};
    if (read(fd_.get(), &signal, sizeof(signal)) != static_cast<ssize_t>(sizeof(signal))) {
      return 0;
    }
    return static_cast<int>(signal.ssi_signo);
  }
  [[nodiscard]] int get() const { return fd_.get(); }

 private:
  explicit Signals(Descriptor fd) : fd_(std::move(fd)) {}
  Descriptor fd_;
};

// Work on a thread of its own, whose end can be polled for.
class Phase {
 public:
  static absl::StatusOr<std::unique_ptr<Phase>> Begin(std::function<void()> work) {
    absl::StatusOr<EventDescriptor> finished = EventDescriptor::Create();
    if (!finished.ok()) {
      return finished.status();
    }
    return std::unique_ptr<Phase>(new Phase(std::move(*finished), std::move(work)));
  }
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;
  ~Phase() { thread_.join(); }

  [[nodiscard]] int finished() const { return finished_.get(); }

 private:
  Phase(EventDescriptor finished, std::function<void()> work)
      : finished_(std::move(finished)), thread_([this, work = std::move(work)] {
          work();
          finished_.Notify();
        }) {}

  EventDescriptor finished_;
  std::thread thread_;
};

// Starts and stops the core on threads of their own, so that signals are answered meanwhile.
// Confined to main.
class Daemon {
 public:
  Daemon(const CommandLine& command,
         LoadedConfig loaded,
         std::vector<KeptDescriptor> kept,
         Log& log,
         const ServiceNotify& notify,
         const Signals& signals)
      : command_(command),
        loaded_(std::move(loaded)),
        kept_(std::move(kept)),
        log_(log),
        notify_(notify),
        signals_(signals) {}

  // OK after an orderly stop.
  absl::Status Run() {
    if (absl::Status status = Start(); !status.ok()) {
      return status;
    }
    SayReady();
    WaitFor(-1, absl::InfiniteDuration());
    return Stop();
  }

 private:
  enum class Wake : unsigned char { kFinished, kStopSignal, kTimeout };

  absl::Status Start() {
    absl::Status started;
    {
      const auto phase = Phase::Begin([this, &started] {
        absl::StatusOr<std::unique_ptr<Core>> core = Core::Start(
            {command_.request, loaded_, TERRACE_VERSION, std::move(kept_)}, log_, notify_);
        started = core.status();
        if (core.ok()) {
          core_ = std::move(*core);
        }
      });
      if (!phase.ok()) {
        return phase.status();
      }
      // Nobody is served yet, so there is nothing to end in order.
      if (WaitFor((*phase)->finished(), absl::InfiniteDuration()) == Wake::kStopSignal) {
        LeaveNow(kExitOk);
      }
    }
    return started;
  }

  void SayReady() {
    const Config& config = loaded_.config;
    if ((config.socket_mode & 0006) != 0) {
      log_.Warning("every user of this machine may connect");
    }
    const std::string metrics = core_->metrics_address();
    log_.Info("ready", {{"version", TERRACE_VERSION},
                        {"runtime_dir", config.runtime_dir},
                        {"data_dir", config.data_dir},
                        {"dram", SizeText(config.store.dram_bytes)},
                        {"metrics", metrics.empty() ? "off" : metrics},
                        {"config", loaded_.file.empty() ? "embedded" : loaded_.file}});
    notify_.Ready(Concat("serving ", SizeText(config.store.dram_bytes), " of DRAM"));
  }

  absl::Status Stop() {
    log_.Info("stopping");
    notify_.Stopping("letting calls end");
    {
      const auto phase = Phase::Begin([this] {
        // A second is left for what comes after the last call: the arena goes back to the kernel.
        core_->Stop(kStopLimit - absl::Seconds(1));
        calls_ended_.store(true);
        core_.reset();
      });
      if (!phase.ok()) {
        return phase.status();
      }
      const Wake wake = WaitFor((*phase)->finished(), kStopLimit);
      // A large arena may take its time; the kernel takes it back as well.
      if (wake != Wake::kFinished) {
        LeaveNow(calls_ended_.load() ? kExitOk : kExitFailed);
      }
    }
    log_.Info("stopped");
    return absl::OkStatus();
  }

  // Until `finished` is readable (-1: never), a signal says to stop, or the time is up. Answers
  // SIGHUP meanwhile.
  Wake WaitFor(int finished, absl::Duration limit) {
    const absl::Duration deadline = BootClock().Now() + limit;
    while (true) {
      const absl::Duration left = deadline - BootClock().Now();
      if (left <= absl::ZeroDuration()) {
        return Wake::kTimeout;
      }
      pollfd fds[2] = {{signals_.get(), POLLIN, 0}, {finished, POLLIN, 0}};
      poll(fds, 2,
           static_cast<int>(absl::ToInt64Milliseconds(std::min(left, absl::Minutes(1)))) + 1);
      for (int number = signals_.Next(); number != 0; number = signals_.Next()) {
        if (number != SIGHUP) {
          return Wake::kStopSignal;
        }
        // While the core starts or stops a reload would change nothing that anybody sees.
        if (finished < 0) {
          Reload();
        }
      }
      if ((fds[1].revents & POLLIN) != 0) {
        return Wake::kFinished;
      }
    }
  }

  void Reload() {
    notify_.Reloading();
    const absl::StatusOr<AdminHooks::ReloadResult> result = core_->Reload();
    if (result.ok()) {
      for (const std::string& name : result->needs_restart) {
        log_.Warning("a setting changes at the next start only", {{"setting", name}});
      }
    }
    notify_.Ready(result.ok() ? "serving" : "serving; the last reload was refused");
  }

  // Whatever the phase's thread is doing, only the end of the process takes it along.
  [[noreturn]] static void LeaveNow(int status) { _exit(status); }

  const CommandLine& command_;
  const LoadedConfig loaded_;
  std::vector<KeptDescriptor> kept_;  // until the core starts
  Log& log_;
  const ServiceNotify& notify_;
  const Signals& signals_;
  std::unique_ptr<Core> core_;
  std::atomic<bool> calls_ended_{false};
};

int RunDaemon(const CommandLine& command) {
  std::vector<KeptDescriptor> kept = ServiceNotify::TakeKept();
  absl::StatusOr<LoadedConfig> loaded = LoadConfig(command.request);
  if (!loaded.ok()) {
    PrintLine(std::string(loaded.status().message()));
    return kExitConfig;
  }
  if (const auto secrets = CheckSecrets(*loaded, CredentialsDir()); !secrets.ok()) {
    PrintLine(std::string(secrets.status().message()));
    return kExitConfig;
  }
  SetUpProcess({.core_dumps = loaded->config.core_dumps});
  const absl::StatusOr<Signals> signals = Signals::Block();
  absl::Status result = signals.status();
  if (result.ok()) {
    const ServiceNotify notify;
    const absl::StatusOr<std::unique_ptr<Log>> log = MakeLog(
        {.level = loaded->config.log_level, .format = loaded->config.log_format}, BootClock());
    result = log.status();
    if (result.ok()) {
      result = Daemon(command, *std::move(loaded), std::move(kept), **log, notify, *signals).Run();
    }
  }
  if (result.ok()) {
    return kExitOk;
  }
  PrintLine(std::string(result.message()));
  return kExitFailed;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  const terrace::CommandLine command = terrace::ParseCommandLine(argc, argv, TERRACE_VERSION);
  switch (command.action) {
    case terrace::CommandLine::Action::kEnd:
      std::fwrite(command.text.data(), 1, command.text.size(),
                  command.exit_status == terrace::kExitOk ? stdout : stderr);
      return command.exit_status;
    case terrace::CommandLine::Action::kCheckConfig:
    case terrace::CommandLine::Action::kPrintConfig:
      return terrace::AnswerConfigQuestion(command);
    case terrace::CommandLine::Action::kSharedWorker:
      return terrace::RunSharedWorker(command.shared_tier);
    case terrace::CommandLine::Action::kGpuWorker:
      return terrace::RunGpuWorker();
    case terrace::CommandLine::Action::kRun:
      return terrace::RunDaemon(command);
  }
}
