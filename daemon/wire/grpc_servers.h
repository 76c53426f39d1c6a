// The gRPC servers: one a tenant, made when its first connection comes, and one for Admin. None of them listens: each is
// given connections that have been accepted and identified already.
//
// Limits: as many tenants as the store lets be; each server's are in grpc_servers.cc. Start-up of a server and Stop block;
// AddConnection is for the acceptor's thread alone, everything else is thread-safe.
#pragma once

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "daemon/wire/admin_service.h"
#include "daemon/wire/grpc_call.h"
#include "daemon/wire/peer_budget.h"
#include "tiers/os/descriptor.h"

namespace terrace {

class GrpcServers {
 public:
  static absl::StatusOr<std::unique_ptr<GrpcServers>> Create(std::shared_ptr<FrontShared> shared,
                                                             AdminRoom room);
  GrpcServers(const GrpcServers&) = delete;
  GrpcServers& operator=(const GrpcServers&) = delete;
  // Stop must have run.
  ~GrpcServers();

  // Hands a connection to the tenant's server. Returns the connection's peer, whose socket() hangs up when gRPC has
  // closed its side, because gRPC shuts a socket down before it closes it.
  absl::StatusOr<std::shared_ptr<GrpcPeer>> AddConnection(TenantId tenant,
                                                          Descriptor socket,
                                                          ConnectionPermit permit);
  absl::StatusOr<std::shared_ptr<GrpcPeer>> AddAdminConnection(Descriptor socket,
                                                               ConnectionPermit permit);
  GrpcCallTable& table() { return table_; }
  // Health says NOT_SERVING.
  void BeginDrain();
  // Answers what is still open with UNAVAILABLE and returns when no handler runs any more.
  void Stop();

 private:
  struct Server {
    std::unique_ptr<grpc::Service> service;
    std::unique_ptr<grpc::Server> server;  // goes before its service
  };

  explicit GrpcServers(std::shared_ptr<FrontShared> shared);
  absl::StatusOr<Server> Start(std::unique_ptr<grpc::Service> service);
  absl::StatusOr<std::shared_ptr<GrpcPeer>> Hand(grpc::Server& server,
                                                 Descriptor socket,
                                                 ConnectionPermit permit);

  const std::shared_ptr<FrontShared> shared_;
  GrpcCallTable table_;
  grpc::ResourceQuota quota_;
  Server admin_;
  absl::flat_hash_map<TenantId, Server> tenants_;
};

}  // namespace terrace
