#include "daemon/quotas.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "daemon/concat.h"

namespace terrace {
namespace {

struct Quota {
  uint64_t guaranteed = 0;
  uint64_t limit = 0;
  friend bool operator==(const Quota&, const Quota&) = default;
};

struct Change {
  std::string alias;
  TenantId tenant{0};
  Quota from;
  Quota to;
  std::optional<PublishWhen> publish;
};

absl::Status Set(BlockStore& store, const Change& change, const Quota& quota) {
  absl::Status status = store.SetQuota(change.tenant, quota.guaranteed, quota.limit);
  if (status.ok()) {
    return status;
  }
  return absl::Status(
      status.code(), Concat("quota of tenant ", change.alias, ": ", std::string(status.message())));
}

// What both sides guarantee: raising comes after all lowering, so that the sum never exceeds the
// larger of both.
Quota Lowered(const Quota& from, const Quota& to) {
  return {std::min(from.guaranteed, to.guaranteed), from.limit};
}

absl::Status Move(BlockStore& store,
                  const std::vector<Change>& changes,
                  Quota Change::*from,
                  Quota Change::*to) {
  for (const Change& change : changes) {
    if (absl::Status s = Set(store, change, Lowered(change.*from, change.*to)); !s.ok()) {
      return s;
    }
  }
  for (const Change& change : changes) {
    if (absl::Status s = Set(store, change, change.*to); !s.ok()) {
      return s;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyQuotas(BlockStore& store,
                         const std::vector<TenantConfig>& running,
                         const std::vector<TenantConfig>& wanted) {
  std::map<std::string, Change> by_alias;
  for (const TenantConfig& tenant : running) {
    by_alias[tenant.alias].from = {tenant.guaranteed_bytes, tenant.limit_bytes};
  }
  for (const TenantConfig& tenant : wanted) {
    by_alias[tenant.alias].to = {tenant.guaranteed_bytes, tenant.limit_bytes};
    by_alias[tenant.alias].publish = tenant.publish;
  }
  std::vector<Change> changes;
  for (auto& [alias, change] : by_alias) {
    const absl::StatusOr<TenantId> tenant = store.OpenTenant(alias);
    if (!tenant.ok()) {
      return absl::Status(tenant.status().code(),
                          Concat("tenant ", alias, ": ", std::string(tenant.status().message())));
    }
    change.alias = alias;
    change.tenant = *tenant;
    if (!(change.from == change.to)) {
      changes.push_back(change);
    }
  }
  absl::Status status = Move(store, changes, &Change::from, &Change::to);
  // Going back needs no more than was there before, so it cannot fail.
  if (!status.ok()) {
    static_cast<void>(Move(store, changes, &Change::to, &Change::from));
    return status;
  }
  for (const auto& [alias, change] : by_alias) {
    store.SetPublishing(change.tenant, change.publish);
  }
  return status;
}

}  // namespace terrace
