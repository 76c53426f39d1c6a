#include "daemon/wire/peer_budget.h"

namespace terrace {

void ConnectionPermit::Return() {
  if (const std::shared_ptr<PeerBudget> budget = std::exchange(budget_, nullptr)) {
    budget->connections_.fetch_sub(1, std::memory_order_relaxed);
    total_->fetch_sub(1, std::memory_order_relaxed);
  }
}

ConnectionPermit PeerLedger::Admit(uid_t uid) {
  absl::MutexLock lock(&mutex_);
  // Forgets uids that left, so that the table is bounded by the connections and calls that exist.
  absl::erase_if(budgets_, [uid](const auto& entry) {
    return entry.first != uid && entry.second->connections() == 0 && entry.second->calls() == 0;
  });
  std::shared_ptr<PeerBudget>& budget = budgets_[uid];
  if (budget == nullptr) {
    budget = std::make_shared<PeerBudget>(limits_, streams_);
  }
  ConnectionPermit permit;
  if (budget->connections() >= limits_.connections_per_uid ||
      connections() >= limits_.connections_total) {
    return permit;
  }
  budget->connections_.fetch_add(1, std::memory_order_relaxed);
  total_->fetch_add(1, std::memory_order_relaxed);
  permit.budget_ = budget;
  permit.total_ = total_;
  return permit;
}

}  // namespace terrace
