// The thread that accepts: it identifies each connection before a byte of it is parsed, holds the limits on connections,
// and hands sessions to the I/O threads and gRPC connections to the servers.
//
// A gRPC connection is handed over when it has begun to speak HTTP/2; one that stays silent for hello_timeout, or says
// anything else, is closed here, because gRPC's own handshake timeout does not cover connections that it did not accept.
// Handed over, its duplicate is watched for the hang-up that gives its place back.
//
// Out of descriptors, the reserve one is given up to accept and close, so that nobody waits and the loop never spins.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "daemon/front.h"
#include "daemon/wire/grpc_servers.h"
#include "daemon/wire/peer_budget.h"
#include "daemon/wire/session_thread.h"
#include "daemon/wire/unix_listener.h"
#include "tiers/os/descriptor.h"

namespace terrace {

class Acceptor {
 public:
  struct Options {
    std::shared_ptr<FrontShared> shared;
    TenantResolver tenant_of;
    UnixListener grpc;
    UnixListener session;
    UnixListener admin;
    GrpcServers* servers = nullptr;
    std::vector<SessionThread*> threads;  // from 1
  };
  static absl::StatusOr<std::unique_ptr<Acceptor>> Start(Options options);
  ~Acceptor();  // joins
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Any thread: from now on terrace.sock and session.sock refuse connections; admin.sock goes on.
  void BeginDrain();
  [[nodiscard]] uint64_t turns() const { return turns_.load(std::memory_order_relaxed); }

 private:
  enum class Source : uint8_t { kWake, kGrpc, kSession, kAdmin, kGreeting, kServed };
  // A gRPC connection that has not spoken yet.
  struct Greeting {
    Descriptor socket;
    ConnectionPermit permit;
    TenantId tenant{0};
    bool admin = false;
    absl::Duration accepted_at;
  };

  Acceptor(Options options, Descriptor epoll, EventDescriptor wake);

  void Loop();
  void OnEvent(uint64_t key);
  void AcceptAll(Source source);
  void Admit(Source source, Descriptor socket);
  // Invalid: refused, and counted as such.
  ConnectionPermit Identify(Source source,
                            const Descriptor& socket,
                            PeerCredentials* credentials,
                            std::string* tenant);
  void AcceptAndClose(const UnixListener& listener);
  void OnGreeting(uint64_t id);
  void HandOver(Greeting greeting);
  void OnServed(uint64_t id);
  void Tick();
  const UnixListener& ListenerOf(Source source) const;
  bool Watch(int fd, uint64_t id, Source source, uint32_t events) const;
  void Unwatch(int fd) const;

  Options options_;
  const std::shared_ptr<FrontShared> shared_;
  const Descriptor epoll_;
  const EventDescriptor wake_;
  Descriptor reserve_;
  PeerLedger ledger_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> turns_{0};

  // Confined to the thread.
  uint64_t next_id_ = 1;
  size_t next_thread_ = 0;
  absl::flat_hash_map<uint64_t, Greeting> greetings_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<GrpcPeer>> served_;

  std::thread thread_;
};

}  // namespace terrace
