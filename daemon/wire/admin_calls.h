// What Admin's verbs do, free of gRPC. Thread-safe; nothing blocks but Reload, which reads the configuration file.
#pragma once

#include <atomic>

#include "daemon/wire/admin_service.h"
#include "daemon/wire/front_shared.h"
#include "terrace/v1/admin.pb.h"

namespace terrace {

class AdminCalls {
 public:
  AdminCalls(std::shared_ptr<FrontShared> shared, AdminRoom room);

  void Status(CallContext&, v1::StatusRequest&, const CallDone<v1::StatusReply>& done);
  void Tiers(CallContext&, v1::TiersRequest&, const CallDone<v1::TiersReply>& done);
  void Pool(CallContext&, v1::PoolRequest& request, const CallDone<v1::PoolReply>& done);
  void Tenants(CallContext&, v1::TenantsRequest&, const CallDone<v1::TenantsReply>& done);
  void Namespaces(CallContext&, v1::NamespacesRequest&, const CallDone<v1::NamespacesReply>& done);
  void Explain(CallContext&, v1::ExplainRequest& request, const CallDone<v1::ExplainReply>& done);
  void SetQuota(CallContext&, v1::SetQuotaRequest& request, const CallDone<v1::SetQuotaReply>& done);
  void Evict(CallContext&, v1::EvictRequest& request, CallDone<v1::EvictReply> done);
  void Drain(CallContext&, v1::DrainRequest& request, const CallDone<v1::DrainReply>& done);
  void Scrub(CallContext&, v1::ScrubRequest& request, CallDone<v1::ScrubReply> done);
  void Verify(CallContext&, v1::VerifyRequest& request, CallDone<v1::VerifyReply> done);
  void Reload(CallContext&, v1::ReloadRequest& request, const CallDone<v1::ReloadReply>& done);
  void Checkpoint(CallContext&, v1::CheckpointRequest&, const CallDone<v1::CheckpointReply>& done);

 private:
  [[nodiscard]] bool IsLocalTier(const std::string& name) const;
  void VerifyLocal(CallDone<v1::VerifyReply> done);

  const std::shared_ptr<FrontShared> shared_;
  const AdminRoom room_;
  const absl::Duration started_at_;
  std::atomic<bool> draining_{false};
};

}  // namespace terrace
