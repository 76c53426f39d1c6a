#include "tools/bench/operator_calls.h"

#include <chrono>

#include "grpcpp/grpcpp.h"
#include "terrace/v1/admin.grpc.pb.h"
#include "terrace/v1/cache.grpc.pb.h"

namespace terrace::bench {
namespace {

constexpr std::chrono::seconds kDeadline{30};

absl::Status ToStatus(const grpc::Status& status, const char* verb) {
  return status.ok() ? absl::OkStatus()
                     : absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                    verb + (": " + status.error_message()));
}

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& socket) {
  // Channels of one target share connections, and with them the pause after the death of the daemon
  // before this one.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

class GrpcOperatorCalls final : public OperatorCalls {
 public:
  explicit GrpcOperatorCalls(const std::string& runtime_dir)
      : admin_socket_(runtime_dir + "/admin.sock"), cache_socket_(runtime_dir + "/terrace.sock") {}

  absl::StatusOr<LocalState> Local() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::TiersReply reply;
    if (absl::Status status = ToStatus(Admin()->Tiers(&context, {}, &reply), "tiers");
        !status.ok()) {
      return status;
    }
    for (const v1::TierStatus& tier : reply.tiers()) {
      if (tier.kind() == "local") {
        return LocalState{tier.segments_to_recover() > 0 || tier.state() == "recovering",
                          tier.segment_bytes(), tier.last_fault()};
      }
    }
    return absl::NotFoundError("tiers: the daemon has no local one");
  }

  absl::StatusOr<PoolState> Pool() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::PoolReply reply;
    if (absl::Status status = ToStatus(Admin()->Pool(&context, {}, &reply), "pool"); !status.ok()) {
      return status;
    }
    if (reply.pools().empty()) {
      return absl::NotFoundError("pool: the daemon has no shared tier");
    }
    const v1::PoolStatus& pool = reply.pools(0);
    return PoolState{pool.state(), pool.worker().pid(), pool.worker().calls()};
  }

  absl::StatusOr<ReadAhead> ForReturns() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::StatusReply reply;
    if (absl::Status status = ToStatus(Admin()->Status(&context, {}, &reply), "status");
        !status.ok()) {
      return status;
    }
    return ReadAhead{reply.return_bytes(), reply.return_used_bytes(), reply.return_wasted_bytes()};
  }

  absl::Status Flush() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::FlushRequest request;
    request.set_level(v1::LEVEL_LOCAL_SYNCED);
    v1::FlushReply reply;
    return ToStatus(v1::Cache::NewStub(ChannelTo(cache_socket_))->Flush(&context, request, &reply),
                    "flush");
  }

  absl::Status EvictDram() override {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::EvictReply reply;
    return ToStatus(Admin()->Evict(&context, {}, &reply), "evict");
  }

 private:
  // A connection for every call: between two of them nothing answers the daemon's keepalive, and it
  // would be closed.
  [[nodiscard]] std::unique_ptr<v1::Admin::Stub> Admin() const {
    return v1::Admin::NewStub(ChannelTo(admin_socket_));
  }

  const std::string admin_socket_;
  const std::string cache_socket_;
};

}  // namespace

std::unique_ptr<OperatorCalls> OperatorCalls::Create(const std::string& runtime_dir) {
  return std::make_unique<GrpcOperatorCalls>(runtime_dir);
}

}  // namespace terrace::bench
