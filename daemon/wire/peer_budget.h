// What one uid may have open at a time: connections and calls in flight, over both carriers together.
//
// Thread-safe. Permits are move-only and give back what they took; they may outlive the ledger's owner, because they
// share the counts with it (owners of a PeerBudget: the ledger and the uid's permits).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace terrace {

struct PeerLimits {
  uint32_t connections_per_uid = 64;
  uint32_t connections_total = 1024;
  uint32_t calls_in_flight_per_uid = 256;
};

class PeerBudget {
 public:
  explicit PeerBudget(uint32_t max_calls) : max_calls_(max_calls) {}

  bool TakeCall() {
    if (calls_.fetch_add(1, std::memory_order_relaxed) < max_calls_) {
      return true;
    }
    ReturnCall();
    return false;
  }
  void ReturnCall() { calls_.fetch_sub(1, std::memory_order_relaxed); }

  [[nodiscard]] uint32_t calls() const { return calls_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint32_t connections() const { return connections_.load(std::memory_order_relaxed); }

 private:
  friend class PeerLedger;
  friend class ConnectionPermit;
  const uint32_t max_calls_;
  // Counts, which order nothing else: relaxed.
  std::atomic<uint32_t> calls_{0};
  std::atomic<uint32_t> connections_{0};
};

class CallPermit {
 public:
  CallPermit() = default;
  // Invalid when the uid's calls are used up.
  static CallPermit Take(std::shared_ptr<PeerBudget> budget) {
    CallPermit permit;
    if (budget != nullptr && budget->TakeCall()) {
      permit.budget_ = std::move(budget);
    }
    return permit;
  }
  CallPermit(CallPermit&&) noexcept = default;
  CallPermit& operator=(CallPermit&& other) noexcept {
    Return();
    budget_ = std::move(other.budget_);
    return *this;
  }
  CallPermit(const CallPermit&) = delete;
  CallPermit& operator=(const CallPermit&) = delete;
  ~CallPermit() { Return(); }

  [[nodiscard]] bool valid() const { return budget_ != nullptr; }
  void Return() {
    if (const std::shared_ptr<PeerBudget> budget = std::exchange(budget_, nullptr)) {
      budget->ReturnCall();
    }
  }

 private:
  std::shared_ptr<PeerBudget> budget_;
};

class PeerLedger;

class ConnectionPermit {
 public:
  ConnectionPermit() = default;
  ConnectionPermit(ConnectionPermit&&) noexcept = default;
  ConnectionPermit& operator=(ConnectionPermit&& other) noexcept {
    Return();
    budget_ = std::move(other.budget_);
    total_ = std::move(other.total_);
    return *this;
  }
  ConnectionPermit(const ConnectionPermit&) = delete;
  ConnectionPermit& operator=(const ConnectionPermit&) = delete;
  ~ConnectionPermit() { Return(); }

  [[nodiscard]] bool valid() const { return budget_ != nullptr; }
  [[nodiscard]] const std::shared_ptr<PeerBudget>& budget() const { return budget_; }
  void Return();

 private:
  friend class PeerLedger;
  std::shared_ptr<PeerBudget> budget_;
  std::shared_ptr<std::atomic<uint32_t>> total_;  // owners: the ledger and all connection permits
};

class PeerLedger {
 public:
  explicit PeerLedger(const PeerLimits& limits)
      : limits_(limits), total_(std::make_shared<std::atomic<uint32_t>>(0)) {}

  // Invalid when the uid or the daemon has as many as it may.
  ConnectionPermit Admit(uid_t uid);
  [[nodiscard]] uint32_t connections() const { return total_->load(std::memory_order_relaxed); }

 private:
  const PeerLimits limits_;
  const std::shared_ptr<std::atomic<uint32_t>> total_;
  absl::Mutex mutex_;
  absl::flat_hash_map<uid_t, std::shared_ptr<PeerBudget>> budgets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
