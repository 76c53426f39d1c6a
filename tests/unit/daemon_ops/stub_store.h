// A BlockStore that remembers quotas and says of its use what a test tells it; everything else
// aborts.
#pragma once

#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "daemon/block_store.h"

namespace terrace {

class StubStore final : public BlockStore {
 public:
  struct Quota {
    uint64_t guaranteed = 0;
    uint64_t limit = 0;
    friend bool operator==(const Quota&, const Quota&) = default;
  };
  explicit StubStore(uint64_t capacity) : capacity_(capacity) {}

  std::map<std::string, Quota> quotas;
  std::map<std::string, std::optional<PublishWhen>> publishing;
  std::string refuse_alias;  // SetQuota of this tenant to a guarantee fails
  StoreUsage usage;
  std::vector<TenantUsage> tenants;
  std::vector<NamespaceRule> namespace_rules;
  mutable int looks = 0;

  absl::StatusOr<TenantId> OpenTenant(std::string_view alias) override {
    for (size_t i = 0; i < aliases_.size(); ++i) {
      if (aliases_[i] == alias) {
        return TenantId{static_cast<uint32_t>(i)};
      }
    }
    aliases_.emplace_back(alias);
    quotas[aliases_.back()] = {};
    return TenantId{static_cast<uint32_t>(aliases_.size() - 1)};
  }
  absl::Status SetQuota(TenantId tenant, uint64_t guaranteed_bytes, uint64_t limit_bytes) override {
    const std::string& alias = aliases_.at(static_cast<size_t>(tenant));
    if (alias == refuse_alias && guaranteed_bytes > 0) {
      return absl::InvalidArgumentError("refused");
    }
    uint64_t sum = guaranteed_bytes;
    for (const auto& [other, quota] : quotas) {
      sum += other == alias ? 0 : quota.guaranteed;
    }
    if (sum > capacity_) {
      return absl::InvalidArgumentError("guarantees exceed the capacity");
    }
    if (limit_bytes > 0 && limit_bytes < guaranteed_bytes) {
      return absl::InvalidArgumentError("limit");
    }
    quotas[alias] = {guaranteed_bytes, limit_bytes};
    return absl::OkStatus();
  }
  [[nodiscard]] StoreUsage Usage() const override {
    ++looks;
    return usage;
  }
  [[nodiscard]] std::vector<PoolSegmentView> ReclaimOrder(std::string_view) const override {
    return {};
  }
  [[nodiscard]] std::vector<TenantUsage> Tenants() const override { return tenants; }

  void SetNamespaceRules(std::vector<NamespaceRule> rules) override {
    namespace_rules = std::move(rules);
  }
  void SetPublishing(TenantId tenant, std::optional<PublishWhen> publish) override {
    publishing[aliases_.at(static_cast<size_t>(tenant))] = publish;
  }
  SessionId OpenSession(TenantId, LeaseRight) override { std::abort(); }
  void CloseSession(SessionId, std::function<void()>) override { std::abort(); }
  void ProcessGone(SessionId) override { std::abort(); }
  [[nodiscard]] uint64_t LeaseLimitBytes(SessionId) const override { std::abort(); }
  using BlockStore::OpenNamespace;
  absl::StatusOr<OpenedNamespace> OpenNamespace(const Caller&, const NamespaceRecord&) override {
    std::abort();
  }
  void ClearNamespace(TenantId,
                      const Digest128&,
                      std::function<void(absl::StatusOr<ClearedNamespace>)>) override {
    std::abort();
  }
  absl::StatusOr<uint64_t> RegisterRegion(SessionId, RegionSpec) override { std::abort(); }
  void UnregisterRegion(SessionId, uint32_t, std::function<void()>) override { std::abort(); }
  absl::StatusOr<SlabGrant> MapSlab(SessionId, SlabId) override { std::abort(); }
  void UnmapSlab(SessionId, SlabId) override { std::abort(); }
  void Probe(const Caller&, ProbeCall, std::function<void(ProbeResult)>) override { std::abort(); }
  void Prefetch(const Caller&,
                PrefetchCall,
                std::function<void(absl::StatusOr<PrefetchResult>)>) override {
    std::abort();
  }
  void WaitTicket(const Caller&,
                  uint64_t,
                  absl::Duration,
                  std::function<void(absl::StatusOr<TicketResult>)>) override {
    std::abort();
  }
  void Get(const Caller&, GetCall, std::function<void(absl::StatusOr<GetResult>)>) override {
    std::abort();
  }
  std::string InDram(TenantId, const StorePart&) override { return {}; }
  void Put(const Caller&, PutCall, std::function<void(absl::StatusOr<PutResult>)>) override {
    std::abort();
  }
  ReleaseResult Release(const Caller&,
                        absl::Span<const LeaseRelease>,
                        absl::Span<const Digest128>) override {
    std::abort();
  }
  void Delete(const Caller&,
              const StorePart&,
              std::function<void(absl::StatusOr<DeleteResult>)>) override {
    std::abort();
  }
  [[nodiscard]] Level HighestLevel() const override { std::abort(); }
  void Flush(TenantId, Level, absl::Duration, std::function<void(absl::Status)>) override {
    std::abort();
  }
  absl::StatusOr<PinResult> Pin(const Caller&, const StorePart&, absl::Duration) override {
    std::abort();
  }
  absl::StatusOr<uint32_t> Unpin(const Caller&, const StorePart&) override { std::abort(); }
  void CancelCall(const Caller&, uint64_t, std::function<void(bool)>) override { std::abort(); }
  void CancelTicket(const Caller&, uint64_t, std::function<void(bool)>) override { std::abort(); }
  [[nodiscard]] bool IsWatched() const override { std::abort(); }
  absl::StatusOr<std::unique_ptr<StoreWatcher>> Watch(TenantId, WatchCall) override {
    std::abort();
  }
  void Tick() override { std::abort(); }
  std::vector<LearntPolicy> SaveLearnt() override { std::abort(); }
  void SetDraining(bool) override { std::abort(); }
  [[nodiscard]] std::vector<NamespaceUsage> Namespaces() const override { std::abort(); }
  absl::StatusOr<Explanation> Explain(std::string_view, const StorePart&) override { std::abort(); }
  void Evict(std::string_view,
             uint64_t,
             std::function<void(absl::StatusOr<EvictResult>)>) override {
    std::abort();
  }
  void Verify(std::function<void(VerifyResult)>) override { std::abort(); }
  void ScrubLocal(ScrubPace, std::function<void(absl::StatusOr<ScrubResult>)>) override {
    std::abort();
  }

 private:
  const uint64_t capacity_;
  std::vector<std::string> aliases_;
};

}  // namespace terrace
