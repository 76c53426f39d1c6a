#include "daemon/wire/admin_service.h"

#include <functional>
#include <utility>

#include "daemon/wire/admin_calls.h"
#include "terrace/v1/admin.grpc.pb.h"

namespace terrace {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using v1::Admin;

// Each layer makes one more verb take raw bytes.
using RawStatus = Admin::WithRawCallbackMethod_Status<Admin::Service>;
using RawTiers = Admin::WithRawCallbackMethod_Tiers<RawStatus>;
using RawPool = Admin::WithRawCallbackMethod_Pool<RawTiers>;
using RawTenants = Admin::WithRawCallbackMethod_Tenants<RawPool>;
using RawNamespaces = Admin::WithRawCallbackMethod_Namespaces<RawTenants>;
using RawExplain = Admin::WithRawCallbackMethod_Explain<RawNamespaces>;
using RawSetQuota = Admin::WithRawCallbackMethod_SetQuota<RawExplain>;
using RawEvict = Admin::WithRawCallbackMethod_Evict<RawSetQuota>;
using RawDrain = Admin::WithRawCallbackMethod_Drain<RawEvict>;
using RawScrub = Admin::WithRawCallbackMethod_Scrub<RawDrain>;
using RawVerify = Admin::WithRawCallbackMethod_Verify<RawScrub>;
using RawReload = Admin::WithRawCallbackMethod_Reload<RawVerify>;
using RawCheckpoint = Admin::WithRawCallbackMethod_Checkpoint<RawReload>;

class AdminService final : public RawCheckpoint {
 public:
  AdminService(GrpcCallTable& table, AdminRoom room)
      : table_(table), calls_(table.shared(), std::move(room)) {}

  ServerUnaryReactor* Status(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::StatusRequest, v1::StatusReply>(
        {context, request, response}, "Status", &AdminCalls::Status);
  }
  ServerUnaryReactor* Tiers(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::TiersRequest, v1::TiersReply>(
        {context, request, response}, "Tiers", &AdminCalls::Tiers);
  }
  ServerUnaryReactor* Pool(CallbackServerContext* context,
                           const ByteBuffer* request,
                           ByteBuffer* response) override {
    return Run<v1::PoolRequest, v1::PoolReply>({context, request, response}, "Pool",
                                               &AdminCalls::Pool);
  }
  ServerUnaryReactor* Tenants(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::TenantsRequest, v1::TenantsReply>(
        {context, request, response}, "Tenants", &AdminCalls::Tenants);
  }
  ServerUnaryReactor* Namespaces(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::NamespacesRequest, v1::NamespacesReply>(
        {context, request, response}, "Namespaces", &AdminCalls::Namespaces);
  }
  ServerUnaryReactor* Explain(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ExplainRequest, v1::ExplainReply>(
        {context, request, response}, "Explain", &AdminCalls::Explain);
  }
  ServerUnaryReactor* SetQuota(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::SetQuotaRequest, v1::SetQuotaReply>(
        {context, request, response}, "SetQuota", &AdminCalls::SetQuota);
  }
  ServerUnaryReactor* Evict(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::EvictRequest, v1::EvictReply>(
        {context, request, response}, "Evict", &AdminCalls::Evict);
  }
  ServerUnaryReactor* Drain(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::DrainRequest, v1::DrainReply>(
        {context, request, response}, "Drain", &AdminCalls::Drain);
  }
  ServerUnaryReactor* Scrub(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ScrubRequest, v1::ScrubReply>(
        {context, request, response}, "Scrub", &AdminCalls::Scrub);
  }
  ServerUnaryReactor* Verify(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::VerifyRequest, v1::VerifyReply>(
        {context, request, response}, "Verify", &AdminCalls::Verify);
  }
  ServerUnaryReactor* Reload(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ReloadRequest, v1::ReloadReply>(
        {context, request, response}, "Reload", &AdminCalls::Reload);
  }
  ServerUnaryReactor* Checkpoint(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::CheckpointRequest, v1::CheckpointReply>(
        {context, request, response}, "Checkpoint", &AdminCalls::Checkpoint);
  }

 private:
  template <typename Request, typename Reply, typename Verb>
  ServerUnaryReactor* Run(GrpcCallSite site, std::string_view name, Verb verb) {
    site.verb = name;
    site.cap = table_.shared()->limits.other_cap;
    return RunGrpcCall<Request, Reply>(
        table_, site, [this, verb](CallContext& context, Request& request, CallDone<Reply> done) {
          std::invoke(verb, calls_, context, request, std::move(done));
        });
  }

  GrpcCallTable& table_;
  AdminCalls calls_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(GrpcCallTable& table, AdminRoom room) {
  return std::make_unique<AdminService>(table, std::move(room));
}

}  // namespace terrace
