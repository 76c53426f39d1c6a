#include "tools/bench/daemon_process.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tiers/os/descriptor.h"
#include "tools/bench/client_session.h"

namespace terrace::bench {
namespace {

// Touching memory takes a second a GiB, and half a minute on a machine that is short of huge pages
// and busy otherwise.
constexpr std::chrono::seconds kReadyLimit{120};
constexpr std::chrono::seconds kReadyLimitPerGib{60};
// sun_path takes 107 bytes; the daemon's longest name is "/terrace.sock" or "/session.sock".
constexpr size_t kMaxRuntimeBytes = 94;
constexpr size_t kLogShown = 1000;

absl::StatusOr<std::string> FindProgram(const BenchOptions& options) {
  const char* named = std::getenv("TERRACE_TERRACED");
  const std::string folder = ProgramFolder();
  for (const std::string& path : {options.terraced, std::string(named == nullptr ? "" : named)}) {
    if (!path.empty()) {
      return path;
    }
  }
  for (const char* relative : {"/../daemon/terraced", "/terraced"}) {
    if (access((folder + relative).c_str(), X_OK) == 0) {
      return folder + relative;
    }
  }
  return absl::NotFoundError("terraced: not found near " + folder + "; name it with --terraced");
}

// The process at the other end of the session socket.
absl::StatusOr<pid_t> PeerOf(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError("--runtime: at most 94 bytes");
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ucred peer{};
  socklen_t bytes = sizeof(peer);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
    return absl::FailedPreconditionError(socket_path + ": " + std::strerror(errno));
  }
  return peer.pid;
}

}  // namespace

std::string ProgramFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

absl::StatusOr<std::string> MakePrivateFolder(const std::string& parent) {
  const char* temp = std::getenv("TMPDIR");
  std::string name = !parent.empty() ? parent : temp != nullptr && *temp != '\0' ? temp : "/tmp";
  std::error_code error;
  std::filesystem::create_directories(name, error);
  name = std::filesystem::absolute(name, error).string() + "/terrace-bench.XXXXXX";
  if (mkdtemp(name.data()) == nullptr) {
    return absl::InternalError(name + ": " + std::strerror(errno));
  }
  return name;
}

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(const BenchOptions& options,
                                                                    uint64_t dram_bytes,
                                                                    uint64_t local_bytes) {
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon;
  absl::Status status;
  if (options.runtime_dir.empty()) {
    daemon = Prepare(options, dram_bytes, local_bytes,
                     {"local.max_block=" + std::to_string(kOwnLocalMaxBlock) + "B"});
    status = daemon.ok() ? (*daemon)->StartAgain() : daemon.status();
  } else if (options.policy != BenchOptions{}.policy) {
    return absl::InvalidArgumentError("--policy: only a daemon of the bench's own is told");
  } else {
    daemon = std::unique_ptr<DaemonProcess>(new DaemonProcess);
    (*daemon)->runtime_dir_ = options.runtime_dir;
    status = (*daemon)->Attach();
  }
  if (!status.ok()) {
    return status;
  }
  return daemon;
}

absl::StatusOr<DaemonProcess::Connected> DaemonProcess::StartConnected(const BenchOptions& options,
                                                                       uint64_t dram_bytes,
                                                                       uint64_t local_bytes) {
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = Start(options, dram_bytes, local_bytes);
  if (!daemon.ok()) {
    return daemon.status();
  }
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect((*daemon)->runtime_dir());
  if (!session.ok()) {
    return session.status();
  }
  return Connected{*std::move(daemon), *std::move(session)};
}

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Prepare(
    const BenchOptions& options,
    uint64_t dram_bytes,
    uint64_t local_bytes,
    const std::vector<std::string>& settings,
    const std::string& config_text) {
  absl::StatusOr<std::string> program = FindProgram(options);
  if (!program.ok()) {
    return program.status();
  }
  absl::StatusOr<std::string> folder = MakePrivateFolder(options.data_dir);
  if (!folder.ok()) {
    return folder.status();
  }
  std::unique_ptr<DaemonProcess> daemon(new DaemonProcess);
  daemon->folder_ = *folder;
  daemon->runtime_dir_ = *folder + "/run";
  if (daemon->runtime_dir_.size() > kMaxRuntimeBytes) {
    return absl::InvalidArgumentError("--data: " + *folder + ": at most " +
                                      std::to_string(kMaxRuntimeBytes - 25) + " bytes");
  }
  daemon->dram_bytes_ = options.dram_bytes != 0 ? options.dram_bytes : dram_bytes;
  const uint64_t local = options.local_bytes != 0 ? options.local_bytes : local_bytes;
  daemon->args_ = {*program, "--data", *folder + "/data", "--runtime", daemon->runtime_dir_};
  std::vector<std::string> all = {
      "dram.capacity=" + std::to_string(daemon->dram_bytes_) + "B",
      "dram.policy=" + options.policy,
      "daemon.copy_threads=" + std::to_string(options.copy_threads),
  };
  if (config_text.empty()) {
    all.push_back("local.capacity=" + std::to_string(local) + "B");
  } else {
    const std::string config = *folder + "/terraced.toml";
    std::ofstream(config) << "[local]\ncapacity = \"" << local << "B\"\n" << config_text;
    daemon->args_.insert(daemon->args_.end(), {"--config", config});
  }
  all.insert(all.end(), settings.begin(), settings.end());
  for (const std::string& setting : all) {
    daemon->args_.insert(daemon->args_.end(), {"--set", setting});
  }
  return daemon;
}

absl::Status DaemonProcess::Launch(const Handover& handover) {
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start(args_, folder_ + "/terraced.log", handover);
  if (!child.ok()) {
    return child.status();
  }
  child_ = *std::move(child);
  pid_ = child_.pid();
  return absl::OkStatus();
}

absl::Status DaemonProcess::StartAgain(const Handover& handover) {
  const absl::Status launched = Launch(handover);
  return launched.ok() ? WaitReady() : launched;
}

absl::Status DaemonProcess::WaitReady() {
  absl::StatusOr<std::unique_ptr<ClientSession>> session = ClientSession::Open(runtime_dir_);
  if (!session.ok()) {
    return session.status();
  }
  const auto limit = kReadyLimit + kReadyLimitPerGib * (dram_bytes_ >> 30U);
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!(*session)->WaitConnected(std::chrono::milliseconds(50))) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    if (!child_.Running()) {
      return absl::FailedPreconditionError("terraced ended while starting:\n" + LogEnd());
    }
    if (std::chrono::steady_clock::now() >= until) {
      return absl::DeadlineExceededError("terraced was not ready within " +
                                         std::to_string(limit.count()) + " s:\n" + LogEnd());
    }
  }
  return absl::OkStatus();
}

absl::Status DaemonProcess::Attach() {
  const absl::StatusOr<pid_t> peer = PeerOf(runtime_dir_ + "/session.sock");
  if (!peer.ok()) {
    return peer.status();
  }
  pid_ = *peer;
  return absl::OkStatus();
}

DaemonProcess::~DaemonProcess() {
  child_.Stop();
  if (!folder_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
}

std::string DaemonProcess::LogEnd() const {
  std::ifstream file(folder_ + "/terraced.log");
  std::stringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  return all.substr(all.size() - std::min(all.size(), kLogShown));
}

double DaemonProcess::CpuSeconds() const {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0) {
    return -1;
  }
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

uint64_t DaemonProcess::DeviceWrittenBytes() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/io");
  std::string word;
  while (file >> word) {
    if (word == "write_bytes:") {
      uint64_t bytes = 0;
      file >> bytes;
      return bytes;
    }
  }
  return 0;
}

uint64_t DaemonProcess::PrivateBytes() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
  std::string word;
  while (file >> word) {
    if (word == "RssAnon:") {
      uint64_t kib = 0;
      file >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace terrace::bench
