#include "daemon/wire/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"

namespace terrace {
namespace {

constexpr int kEventsPerTurn = 64;
constexpr int kTickMs = 50;
constexpr int kAcceptsPerTurn = 64;
// RFC 9113, section 3.4.
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

Descriptor OpenReserve() { return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

Carrier CarrierOf(bool session) { return session ? Carrier::kSession : Carrier::kGrpc; }

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Start(Options options) {
  Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!epoll.valid() || !wake.ok()) {
    return absl::ResourceExhaustedError("no descriptors left for the acceptor");
  }
  std::unique_ptr<Acceptor> acceptor(
      new Acceptor(std::move(options), std::move(epoll), *std::move(wake)));
  const bool watched =
      acceptor->Watch(acceptor->wake_.get(), 0, Source::kWake, EPOLLIN) &&
      acceptor->Watch(acceptor->options_.grpc.get(), 0, Source::kGrpc, EPOLLIN) &&
      acceptor->Watch(acceptor->options_.session.get(), 0, Source::kSession, EPOLLIN) &&
      acceptor->Watch(acceptor->options_.admin.get(), 0, Source::kAdmin, EPOLLIN);
  if (!watched || !acceptor->reserve_.valid()) {
    return absl::ResourceExhaustedError("no descriptors left for the acceptor");
  }
  acceptor->thread_ = std::thread([self = acceptor.get()] { self->Loop(); });
  pthread_setname_np(acceptor->thread_.native_handle(), "accept");
  return acceptor;
}

Acceptor::Acceptor(Options options, Descriptor epoll, EventDescriptor wake)
    : options_(std::move(options)),
      shared_(options_.shared),
      epoll_(std::move(epoll)),
      wake_(std::move(wake)),
      reserve_(OpenReserve()),
      ledger_({shared_->limits.connections_per_uid,
               shared_->limits.connections_total,
               shared_->limits.calls_in_flight_per_uid,
               shared_->limits.stream_bytes_per_uid,
               shared_->limits.stream_bytes_total}) {}

Acceptor::~Acceptor() {
  stopping_ = true;
  wake_.Notify();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Acceptor::BeginDrain() {
  draining_ = true;
  wake_.Notify();
}

bool Acceptor::Watch(int fd, uint64_t id, Source source, uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id << 3 | static_cast<uint64_t>(source);
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void Acceptor::Unwatch(int fd) const { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

const UnixListener& Acceptor::ListenerOf(Source source) const {
  switch (source) {
    case Source::kGrpc:
      return options_.grpc;
    case Source::kSession:
      return options_.session;
    default:
      return options_.admin;
  }
}

void Acceptor::Loop() {
  std::array<epoll_event, kEventsPerTurn> events;
  absl::Duration next_tick = BootClock().Now();
  while (!stopping_) {
    const int ready = epoll_wait(epoll_.get(), events.data(), kEventsPerTurn, kTickMs);
    turns_.fetch_add(1, std::memory_order_relaxed);
    for (int i = 0; i < ready; ++i) {
      OnEvent(events[static_cast<size_t>(i)].data.u64);
    }
    if (const absl::Duration now = BootClock().Now(); now >= next_tick) {
      next_tick = now + absl::Milliseconds(kTickMs);
      Tick();
    }
  }
}

void Acceptor::OnEvent(uint64_t key) {
  const auto source = static_cast<Source>(key & 7);
  switch (source) {
    case Source::kWake:
      wake_.Clear();
      if (draining_) {
        options_.grpc.Close();
        options_.session.Close();
      }
      return;
    case Source::kGreeting:
      OnGreeting(key >> 3);
      return;
    case Source::kServed:
      OnServed(key >> 3);
      return;
    default:
      AcceptAll(source);
  }
}

void Acceptor::AcceptAll(Source source) {
  const UnixListener& listener = ListenerOf(source);
  for (int i = 0; i < kAcceptsPerTurn && listener.valid(); ++i) {
    absl::StatusOr<Descriptor> accepted = listener.Accept();
    if (absl::IsResourceExhausted(accepted.status())) {
      AcceptAndClose(listener);
      shared_->observer.Connection(CarrierOf(source == Source::kSession), "refused_limit");
      continue;
    }
    if (!accepted.ok() || !accepted->valid()) {
      return;
    }
    Admit(source, *std::move(accepted));
  }
}

void Acceptor::AcceptAndClose(const UnixListener& listener) {
  reserve_ = Descriptor();
  const bool closed = listener.Accept().ok();  // what it returned is closed again
  reserve_ = OpenReserve();
  if (!closed) {
    // The whole machine is short of something: what waits stays readable, and must not be asked for without pause.
    absl::SleepFor(absl::Milliseconds(1));
  }
}

ConnectionPermit Acceptor::Identify(Source source,
                                    const Descriptor& socket,
                                    PeerCredentials* credentials,
                                    std::string* tenant) {
  const Carrier carrier = CarrierOf(source == Source::kSession);
  const absl::StatusOr<PeerCredentials> found = CredentialsOf(socket.get());
  bool known = found.ok();
  if (known && source == Source::kAdmin) {
    known = found->uid == 0 || found->uid == geteuid();
  } else if (known) {
    absl::StatusOr<std::string> alias = options_.tenant_of(*found);
    known = alias.ok();
    *tenant = known ? *std::move(alias) : "";
  }
  if (!known) {
    shared_->observer.Connection(carrier, "refused_identity");
    return {};
  }
  *credentials = *found;
  ConnectionPermit permit = ledger_.Admit(found->uid);
  if (!permit.valid()) {
    shared_->observer.Connection(carrier, "refused_limit");
  }
  return permit;
}

void Acceptor::Admit(Source source, Descriptor socket) {
  PeerCredentials credentials;
  std::string alias;
  ConnectionPermit permit = Identify(source, socket, &credentials, &alias);
  if (!permit.valid()) {
    return;
  }
  const Carrier carrier = CarrierOf(source == Source::kSession);
  TenantId tenant{0};
  if (source != Source::kAdmin) {
    const absl::StatusOr<TenantId> opened = shared_->store.OpenTenant(alias);
    if (!opened.ok()) {
      shared_->observer.Connection(carrier, "refused_limit");
      return;
    }
    tenant = *opened;
  }
  shared_->observer.Connection(carrier, "accepted");
  if (source == Source::kSession) {
    SessionThread* const thread = options_.threads[next_thread_++ % options_.threads.size()];
    thread->Adopt({std::move(socket), credentials, tenant, std::move(alias), std::move(permit)});
    return;
  }
  const uint64_t id = next_id_++;
  if (Watch(socket.get(), id, Source::kGreeting, EPOLLIN)) {
    greetings_[id] = {std::move(socket),
                      std::move(permit),
                      tenant,
                      source == Source::kAdmin,
                      shared_->clock.Now()};
  }
}

void Acceptor::OnGreeting(uint64_t id) {
  const auto found = greetings_.find(id);
  if (found == greetings_.end()) {
    return;
  }
  std::array<char, kPreface.size()> seen;
  const int fd = found->second.socket.get();
  const ssize_t got = recv(fd, seen.data(), seen.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  const bool speaks = got > 0 && kPreface.substr(0, static_cast<size_t>(got)) ==
                                     std::string_view(seen.data(), static_cast<size_t>(got));
  Greeting greeting = std::move(found->second);
  greetings_.erase(found);
  Unwatch(fd);
  if (speaks) {
    HandOver(std::move(greeting));
  } else {
    shared_->observer.Connection(Carrier::kGrpc, got > 0 ? "protocol_error" : "closed");
  }
}

void Acceptor::HandOver(Greeting greeting) {
  absl::StatusOr<std::shared_ptr<GrpcPeer>> peer =
      greeting.admin
          ? options_.servers->AddAdminConnection(std::move(greeting.socket),
                                                 std::move(greeting.permit))
          : options_.servers->AddConnection(
                greeting.tenant, std::move(greeting.socket), std::move(greeting.permit));
  if (!peer.ok()) {
    shared_->observer.Connection(Carrier::kGrpc, "closed");
    return;
  }
  const uint64_t id = next_id_++;
  // Nothing but the hang-up, which needs no asking for.
  if (Watch((*peer)->socket(), id, Source::kServed, 0)) {
    served_[id] = *std::move(peer);
  } else {
    (*peer)->HangUp();
    options_.servers->table().peers().Remove(**peer);
  }
}

void Acceptor::OnServed(uint64_t id) {
  const auto found = served_.find(id);
  if (found == served_.end()) {
    return;
  }
  const std::shared_ptr<GrpcPeer> peer = std::move(found->second);
  served_.erase(found);
  Unwatch(peer->socket());
  options_.servers->table().peers().Remove(*peer);
  shared_->observer.Connection(Carrier::kGrpc, "closed");
}

void Acceptor::Tick() {
  const absl::Duration now = shared_->clock.Now();
  std::vector<uint64_t> silent;
  for (const auto& [id, greeting] : greetings_) {
    if (now - greeting.accepted_at > shared_->limits.hello_timeout) {
      silent.push_back(id);
    }
  }
  for (const uint64_t id : silent) {
    const auto found = greetings_.find(id);
    Unwatch(found->second.socket.get());
    greetings_.erase(found);
    shared_->observer.Connection(Carrier::kGrpc, "closed");
  }
  options_.servers->table().Tick(now);
}

}  // namespace terrace
