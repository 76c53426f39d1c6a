#include <algorithm>

#include "absl/strings/str_cat.h"

#include "tools/ctl/admin_view.h"
#include "tools/ctl/pool_view.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

using Async = v1::Admin::StubInterface::async_interface;

constexpr absl::Duration kLongWork = absl::Minutes(10);

Answer AnswerOf(const google::protobuf::Message& reply, std::string text) {
  Answer answer;
  answer.json = JsonOf(reply);
  answer.text = std::move(text);
  return answer;
}

// Setting a quota replaces both numbers, so the one that was not named is read first.
absl::StatusOr<v1::TenantStatus> FindTenant(Connection& daemon, const std::string& alias) {
  absl::StatusOr<v1::TenantsReply> reply =
      daemon.Admin(&Async::Tenants, v1::TenantsRequest(), "reading tenants");
  if (!reply.ok()) {
    return reply.status();
  }
  for (const v1::TenantStatus& tenant : reply->tenants()) {
    if (tenant.tenant() == alias) {
      return tenant;
    }
  }
  return absl::NotFoundError(
      absl::StrCat("there is no tenant '", Printable(alias), "'; `terracectl tenants` lists them"));
}

}  // namespace

absl::StatusOr<Answer> RunStatus(const Run& run) {
  absl::StatusOr<v1::StatusReply> reply =
      run.daemon.Admin(&Async::Status, v1::StatusRequest(), "reading status");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, StatusText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunTiers(const Run& run) {
  absl::StatusOr<v1::TiersReply> reply =
      run.daemon.Admin(&Async::Tiers, v1::TiersRequest(), "reading tiers");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, TiersText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunTenants(const Run& run) {
  absl::StatusOr<v1::TenantsReply> reply =
      run.daemon.Admin(&Async::Tenants, v1::TenantsRequest(), "reading tenants");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, TenantsText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunNamespaces(const Run& run) {
  absl::StatusOr<v1::NamespacesReply> reply =
      run.daemon.Admin(&Async::Namespaces, v1::NamespacesRequest(), "reading namespaces");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, NamespacesText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunExplain(const Run& run) {
  const BlockChoice& blocks = run.line.blocks;
  absl::StatusOr<std::string> digest = ResolveNamespace(blocks.ns, run.daemon);
  if (!digest.ok()) {
    return digest.status();
  }
  v1::ExplainRequest request;
  request.set_tenant(run.line.tenant);
  request.set_namespace_digest(*digest);
  request.set_salt(blocks.salt);
  request.set_key(blocks.keys.front());
  absl::StatusOr<v1::ExplainReply> reply = run.daemon.Admin(&Async::Explain, request, "explaining");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, ExplainText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunEvict(const Run& run) {
  v1::EvictRequest request;
  request.set_tenant(run.line.tenant);
  request.set_tier(run.line.tier);
  request.set_target_used_bytes(run.line.evict_target_bytes);
  absl::StatusOr<v1::EvictReply> reply =
      run.daemon.Admin(&Async::Evict, request, "evicting", kLongWork);
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, EvictText(*reply));
}

absl::StatusOr<Answer> RunDrain(const Run& run) {
  v1::DrainRequest request;
  request.set_resume(run.line.drain_resume);
  absl::StatusOr<v1::DrainReply> reply =
      run.daemon.Admin(&Async::Drain, request, "draining", kLongWork);
  if (!reply.ok()) {
    return reply.status();
  }
  Answer answer = AnswerOf(
      *reply, run.line.drain_resume ? "admitting again\n"
                                    : "draining: puts are declined, gets go on; `terracectl drain "
                                      "--resume` admits again\n");
  answer.json["draining"] = !run.line.drain_resume;
  return answer;
}

absl::StatusOr<Answer> RunVerify(const Run& run) {
  v1::VerifyRequest request;
  request.set_tier(run.line.tier);
  absl::StatusOr<v1::VerifyReply> reply =
      run.daemon.Admin(&Async::Verify, request, "verifying", kLongWork);
  if (!reply.ok()) {
    return reply.status();
  }
  Answer answer = AnswerOf(*reply, VerifyText(*reply, run.terminal.style));
  answer.exit_code = reply->corrupt() > 0 ? kExitFailed : kExitOk;
  return answer;
}

absl::StatusOr<Answer> RunQuota(const Run& run) {
  const QuotaOptions& quota = run.line.quota;
  v1::SetQuotaRequest request;
  request.set_tenant(quota.tenant);
  request.set_guaranteed_bytes(quota.guaranteed_bytes.value_or(0));
  request.set_limit_bytes(quota.limit_bytes.value_or(0));
  if (!quota.guaranteed_bytes.has_value() || !quota.limit_bytes.has_value()) {
    absl::StatusOr<v1::TenantStatus> tenant = FindTenant(run.daemon, quota.tenant);
    if (!tenant.ok()) {
      return tenant.status();
    }
    request.set_guaranteed_bytes(quota.guaranteed_bytes.value_or(tenant->guaranteed_bytes()));
    request.set_limit_bytes(quota.limit_bytes.value_or(tenant->limit_bytes()));
  }
  if (quota.guaranteed_bytes.has_value() || quota.limit_bytes.has_value()) {
    absl::StatusOr<v1::SetQuotaReply> reply =
        run.daemon.Admin(&Async::SetQuota, request, "setting the quota");
    if (!reply.ok()) {
      return reply.status();
    }
  }
  return AnswerOf(
      request,
      absl::StrCat(Printable(quota.tenant), ": ", FormatBytes(request.guaranteed_bytes()),
                   " guaranteed, limit ",
                   request.limit_bytes() == 0 ? "none" : FormatBytes(request.limit_bytes()), "\n"));
}

absl::StatusOr<Answer> RunReload(const Run& run) {
  absl::StatusOr<v1::ReloadReply> reply =
      run.daemon.Admin(&Async::Reload, v1::ReloadRequest(), "reloading");
  if (!reply.ok()) {
    return reply.status();
  }
  return AnswerOf(*reply, ReloadText(*reply, run.terminal.style));
}

absl::StatusOr<Answer> RunScrub(const Run& run) {
  v1::ScrubRequest request;
  request.set_tier(run.line.tier);
  absl::StatusOr<v1::ScrubReply> reply =
      run.daemon.Admin(&Async::Scrub, request, "scrubbing", kLongWork);
  if (!reply.ok()) {
    return reply.status();
  }
  Answer answer = AnswerOf(*reply, absl::StrCat(FormatCount(reply->blocks()), " blocks read, ",
                                                FormatCount(reply->corrupt()), " corrupt\n"));
  answer.exit_code = reply->corrupt() > 0 ? kExitFailed : kExitOk;
  return answer;
}

absl::StatusOr<Answer> RunPool(const Run& run) {
  v1::PoolRequest request;
  request.set_tier(run.line.tier);
  request.set_reclaim_bytes(run.line.pool_reclaim_bytes);
  absl::StatusOr<v1::PoolReply> reply = run.daemon.Admin(&Async::Pool, request, "reading pools");
  if (!reply.ok()) {
    return reply.status();
  }
  const Reclaim reclaim =
      run.line.pool_reclaim_bytes > 0 ? Reclaim::kAskedFor : Reclaim::kNotAskedFor;
  return AnswerOf(*reply, PoolText(*reply, reclaim, run.terminal.style));
}

}  // namespace terrace::ctl
