#include "tests/e2e/daemon/started_daemon.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <grpcpp/grpcpp.h>

#include "tests/e2e/daemon/program.h"

namespace terrace {
namespace {

// A sanitized build on a busy machine; a healthy daemon takes a fraction of a second.
constexpr absl::Duration kStartLimit = absl::Seconds(60);
constexpr absl::Duration kStopLimit = absl::Seconds(15);

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(8 << 20);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  return grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

absl::StatusOr<std::unique_ptr<StartedDaemon>> StartedDaemon::Start(const Options& options) {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/terrace-e2e-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::InternalError(absl::StrCat("mkdtemp: ", std::strerror(errno)));
  }
  std::unique_ptr<StartedDaemon> daemon(new StartedDaemon(pattern));
  std::ofstream config(daemon->config_path());
  config << "[dram]\ncapacity = \"" << options.dram << "\"\n[metrics]\nlisten = \"off\"\n"
         << options.more_config;
  config.close();
  if (absl::Status status = daemon->StartAgain(); !status.ok()) {
    return status;
  }
  return daemon;
}

StartedDaemon::~StartedDaemon() {
  Kill();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

absl::Status StartedDaemon::StartAgain() {
  const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  const Descriptor log(
      open((dir_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const absl::StatusOr<pid_t> pid =
      Spawn({TERRACED_PATH, "--config", config_path(), "--data", dir_ + "/data", "--runtime",
             runtime_dir()},
            {"NOTIFY_SOCKET", "WATCHDOG_USEC", "TERRACE_CONFIG", "TERRACE_RUNTIME"}, nothing.get(),
            nothing.get(), log.get());
  if (!pid.ok()) {
    return pid.status();
  }
  pid_ = *pid;
  const absl::Time until = absl::Now() + kStartLimit;
  while (absl::Now() < until) {
    if (Status().ok()) {
      return absl::OkStatus();
    }
    const int ended = WaitForChild(pid_, absl::Milliseconds(20));
    if (ended >= 0) {
      pid_ = -1;
      return absl::UnavailableError(absl::StrCat("terraced ended with ", ended, ":\n", Log()));
    }
  }
  return absl::DeadlineExceededError(absl::StrCat("terraced does not answer:\n", Log()));
}

std::string StartedDaemon::Log() const {
  std::ifstream in(dir_ + "/log");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void StartedDaemon::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    (void)WaitForChild(pid_, kStopLimit);
    pid_ = -1;
  }
}

int StartedDaemon::Stop() {
  if (pid_ <= 0) {
    return -1;
  }
  kill(pid_, SIGTERM);
  const int status = WaitForChild(pid_, kStopLimit);
  if (status >= 0) {
    pid_ = -1;
  }
  return status;
}

bool StartedDaemon::Running() const {
  siginfo_t ended{};
  return pid_ > 0 &&
         waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == 0;
}

std::shared_ptr<grpc::Channel> StartedDaemon::AdminChannel() const {
  return ChannelTo(runtime_dir() + "/admin.sock");
}
std::shared_ptr<grpc::Channel> StartedDaemon::CacheChannel() const {
  return ChannelTo(runtime_dir() + "/terrace.sock");
}

absl::StatusOr<v1::StatusReply> StartedDaemon::Status() const {
  const std::unique_ptr<v1::Admin::Stub> stub = v1::Admin::NewStub(AdminChannel());
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(5)));
  v1::StatusReply reply;
  const grpc::Status status = stub->Status(&context, v1::StatusRequest(), &reply);
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  return reply;
}

uint64_t StartedDaemon::OpenTierFiles() const {
  const std::string tiers = dir_ + "/data/";
  std::error_code error;
  uint64_t count = 0;
  for (std::filesystem::directory_iterator it(absl::StrCat("/proc/", pid_, "/fd"), error), end;
       !error && it != end; it.increment(error)) {
    std::error_code closed;  // meanwhile
    const std::string target = std::filesystem::read_symlink(it->path(), closed).string();
    count += target.rfind(tiers, 0) == 0 ? 1 : 0;
  }
  return count;
}

absl::StatusOr<v1::StatusReply> StartedDaemon::StatusBesideTiers() const {
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    const uint64_t before = OpenTierFiles();
    absl::StatusOr<v1::StatusReply> reply = Status();
    if (!reply.ok()) {
      return reply;
    }
    if (OpenTierFiles() == before) {
      reply->set_open_descriptors(reply->open_descriptors() - before);
      return reply;
    }
  }
  return absl::UnavailableError("tiers open and close files all the time");
}

}  // namespace terrace
