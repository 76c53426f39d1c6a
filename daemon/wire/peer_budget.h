// What one uid may have open at a time: connections and calls in flight, over both carriers together, and bytes of payload
// in gRPC streams.
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
  uint64_t stream_bytes_per_uid = 0;
  uint64_t stream_bytes_total = 0;
};

// A count with a limit. Thread-safe.
class BoundedBytes {
 public:
  explicit BoundedBytes(uint64_t limit) : limit_(limit) {}
  bool Take(uint64_t bytes) {
    uint64_t before = taken_.load(std::memory_order_relaxed);
    do {
      if (bytes > limit_ || before > limit_ - bytes) {
        return false;
      }
    } while (!taken_.compare_exchange_weak(before, before + bytes, std::memory_order_relaxed));
    return true;
  }
  void Return(uint64_t bytes) { taken_.fetch_sub(bytes, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t taken() const { return taken_.load(std::memory_order_relaxed); }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> taken_{0};  // a count, which orders nothing else: relaxed
};

class PeerBudget {
 public:
  // all_streams: owners are the ledger and all budgets.
  PeerBudget(const PeerLimits& limits, std::shared_ptr<BoundedBytes> all_streams)
      : max_calls_(limits.calls_in_flight_per_uid),
        streams_(limits.stream_bytes_per_uid),
        all_streams_(std::move(all_streams)) {}

  bool TakeCall() {
    if (calls_.fetch_add(1, std::memory_order_relaxed) < max_calls_) {
      return true;
    }
    ReturnCall();
    return false;
  }
  void ReturnCall() { calls_.fetch_sub(1, std::memory_order_relaxed); }

  bool TakeStreamBytes(uint64_t bytes) {
    if (!streams_.Take(bytes)) {
      return false;
    }
    if (!all_streams_->Take(bytes)) {
      streams_.Return(bytes);
      return false;
    }
    return true;
  }
  void ReturnStreamBytes(uint64_t bytes) {
    streams_.Return(bytes);
    all_streams_->Return(bytes);
  }

  [[nodiscard]] uint32_t calls() const { return calls_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint32_t connections() const { return connections_.load(std::memory_order_relaxed); }

 private:
  friend class PeerLedger;
  friend class ConnectionPermit;
  const uint32_t max_calls_;
  // Counts, which order nothing else: relaxed.
  std::atomic<uint32_t> calls_{0};
  std::atomic<uint32_t> connections_{0};
  BoundedBytes streams_;
  const std::shared_ptr<BoundedBytes> all_streams_;
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

// Memory that one stream may fill. Its holder has a CallPermit of the same uid.
class StreamPermit {
 public:
  StreamPermit() = default;
  // Invalid when the uid or the daemon has no room for so many.
  static StreamPermit Take(std::shared_ptr<PeerBudget> budget, uint64_t bytes) {
    StreamPermit permit;
    if (budget != nullptr && budget->TakeStreamBytes(bytes)) {
      permit.budget_ = std::move(budget);
      permit.bytes_ = bytes;
    }
    return permit;
  }
  StreamPermit(StreamPermit&&) noexcept = default;
  StreamPermit& operator=(StreamPermit&& other) noexcept {
    Return();
    budget_ = std::move(other.budget_);
    bytes_ = other.bytes_;
    return *this;
  }
  StreamPermit(const StreamPermit&) = delete;
  StreamPermit& operator=(const StreamPermit&) = delete;
  ~StreamPermit() { Return(); }

  [[nodiscard]] bool valid() const { return budget_ != nullptr; }
  void Return() {
    if (const std::shared_ptr<PeerBudget> budget = std::exchange(budget_, nullptr)) {
      budget->ReturnStreamBytes(bytes_);
    }
  }

 private:
  std::shared_ptr<PeerBudget> budget_;
  uint64_t bytes_ = 0;
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
      : limits_(limits),
        total_(std::make_shared<std::atomic<uint32_t>>(0)),
        streams_(std::make_shared<BoundedBytes>(limits.stream_bytes_total)) {}

  // Invalid when the uid or the daemon has as many as it may.
  ConnectionPermit Admit(uid_t uid);
  [[nodiscard]] uint32_t connections() const { return total_->load(std::memory_order_relaxed); }

 private:
  const PeerLimits limits_;
  const std::shared_ptr<std::atomic<uint32_t>> total_;
  const std::shared_ptr<BoundedBytes> streams_;
  absl::Mutex mutex_;
  absl::flat_hash_map<uid_t, std::shared_ptr<PeerBudget>> budgets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
