// The composition of the front: listeners, acceptor, I/O threads, gRPC servers; see daemon/front.h.
#include "daemon/front.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/wire/acceptor.h"
#include "daemon/wire/front_shared.h"
#include "daemon/wire/grpc_servers.h"
#include "daemon/wire/session_thread.h"
#include "daemon/wire/unix_listener.h"
#include "google/protobuf/stubs/logging.h"

namespace terrace {
namespace {

constexpr int kMaxIoThreads = 64;
constexpr mode_t kAdminMode = 0600;
constexpr uint32_t kBackPressureMs = 1000;

uint64_t RandomBootId() {
  uint64_t id = 0;
  while (id == 0) {
    FillRandom(absl::MakeSpan(reinterpret_cast<char*>(&id), sizeof(id)));
  }
  return id;
}

// Held for as long as the front lives, so that two daemons that start at once don't take each other's sockets away.
absl::StatusOr<Descriptor> LockFolder(const std::string& folder) {
  Descriptor lock(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid()) {
    return StatusFromErrno(errno, folder);
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK
               ? absl::AlreadyExistsError(absl::StrCat(folder, ": another daemon serves there"))
               : StatusFromErrno(errno, folder);
  }
  return lock;
}

class FrontOnSockets final : public Front {
 public:
  explicit FrontOnSockets(std::shared_ptr<FrontShared> shared) : shared_(std::move(shared)) {}
  FrontOnSockets(const FrontOnSockets&) = delete;
  FrontOnSockets& operator=(const FrontOnSockets&) = delete;
  ~FrontOnSockets() override { Stop(absl::ZeroDuration()); }

  absl::Status Open(FrontOptions options, AdminHooks hooks);

  [[nodiscard]] uint64_t boot_id() const override { return shared_->boot_id; }
  void SlabRetired(SessionId session, SlabId slab) override;
  bool Alive() override;
  void BeginDrain(absl::Duration grace) override;
  void Stop(absl::Duration grace) override;

 private:
  void TellDraining(bool draining);

  const std::shared_ptr<FrontShared> shared_;
  Descriptor folder_lock_;
  std::unique_ptr<GrpcServers> servers_;
  std::vector<std::unique_ptr<SessionThread>> threads_;
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<uint64_t> turns_seen_;
  bool stopped_ = false;
};

absl::Status FrontOnSockets::Open(FrontOptions options, AdminHooks hooks) {
  if (options.io_threads < 1 || options.io_threads > kMaxIoThreads) {
    return absl::InvalidArgumentError(absl::StrCat("io_threads: 1 to ", kMaxIoThreads));
  }
  absl::StatusOr<Descriptor> lock = LockFolder(options.runtime_dir);
  if (!lock.ok()) {
    return lock.status();
  }
  folder_lock_ = *std::move(lock);
  const auto listen = [&options](absl::string_view name, mode_t mode, gid_t gid) {
    return UnixListener::Listen({absl::StrCat(options.runtime_dir, "/", name), mode, gid});
  };
  absl::StatusOr<UnixListener> grpc = listen("terrace.sock", options.socket_mode, options.socket_gid);
  absl::StatusOr<UnixListener> session =
      listen("session.sock", options.socket_mode, options.socket_gid);
  absl::StatusOr<UnixListener> admin = listen("admin.sock", kAdminMode, static_cast<gid_t>(-1));
  for (const absl::StatusOr<UnixListener>* listener : {&grpc, &session, &admin}) {
    if (!listener->ok()) {
      return listener->status();
    }
  }
  shared_->version = hooks.version;
  absl::StatusOr<std::unique_ptr<GrpcServers>> servers = GrpcServers::Create(
      shared_, {std::move(hooks), [this](bool draining) { TellDraining(draining); }});
  if (!servers.ok()) {
    return servers.status();
  }
  servers_ = *std::move(servers);
  std::vector<SessionThread*> threads;
  for (int i = 0; i < options.io_threads; ++i) {
    absl::StatusOr<std::unique_ptr<SessionThread>> thread =
        SessionThread::Start(shared_, absl::StrCat("session-", i), options.io_poll);
    if (!thread.ok()) {
      return thread.status();
    }
    threads.push_back(thread->get());
    threads_.push_back(*std::move(thread));
  }
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Start({shared_,
                                                                        std::move(options.tenant_of),
                                                                        *std::move(grpc),
                                                                        *std::move(session),
                                                                        *std::move(admin),
                                                                        servers_.get(),
                                                                        std::move(threads)});
  if (!acceptor.ok()) {
    return acceptor.status();
  }
  acceptor_ = *std::move(acceptor);
  turns_seen_.resize(threads_.size() + 1);
  return absl::OkStatus();
}

void FrontOnSockets::SlabRetired(SessionId session, SlabId slab) {
  if (const std::shared_ptr<Session> found = shared_->directory.Find(session)) {
    v1::SlabRetiredNotice notice;
    notice.set_boot_id(shared_->boot_id);
    notice.set_slab_id(static_cast<uint32_t>(slab));
    found->Push(v1::METHOD_SLAB_RETIRED_NOTICE, notice);
  }
}

void FrontOnSockets::TellDraining(bool draining) {
  if (!draining) {
    return;
  }
  v1::BackPressureNotice notice;
  notice.set_boot_id(shared_->boot_id);
  notice.set_retry_after_ms(kBackPressureMs);
  for (const std::shared_ptr<Session>& session : shared_->directory.All()) {
    session->Push(v1::METHOD_BACK_PRESSURE_NOTICE, notice);
  }
}

bool FrontOnSockets::Alive() {
  if (stopped_) {
    return false;
  }
  bool alive = true;
  for (size_t i = 0; i <= threads_.size(); ++i) {
    const uint64_t turns = i < threads_.size() ? threads_[i]->turns() : acceptor_->turns();
    alive = alive && turns != turns_seen_[i];
    turns_seen_[i] = turns;
  }
  return alive;
}

void FrontOnSockets::BeginDrain(absl::Duration grace) {
  if (stopped_) {
    return;
  }
  acceptor_->BeginDrain();
  servers_->BeginDrain();
  v1::DrainNotice notice;
  notice.set_boot_id(shared_->boot_id);
  notice.set_grace_ms(static_cast<uint32_t>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(grace), 0, UINT32_MAX)));
  for (const std::shared_ptr<Session>& session : shared_->directory.All()) {
    session->Push(v1::METHOD_DRAIN_NOTICE, notice);
  }
}

void FrontOnSockets::Stop(absl::Duration grace) {
  if (stopped_) {
    return;
  }
  stopped_ = true;
  const absl::Duration until = BootClock().Now() + grace;
  while (shared_->calls_in_flight.load() != 0 && BootClock().Now() < until) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  acceptor_.reset();
  threads_.clear();
  if (servers_ != nullptr) {
    servers_->Stop();
  }
  shared_->gate.Shut();
  servers_.reset();
  folder_lock_ = Descriptor();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Front>> Front::Start(FrontOptions options,
                                                    BlockStore& store,
                                                    const Clock& clock,
                                                    CallObserver& observer,
                                                    AdminHooks hooks) {
  // Else every peer that sends bad UTF-8 writes a line to our log.
  google::protobuf::SetLogHandler(nullptr);
  auto front = std::make_unique<FrontOnSockets>(std::make_shared<FrontShared>(
      store, options.gpu, clock, observer, options.limits, RandomBootId()));
  if (absl::Status status = front->Open(std::move(options), std::move(hooks)); !status.ok()) {
    return status;
  }
  return front;
}

}  // namespace terrace
