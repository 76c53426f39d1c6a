// Private namespaces: what is forgotten with the processes that opened it.
//
// Engines that do not tell all of their bytes open one anew with every start, so that a place which
// stayed taken would sooner or later be the last. The sessions that opened a namespace count as
// long as they are remembered, which is until their processes are gone; with the last of them it is
// *going*: its blocks leave DRAM, those locked by others with their locks, and when nothing names
// it any more its number and its place are free. Who opens it before then has it as it is. What
// lower tiers hold of it is never of use again and so goes with the oldest; who opened it later
// would find what is left, which is right still.
#include <algorithm>
#include <vector>

#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// After the first look, blocks can only come of puts and reads that were under way.
constexpr absl::Duration kLookAgain = absl::Seconds(1);
constexpr uint32_t kFirstLooks = 2;  // the round under way may have passed some blocks already
constexpr size_t kMaxRemovedFrom = 65536;

}  // namespace

void Store::UsePrivateLocked(NamespaceId id, SessionId session_id) {
  Namespace& ns = *namespaces_[static_cast<uint32_t>(id)];
  StoreSession* session = FindSessionLocked(session_id);
  if (session_id == kNoSession) {
    ns.stays = true;
  } else if (session != nullptr && session->private_namespaces.insert(id).second) {
    ++ns.openers;
  }
  if (ns.stays || ns.openers > 0) {
    private_.going.erase(id);
  } else {
    private_.going.insert(id);  // its only opener is over
  }
}

void Store::LeavePrivateLocked(const StoreSession& session) {
  for (const NamespaceId id : session.private_namespaces) {
    Namespace& ns = *namespaces_[static_cast<uint32_t>(id)];
    if (--ns.openers > 0 || ns.stays) {
      continue;
    }
    private_.going.insert(id);
    stale_rounds_ = ns.blocks > 0 ? kFirstLooks : stale_rounds_;
  }
}

void Store::TickPrivateLocked() {
  std::vector<NamespaceId> idle;
  bool has_blocks = false;
  for (const NamespaceId id : private_.going) {
    const Namespace& ns = *namespaces_[static_cast<uint32_t>(id)];
    has_blocks = has_blocks || ns.blocks > 0;
    if (IsIdleLocked(ns)) {
      idle.push_back(id);
    }
  }
  for (const NamespaceId id : idle) {
    ForgetNamespaceLocked(id);
  }
  if (has_blocks && stale_rounds_ == 0 && clock_.Now() >= private_.look_again_at) {
    stale_rounds_ = 1;
    private_.look_again_at = clock_.Now() + kLookAgain;
  }
}

// Also what other nodes or a drive that is away may still say of it must not be misread for want of
// what is known here.
bool Store::IsIdleLocked(const Namespace& ns) const {
  const auto is_being_cleared = [&ns](const std::shared_ptr<ClearProgress>& clear) {
    return clear->digest == ns.digest;
  };
  return ns.scopes == 0 && ns.deletes == 0 && !ns.cleared_blindly && !IsClearPendingLocked(ns) &&
         (!ns.removed_from || private_.removed_from.size() < kMaxRemovedFrom) &&
         std::none_of(generations_.clearing.begin(), generations_.clearing.end(), is_being_cleared);
}

void Store::ForgetNamespaceLocked(NamespaceId id) {
  const Namespace& ns = *namespaces_[static_cast<uint32_t>(id)];
  TERRACE_CHECK(ns.blocks == 0);
  if (events_.recording) {
    TellClearedLocked(ns);  // of what the local tier holds
  }
  if (ns.removed_from) {
    private_.removed_from.insert(ns.digest);
  }
  costs_.Declare(ns.digest, std::nullopt);
  std::vector<NamespaceId>& family = families_.at(ns.family);
  std::erase(family, id);
  if (family.empty()) {
    families_.erase(ns.family);
  }
  TenantOf(ns.tenant).namespaces.erase(ns.digest);
  namespace_ids_.erase(ns.digest);
  private_.going.erase(id);
  private_.free.push_back(id);
  ++private_.forgotten;
  namespaces_[static_cast<uint32_t>(id)] = nullptr;
}

}  // namespace terrace
