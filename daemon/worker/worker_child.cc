#include "daemon/worker/worker_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include <spawn.h>

#include "daemon/worker/worker_setup.h"

namespace terrace {
namespace {

ABSL_CONST_INIT absl::Mutex left_mutex(absl::kConstInit);
// Bounded by the workers that hang: kMaxStuck of each pool that was closed.
std::vector<pid_t>& LeftPids() ABSL_EXCLUSIVE_LOCKS_REQUIRED(left_mutex) {
  static std::vector<pid_t> pids;
  return pids;
}

bool Reaped(pid_t pid) {
  const pid_t got = waitpid(pid, nullptr, WNOHANG);
  return got == pid || (got < 0 && errno == ECHILD);
}

void ReapLeftWorkers() {
  absl::MutexLock lock(&left_mutex);
  std::vector<pid_t>& pids = LeftPids();
  pids.erase(std::remove_if(pids.begin(), pids.end(), Reaped), pids.end());
}

// The arguments of posix_spawn, which have to be destroyed.
class SpawnRules {
 public:
  SpawnRules() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }
  SpawnRules(const SpawnRules&) = delete;
  SpawnRules& operator=(const SpawnRules&) = delete;
  SpawnRules(SpawnRules&&) = delete;
  SpawnRules& operator=(SpawnRules&&) = delete;
  ~SpawnRules() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }

  // No signal is blocked or ignored because the daemon does so.
  int Fill(int socket) {
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDWR, 0);
    error = error == 0 ? posix_spawn_file_actions_adddup2(&actions_, STDIN_FILENO, STDOUT_FILENO)
                       : error;
    // Also where it has that number already: then what is left to do is to keep it open.
    return error == 0 ? posix_spawn_file_actions_adddup2(&actions_, socket, kWorkerSocket) : error;
  }

  [[nodiscard]] const posix_spawn_file_actions_t* actions() const { return &actions_; }
  [[nodiscard]] const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

}  // namespace

absl::StatusOr<WorkerChild> WorkerChild::Start(const std::string& program,
                                               const std::string& role,
                                               Descriptor socket) {
  ReapLeftWorkers();
  SpawnRules rules;
  std::string own = "terraced";
  std::string option = absl::StrCat("--worker=", role);
  char* const arguments[] = {own.data(), option.data(), nullptr};
  pid_t pid = 0;
  int error = rules.Fill(socket.get());
  error = error == 0 ? posix_spawn(&pid, program.c_str(), rules.actions(), rules.attributes(),
                                   arguments, environ)
                     : error;
  if (error != 0) {
    return StatusFromErrno(error, absl::StrCat("start ", program));
  }
  absl::StatusOr<PidDescriptor> process = PidDescriptor::Open(pid);
  if (!process.ok()) {
    const WorkerChild ended(pid, PidDescriptor());
    return process.status();
  }
  return WorkerChild(pid, *std::move(process));
}

WorkerChild::WorkerChild(WorkerChild&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), process_(std::move(other.process_)) {}

WorkerChild& WorkerChild::operator=(WorkerChild&& other) noexcept {
  if (this != &other) {
    Leave();
    pid_ = std::exchange(other.pid_, 0);
    process_ = std::move(other.process_);
  }
  return *this;
}

WorkerChild::~WorkerChild() {
  Leave();
}

absl::StatusOr<Descriptor> WorkerChild::DuplicatePidfd() const {
  Descriptor copy(fcntl(process_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return StatusFromErrno(errno, "duplicate pidfd");
  }
  return copy;
}

void WorkerChild::Kill() const {
  if (pid_ != 0) {
    kill(pid_, SIGKILL);  // not reaped yet, so that the number is still its own
  }
}

bool WorkerChild::Gone(absl::Duration wait) {
  if (pid_ != 0 && wait > absl::ZeroDuration()) {
    pollfd over = {process_.get(), POLLIN, 0};
    poll(&over, 1, static_cast<int>(absl::ToInt64Milliseconds(wait)));
  }
  if (pid_ != 0 && Reaped(pid_)) {
    pid_ = 0;
  }
  return pid_ == 0;
}

void WorkerChild::Leave() {
  ReapLeftWorkers();
  Kill();
  if (!Gone()) {
    absl::MutexLock lock(&left_mutex);
    LeftPids().push_back(std::exchange(pid_, 0));
  }
}

int LeftWorkers() {
  ReapLeftWorkers();
  absl::MutexLock lock(&left_mutex);
  return static_cast<int>(LeftPids().size());
}

}  // namespace terrace
