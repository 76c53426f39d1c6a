#include "daemon/wire/grpc_servers.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <utility>

#include "daemon/wire/cache_service.h"

namespace terrace {
namespace {

constexpr int kMaxMetadataBytes = 8 << 10;
constexpr int kMaxConcurrentStreams = 64;  // a connection
constexpr int kKeepaliveMs = 10'000;
constexpr int kKeepaliveTimeoutMs = 3'000;
constexpr int kMinPingIntervalMs = 5'000;
constexpr int kMaxPingStrikes = 2;
constexpr int kIdleMs = 300'000;
constexpr int kMaxAgeMs = 12 * 3'600'000;
constexpr int kMaxAgeGraceMs = 30'000;
constexpr size_t kQuotaBytes = size_t{256} << 20;  // of all servers together
constexpr int kQuotaThreads = 64;

void SwitchOnPlugins() {
  // For the life of the process: where much has been written, the library's own end waits up to ten seconds for a poller
  // of its own, and a daemon that stops has five.
  grpc_init();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
}

void SetLimits(grpc::ServerBuilder& builder, uint32_t message_bytes) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(message_bytes));
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  const std::pair<const char*, int> arguments[] = {
      {GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams},
      {GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs},
      // Without this a peer that acknowledges nothing stays connected for ever.
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs},
      {GRPC_ARG_HTTP2_MAX_PING_STRIKES, kMaxPingStrikes},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleMs},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, kMaxAgeMs},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kMaxAgeGraceMs},
  };
  for (const auto& [name, value] : arguments) {
    builder.AddChannelArgument(name, value);
  }
  // Of these threads only reflection makes use: all verbs are callbacks.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServers>> GrpcServers::Create(std::shared_ptr<FrontShared> shared,
                                                                 AdminRoom room) {
  // Plugins belong to the process, and every server made from now on has them.
  static const bool kSwitchedOn = (SwitchOnPlugins(), true);
  static_cast<void>(kSwitchedOn);
  std::unique_ptr<GrpcServers> servers(new GrpcServers(std::move(shared)));
  absl::StatusOr<Server> admin = servers->Start(MakeAdminService(servers->table_, std::move(room)));
  if (!admin.ok()) {
    return admin.status();
  }
  servers->admin_ = *std::move(admin);
  return servers;
}

GrpcServers::GrpcServers(std::shared_ptr<FrontShared> shared)
    : shared_(std::move(shared)), table_(shared_), quota_("terrace") {
  quota_.Resize(kQuotaBytes);
  quota_.SetMaxThreads(kQuotaThreads);
}

GrpcServers::~GrpcServers() = default;

absl::StatusOr<GrpcServers::Server> GrpcServers::Start(std::unique_ptr<grpc::Service> service) {
  grpc::ServerBuilder builder;
  SetLimits(builder, shared_->limits.message_bytes);
  builder.SetResourceQuota(quota_);
  builder.RegisterService(service.get());
  Server made;
  made.service = std::move(service);
  made.server = builder.BuildAndStart();
  if (made.server == nullptr) {
    return absl::InternalError("gRPC cannot start a server");
  }
  return made;
}

absl::StatusOr<std::shared_ptr<GrpcPeer>> GrpcServers::AddConnection(TenantId tenant,
                                                                     Descriptor socket,
                                                                     ConnectionPermit permit) {
  auto found = tenants_.find(tenant);
  if (found == tenants_.end()) {
    absl::StatusOr<Server> server = Start(MakeCacheService(table_, tenant));
    if (!server.ok()) {
      return server.status();
    }
    found = tenants_.emplace(tenant, *std::move(server)).first;
  }
  return Hand(*found->second.server, std::move(socket), std::move(permit));
}

absl::StatusOr<std::shared_ptr<GrpcPeer>> GrpcServers::AddAdminConnection(Descriptor socket,
                                                                          ConnectionPermit permit) {
  return Hand(*admin_.server, std::move(socket), std::move(permit));
}

absl::StatusOr<std::shared_ptr<GrpcPeer>> GrpcServers::Hand(grpc::Server& server,
                                                            Descriptor socket,
                                                            ConnectionPermit permit) {
  absl::StatusOr<Descriptor> watched = socket.Duplicate();
  if (!watched.ok()) {
    return watched.status();
  }
  auto peer = std::make_shared<GrpcPeer>(std::move(permit), *std::move(watched), socket.get());
  table_.peers().Add(peer);
  grpc::AddInsecureChannelFromFd(&server, socket.Release());
  return peer;
}

void GrpcServers::BeginDrain() {
  for (auto& [tenant, server] : tenants_) {
    if (auto* health = server.server->GetHealthCheckService(); health != nullptr) {
      health->SetServingStatus(false);
    }
  }
  table_.FinishEndless(absl::UnavailableError("the daemon is stopping"));
}

void GrpcServers::Stop() {
  const absl::Status status = absl::UnavailableError("the daemon is stopping");
  const auto now = std::chrono::system_clock::now();
  table_.FinishAll(status);
  for (auto& [tenant, server] : tenants_) {
    server.server->Shutdown(now);
  }
  if (admin_.server != nullptr) {
    admin_.server->Shutdown(now);
  }
  tenants_.clear();
  admin_.server.reset();
}

}  // namespace terrace
