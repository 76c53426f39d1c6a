// The class behind the door BlockStore, cut by concern into the .cc files of this folder; what each
// is for stands beside its name in CMakeLists.txt.
//
// One lock, mutex_, guards all metadata; it is held for microseconds, never over a hash, the making
// of memory or a callback, and over a copy only where a slab changes its owner (at most a quarter
// of a slab, which is rare). Names that end in Locked need it. Callbacks are collected in a
// DeferredCalls, which is declared before the lock and so runs after it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

#include "daemon/block_store.h"
#include "daemon/store/block_table.h"
#include "daemon/store/event_journal.h"
#include "daemon/store/expected_returns.h"
#include "daemon/store/lessons.h"
#include "daemon/store/load_costs.h"
#include "daemon/store/local_budget.h"
#include "daemon/store/outlet.h"
#include "daemon/store/probe_load.h"
#include "daemon/store/recent_requests.h"
#include "daemon/store/records.h"

namespace terrace {

class Store final : public BlockStore {
 public:
  template <typename Result>
  using Done = std::function<void(absl::StatusOr<Result>)>;

  Store(const BlockStoreOptions& options, const Parts& parts);
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store() override;
  // What Create does after the constructor, in this order.
  absl::Status LoadGenerations();
  void RecoverKept();
  absl::Status FillArena();
  void BeginKeeping();

  absl::StatusOr<TenantId> OpenTenant(std::string_view alias) override;
  absl::Status SetQuota(TenantId tenant, uint64_t guaranteed_bytes, uint64_t limit_bytes) override;
  void SetPublishing(TenantId tenant, std::optional<PublishWhen> publish) override;
  void SetNamespaceRules(std::vector<NamespaceRule> rules) override;
  SessionId OpenSession(TenantId tenant, LeaseRight leases) override;
  void CloseSession(SessionId session, std::function<void()> done) override;
  void ProcessGone(SessionId session) override;
  [[nodiscard]] uint64_t LeaseLimitBytes(SessionId session) const override;
  absl::StatusOr<OpenedNamespace> OpenNamespace(const Caller&, const NamespaceRecord&) override;
  void ClearNamespace(TenantId, const Digest128& digest, Done<ClearedNamespace> done) override;
  absl::StatusOr<uint64_t> RegisterRegion(SessionId session, RegionSpec spec) override;
  void UnregisterRegion(SessionId session, uint32_t region_id, std::function<void()> done) override;
  absl::StatusOr<SlabGrant> MapSlab(SessionId session, SlabId slab) override;
  void UnmapSlab(SessionId session, SlabId slab) override;
  void Probe(const Caller& caller, ProbeCall call, std::function<void(ProbeResult)> done) override;
  void Prefetch(const Caller& caller, PrefetchCall call, Done<PrefetchResult> done) override;
  void WaitTicket(const Caller&, uint64_t, absl::Duration until, Done<TicketResult>) override;
  void Get(const Caller& caller, GetCall call, Done<GetResult> done) override;
  void Put(const Caller& caller, PutCall call, Done<PutResult> done) override;
  std::string InDram(TenantId tenant, const StorePart& part) override;
  ReleaseResult Release(const Caller&,
                        absl::Span<const LeaseRelease> leases,
                        absl::Span<const Digest128> holds) override;
  void Delete(const Caller& caller, const StorePart& part, Done<DeleteResult> done) override;
  [[nodiscard]] Level HighestLevel() const override;
  void Flush(TenantId, Level, absl::Duration deadline, std::function<void(absl::Status)>) override;
  absl::StatusOr<PinResult> Pin(const Caller&, const StorePart&, absl::Duration ttl) override;
  absl::StatusOr<uint32_t> Unpin(const Caller& caller, const StorePart& part) override;
  void CancelCall(const Caller& caller, uint64_t call_id, std::function<void(bool)> done) override;
  void CancelTicket(const Caller& caller, uint64_t ticket, std::function<void(bool)> done) override;
  [[nodiscard]] bool IsWatched() const override { return watched_.load(); }
  absl::StatusOr<std::unique_ptr<StoreWatcher>> Watch(TenantId tenant, WatchCall call) override;
  void Tick() override;
  std::vector<LearntPolicy> SaveLearnt() override;
  void SetDraining(bool draining) override;
  [[nodiscard]] StoreUsage Usage() const override;
  [[nodiscard]] std::vector<PoolSegmentView> ReclaimOrder(std::string_view tier) const override;
  [[nodiscard]] std::vector<TenantUsage> Tenants() const override;
  [[nodiscard]] std::vector<NamespaceUsage> Namespaces() const override;
  absl::StatusOr<Explanation> Explain(std::string_view tenant, const StorePart& part) override;
  void Evict(std::string_view tenant, uint64_t target, Done<EvictResult> done) override;
  void Verify(std::function<void(VerifyResult)> done) override;
  void ScrubLocal(ScrubPace pace, Done<ScrubResult> done) override;

 private:
  using Lock = absl::MutexLock;
  // ---- store.cc
  [[nodiscard]] uint32_t NowDeciseconds() const;
  static Digest128 RandomId();
  Tenant& TenantOf(TenantId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return *tenants_[static_cast<uint32_t>(id)];
  }
  StoreSession* FindSessionLocked(SessionId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Namespace* FindNamespaceLocked(TenantId tenant, const Digest128& digest)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  NamespaceId MakeNamespaceLocked(TenantId tenant, const NamespaceRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Namespace& NamespaceOf(ScopeId scope) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // nullopt: nothing was ever stored under it.
  std::optional<ScopeId> FindScopeLocked(TenantId tenant, const StorePart& part)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<ScopeId> UseScopeLocked(TenantId tenant, const StorePart& part)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnuseScopeLocked(ScopeId scope) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndSessionLocked(SessionId, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetSessionLocked(SessionId, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SweepStaleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TrackLocked(const std::shared_ptr<Operation>&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The operation is over: unlinks it and answers those who cancelled it.
  void EndOperationLocked(Operation& operation, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- private_namespaces.cc
  void UsePrivateLocked(NamespaceId ns, SessionId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeavePrivateLocked(const StoreSession&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickPrivateLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsIdleLocked(const Namespace&) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetNamespaceLocked(NamespaceId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- probe.cc
  ProbeResult ProbeLocked(const Caller& caller, const ProbeCall& call, ProbeView& view)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TouchSeenLocked(absl::Span<const SeenBlock> seen) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ProbePartLocked(TenantId tenant, const StorePart&, ProbeView&, ProbeResult&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Finds the part's blocks; entries behind the end of a PREFIX run are kNoBlock.
  void FindPartLocked(TenantId tenant, const StorePart& part, std::vector<BlockId>& out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TouchLocked(absl::Span<const BlockId> chain) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- get.cc
  absl::Status AdmitGetLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ResolveGetLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ResolvePartLocked(const std::shared_ptr<GetOperation>& get,
                         size_t part_index,
                         uint32_t first,
                         DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverLeaseLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlanInlineLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Bytes to be verified.
  uint64_t PlanInPlaceLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeliverInPlaceLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndReading(TenantId tenant, absl::Span<const BlockId> blocks) ABSL_LOCKS_EXCLUDED(mutex_);
  void PrepareTargetLocked(GetOperation& get, GetTarget& target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishGetLocked(GetOperation&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunGetJob(const std::shared_ptr<GetOperation>& get);
  void PlanSlicesLocked(GetOperation& get, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CopySlice(GetOperation& get, const GetSlice& slice);
  // ---- put.cc
  absl::Status AdmitPutLocked(PutOperation& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlanPutLocked(const std::shared_ptr<PutOperation>&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void SetPutResult(PutOperation& put, uint32_t position, PutOutcome outcome, Reason reason);
  Reason CheckPutKey(const PutOperation&, uint32_t key, uint64_t inline_end, uint64_t bytes) const;
  // `resumed`: the target whose turn it is again after it waited for room.
  void RunPutJob(const std::shared_ptr<PutOperation>& put, uint32_t resumed = kNoTarget);
  void RefuseTarget(PutOperation& put, const PutTarget& target, Reason reason);
  // nullopt: it waits for room, and its job is run again when there may be some.
  std::optional<Reason> StoreTarget(const std::shared_ptr<PutOperation>& put, uint32_t index);
  void CommitLocked(PutOperation& put,
                    PutTarget& target,
                    const Digest128& checksum,
                    DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeFinishPutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TouchPutLocked(const PutOperation& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- flights.cc
  Flight& OpenFlightLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The filling of `block` ended; `ok`: it is kReady now, else it is gone after this call.
  void CloseFlightLocked(BlockId block, GetOutcome outcome, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Looks the key up in the lower tiers; names it in the index and queues its read. kNoBlock: on no
  // tier.
  BlockId BeginReadLocked(TenantId, const StorePart&, uint32_t key, Priority, uint32_t* tier)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LookupLowerLocked(TenantId, const StorePart&, uint32_t key, LowerBlock*, uint32_t* tier)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsShared(size_t tier) const;  // an index into the lower tiers
  void PumpReadsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartRead(BlockId block);
  void ReadEnded(BlockId block, ReadOutcome outcome);
  // The read goes on at the next tier that holds the block. False: there is none.
  bool ReadFromNextLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void QueueReadLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t NewTicketLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  PrefetchResult BeginPrefetchLocked(const Caller&, const PrefetchCall&, DeferredCalls&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndTicketLocked(uint64_t id, TicketState state, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickTicketsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Asks reads that nobody waits for any more to end.
  void CancelOrphanReadsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropWaiterLocked(BlockId block, const Operation* operation, uint64_t ticket)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AbandonWaitsLocked(const std::shared_ptr<Operation>&, GetOutcome, DeferredCalls&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- leases.cc
  void LockBlockLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnlockBlockLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Digest128 GrantLeaseLocked(const Caller& caller, std::vector<BlockId> blocks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropLeasedBlockLocked(Lease& lease, size_t position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLeaseLocked(const Digest128& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Zero id: the tenant has too many holds, or nothing was given.
  Digest128 GrantHoldLocked(const Caller&, absl::Duration expiry, std::vector<BlockId> blocks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddToHoldLocked(const Digest128& id, BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndHoldLocked(const Digest128& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the block out of sight; it is freed now or with its last lock. `why`: it is not published
  // any more, where it waited for that.
  void HideLocked(BlockId block, PublishDrop why = PublishDrop::kDeleted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Its bytes are complete: visible from now on, and known to its pool's policy.
  void EnterReadyLocked(BlockId, const GrowthTicket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnpinLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] uint64_t DramOfLocked(const Tenant& tenant) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // ---- foresight.cc
  // nullptr: the policy does not learn.
  EvictionPolicy* LearningPolicyLocked(TenantId tenant, uint64_t payload_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static uint64_t NameSeedOf(const StorePart& part);
  uint64_t NameLocked(ScopeId, KeyView key) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  std::optional<Lessons::Pupil> BeginLesson(size_t pool) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndLesson(EvictionPolicy& policy) ABSL_LOCKS_EXCLUDED(mutex_);
  void StudyPolicies() ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteUseLocked(const Caller& caller, const ProbeCall& call)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteGrowthLocked(PutOperation& put) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Newcomer NewcomerLocked(BlockId block, const GrowthTicket& ticket)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickPoliciesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- returns.cc
  void NoteReturnLocked(const PutOperation& put, absl::Span<const BlockId> chain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FetchReturns() ABSL_LOCKS_EXCLUDED(mutex_);
  void FetchReturn(const Caller&, const PrefetchCall&, const ProbeView&)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteFetchedLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- regions.cc
  std::shared_ptr<Region> UseRegionLocked(SessionId session, uint32_t region)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnuseRegionLocked(Region&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleaseRetiredLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- kept.cc
  // True: some of its blocks are to be verified first; DeliverLocked is called again then.
  bool CheckKeptLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunCheckJob(const std::shared_ptr<GetOperation>& get) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndChecksLocked(GetOperation& get) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  class Recovery;
  // The block is ready, or has moved to where it is now; `sequence` 0: a new one.
  void KeepLocked(BlockId block, uint64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nobody may find it in its slot any more. Its sequence.
  uint64_t UnkeepLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NoteScopeLocked(ScopeId scope) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepSlabLocked(SlabId slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint32_t KeptIndexLocked(SlabId slab) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void NoteLeaseLocked(const Block&, int change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DyingSlab DropSlabLocked(SlabId slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Bury(std::vector<DyingSlab> dying) ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsKeptLocked(const Block& block) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The one worth least that can be emptied now.
  std::optional<SlabView> KeptSlabToRenewLocked(TenantId) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndHeldLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireEmptiedLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsRenewingLocked(TenantId tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Reason> RenewSlab(uint16_t pool, const RoomRequest&) ABSL_LOCKS_EXCLUDED(mutex_);
  void EvictFromKept(uint16_t pool, absl::Duration give_up) ABSL_LOCKS_EXCLUDED(mutex_);
  // ---- space.cc
  uint16_t PoolForLocked(TenantId, uint64_t slot_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A slot for the block, evicting and moving slabs as needed; may make memory. kNone: it has it;
  // nullopt: victims are being written first, and `request.resume` is called.
  std::optional<Reason> AcquireSlot(BlockId block,
                                    uint64_t payload_bytes,
                                    const GrowthTicket& ticket,
                                    const RoomRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);
  Room TryAllocateLocked(TenantId tenant,
                         uint64_t slot_bytes,
                         const Newcomer& newcomer,
                         absl::Duration give_up,
                         SlotRef* out,
                         DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FreeSlabAllowedLocked(TenantId, uint64_t slab_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  BlockId OldestOfTenantLocked(TenantId tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EvictLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EvictFamilyLocked(BlockId block, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The other blocks of its family that are ready and of the same prefix.
  std::vector<BlockId> SiblingsLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Frees slot and metadata; the block is out of the index already or never was in it.
  void FreeBlockLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AttachSlotLocked(BlockId block, SlotRef ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DetachSlotLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MakeMemory(uint64_t slot_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  // The slab worth least that the tenant may take; nullopt when none is worth less than `bar`.
  std::optional<SlabView> CheapestSlabLocked(TenantId tenant, uint64_t slot_bytes, double bar)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsBusyLocked(SlabId slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double SlabValueLocked(const SlabView& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Taking TakeSlab(TenantId, uint64_t slot_bytes, double bar, const RoomRequest&, Whose)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether all that the slab holds may go; what is not written yet is on its way then.
  bool SlabIsReadyToGoLocked(const SlabView& slab, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveOutLocked(const SlabView& slab, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MoveBlockLocked(BlockId block, const SlabView& from, std::vector<SlotRef>& inside)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool EmptySlabLocked(const SlabView& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireSlabLocked(const SlabView&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] absl::Span<char> PayloadLocked(const Block& block) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // ---- local_writes.cc
  static constexpr uint32_t kMaxWritesRunning = 64;
  [[nodiscard]] BlockIdentity IdentityOfLocked(const Block& block)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it is of its namespace's present generation.
  bool IsCurrentLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the local tier could take the block at all.
  [[nodiscard]] bool LocalTakesLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool LocalHoldsLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether it may not be written from where it lies.
  bool NeedsCopyLocked(const Block& block) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void HideCorrupt(BlockId block) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<OwnedWrite> MakeWriteLocked(BlockId block, absl::Duration cap)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The block must be ready and is locked until its write has ended.
  void RequestLocalWriteLocked(BlockId block, WriteWaiter waiter, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the budget of writes bears it, where nobody waits for it. Asked anew after each use.
  bool IsWorthWritingLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double LocalSavingLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ReuseRecord::Facts FactsOfLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CompleteBelowLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickLocalBudget() ABSL_LOCKS_EXCLUDED(mutex_);
  void PumpLocalWritesLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginLocalWriteLocked(BlockId, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LocalWriteEnded(BlockId block, WriteOutcome outcome) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndLocalWriteLocked(BlockId block, WriteOutcome outcome, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A write has ended or given a slot back: who waits for that goes on.
  void AdvanceWaitersLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the block may be evicted now without a loss that waiting could prevent. False: it is on
  // its way to a lower tier, or others are and it still has no lock.
  bool ReadyToEvictLocked(BlockId block, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsWrittenForEvictionLocked(BlockId block, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Called for what is evicted: what no tier holds then is lost, and what one holds was of use.
  void TellLocalOfEvictionLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // With LocalWrites::kOnCommit: to be written when there is time.
  void NoteCommittedLocked(BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps the next victims of the pool written, so that evictions need not wait.
  void WriteAheadLocked(Pool& pool, DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: nothing keeps it where it is.
  bool WriteAheadOneLocked(BlockId, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeRoomWaitersLocked(size_t count, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickLocalLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- publishing.cc
  void RuleNamespaceLocked(Namespace& ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A bit an outlet that publishes the namespace's blocks then.
  uint8_t OutletsWithLocked(const Namespace& ns, PublishWhen when)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The one that stands for Level::kPool; nullptr: none takes the block.
  Outlet* LevelOutletLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether any block of the tenant may be.
  bool PublishesLocked(TenantId tenant, PublishWhen when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Published, or on its way.
  bool PoolHasLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // To be published to each of `outlets` when its turn comes, once in its life.
  void OfferLocked(BlockId block, uint8_t outlets) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteReuseLocked(absl::Span<const BlockId> blocks) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UnqueueLocked(Block& block, PublishDrop why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool CanPublishLocked(const Outlet&) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The block must be ready. Its waiter may be told before this returns.
  void RequestPublishLocked(Outlet& outlet, BlockId block, WriteWaiter waiter, DeferredCalls&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpUrgentLocked(Outlet&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpOutletLocked(Outlet&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginPublishLocked(Outlet& outlet, const std::string& name, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveSlotBackLocked(Outlet& outlet, Publication& publication)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PublishReleased(const PublicationEnd& end) ABSL_LOCKS_EXCLUDED(mutex_);
  void PublishEnded(const PublicationEnd& end, WriteOutcome outcome) ABSL_LOCKS_EXCLUDED(mutex_);
  // `why` counts where the outcome is neither kWritten nor kHeld.
  void EndPublicationLocked(Outlet& outlet,
                            const std::string& name,
                            WriteOutcome outcome,
                            PublishDrop why,
                            DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsPublishedForEvictionLocked(BlockId block, absl::Duration give_up, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellOutletsOfEvictionLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether room may come by the end of a write.
  [[nodiscard]] bool SlotsAreKeptLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsPublishingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool PublishPutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FlushToPoolLocked(const std::shared_ptr<FlushOperation>& flush,
                         BlockId block,
                         DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<PoolState> TickShared() ABSL_LOCKS_EXCLUDED(mutex_);
  void TickOutletsLocked(absl::Span<const PoolState> states, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- levels.cc
  // `stage`: of a put, the one that waits for such writes.
  void TellWriteWaiterLocked(const WriteWaiter&, PutStage stage, WriteOutcome, DeferredCalls&)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool WantsPool(Level level) const;
  // The put's stages behind kStoring. True: it waits.
  bool AdvancePutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void EndPutWaits(PutOperation& put, Reason reason);
  bool WritePutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool SyncPutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PutSynced(const std::shared_ptr<PutOperation>& put, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Calls the tier's Sync; `done` on the executor.
  void SyncLocal(std::function<void(absl::Status)> done) ABSL_LOCKS_EXCLUDED(mutex_);
  bool FlushOneLocked(const std::shared_ptr<FlushOperation>& flush,
                      BlockId block,
                      DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AdvanceFlushLocked(const std::shared_ptr<FlushOperation>& flush, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndFlushLocked(const std::shared_ptr<FlushOperation>& flush,
                      absl::Status status,
                      DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- generations.cc
  absl::Status LearnGenerations(const std::vector<SegmentTier::Note>& notes);
  void LearnRaised(size_t outlet, const std::vector<RaisedGeneration>& news);
  // nullptr: no tenant has opened it.
  Namespace* FindOpenedLocked(const Digest128& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t KnownGenerationLocked(const Digest128& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // At least to `generation`; what it is then. Pools that know less are told when their turn comes.
  uint64_t RaiseHereLocked(const Digest128& digest, uint64_t generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerClearsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsClearPendingLocked(const Namespace& ns) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static absl::Status NotDurable(std::string_view what, std::string_view tier);
  void NoteGenerationLocked(GenerationNote note, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetryNotesLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginNoteLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteEnded(bool is_durable) ABSL_LOCKS_EXCLUDED(mutex_);
  void PumpRaisesLocked(Outlet&, DeferredCalls&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RaiseEnded(size_t outlet, const RaisedGeneration& raised, bool is_recorded)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void TickGenerationsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // ---- removal.cc
  void HideForDeleteLocked(DeleteOperation&, const Namespace&, uint32_t begin, uint32_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsHeldBelowLocked(const BlockIdentity& identity) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HidePublicationsLocked(DeleteOperation& deletion, const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerDelete(const std::shared_ptr<DeleteOperation>& deletion) ABSL_LOCKS_EXCLUDED(mutex_);
  void DeleteBelow(const std::shared_ptr<DeleteOperation>& deletion) ABSL_LOCKS_EXCLUDED(mutex_);
  void DeletedBelow(const std::shared_ptr<DeleteOperation>& deletion,
                    std::string_view tier,
                    WriteOutcome outcome) ABSL_LOCKS_EXCLUDED(mutex_);
  // ---- operator.cc
  void CountSlabsLocked(StoreUsage& usage) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::vector<TierCost> TierCosts() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The block of all pools, or of one tenant's, that is worth least; kNoBlock: all are locked.
  BlockId NextVictimLocked(std::optional<TenantId> only) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AdvanceEvictLocked(const std::shared_ptr<EvictOperation>& evict, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExplainBlockLocked(BlockId block, Explanation& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExplainPublishingLocked(const Block& block, Explanation& out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunVerify(uint32_t begin, VerifyResult sum, std::function<void(VerifyResult)> done);
  // ---- events.cc; Tell... only while events_.recording
  class Watcher;
  // Stored by a put, the key at `position` of it.
  void TellStoredLocked(PutOperation& put, uint32_t position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellReadUpLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellLeftDramLocked(const Block& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of what is not in DRAM, before the local tier is told.
  void TellDeletedLocked(const BlockIdentity& identity) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellClearedLocked(const Namespace& ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A namespace, of which nobody knows what the local tier holds of earlier lives.
  void TellOpenedLocked(TenantId tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool MayHoldOfEarlierLives() const ABSL_LOCKS_EXCLUDED(mutex_);
  StoreEvent StoredInDramLocked(const Block&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LearnLocalChanges(absl::Span<const NamedBlock> changed, SegmentTier::Unnamed unnamed);
  void TickEvents() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ready in DRAM; nullptr: it is not.
  const Block* FindReadyLocked(const BlockIdentity&) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Counts jobs in the executor and reads in the tiers: the destructor waits for them.
  void RunJob(Priority priority, std::function<void()> job);
  void JobStarted() ABSL_LOCKS_EXCLUDED(mutex_);
  void JobEndedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { --in_flight_; }

  const BlockStoreOptions options_;
  const Clock& clock_;
  Executor& executor_;
  SlabSource& slabs_;
  SegmentTier* const local_;  // nullable
  const std::vector<SharedTier*> shared_;
  const std::vector<LowerTier*> lower_tiers_;  // the local one first, then those
  StoreObserver* const observer_;
  DramKeeper* const keeper_;  // nullable
  std::atomic<bool> ending_{false};
  const absl::Duration began_;
  const bool learns_;  // the policy wants to know what foresight.cc tells
  std::atomic<uint32_t> verify_turn_{0};
  std::atomic<uint32_t> verify_one_in_;
  LoadCosts costs_;
  Lessons lessons_;  // its lock is taken before mutex_
  std::atomic<bool> watched_{false};
  absl::Mutex watch_switch_;  // who turns watching on and off; taken before mutex_

  mutable absl::Mutex mutex_;
  std::unique_ptr<Arena> arena_ ABSL_GUARDED_BY(mutex_);
  PageKind page_kind_ ABSL_GUARDED_BY(mutex_) = PageKind::kSmall;
  BlockTable blocks_ ABSL_GUARDED_BY(mutex_);
  ResidentIndex index_ ABSL_GUARDED_BY(mutex_);
  RecencySource recency_ ABSL_GUARDED_BY(mutex_);
  RecentRequests recent_requests_ ABSL_GUARDED_BY(mutex_);
  ExpectedReturns returns_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Pool>> pools_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Tenant>> tenants_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, TenantId> tenant_ids_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Namespace>> namespaces_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest128, NamespaceId> namespace_ids_ ABSL_GUARDED_BY(mutex_);
  std::vector<NamespaceRule> namespace_rules_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest128, std::vector<NamespaceId>> families_ ABSL_GUARDED_BY(mutex_);
  std::vector<Scope> scopes_ ABSL_GUARDED_BY(mutex_);
  std::vector<ScopeId> free_scopes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<ScopeName, ScopeId> scope_ids_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<SlabId, std::vector<BlockId>> slab_blocks_ ABSL_GUARDED_BY(mutex_);
  // Sessions that may map it.
  absl::flat_hash_map<SlabId, uint32_t> slab_mappings_ ABSL_GUARDED_BY(mutex_);
  std::map<SessionId, StoreSession> sessions_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_session_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<Digest128, Lease> leases_ ABSL_GUARDED_BY(mutex_);
  uint64_t leased_blocks_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t leased_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<Digest128, Hold> holds_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Duration, Digest128> hold_expiries_ ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Duration, std::pair<BlockId, uint32_t>> pin_expiries_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<BlockId, Flight> flights_ ABSL_GUARDED_BY(mutex_);
  std::vector<ReadQueue> reads_ ABSL_GUARDED_BY(mutex_);  // one a lower tier
  std::map<uint64_t, Ticket> tickets_ ABSL_GUARDED_BY(mutex_);
  // Operations that wait for others' flights; few, walked by Tick.
  std::vector<std::shared_ptr<Operation>> waiting_ ABSL_GUARDED_BY(mutex_);
  uint32_t stale_cursor_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t stale_rounds_ ABSL_GUARDED_BY(mutex_) = 0;  // sweeps still to do after a clear
  std::vector<DyingSlab> dying_memory_ ABSL_GUARDED_BY(mutex_);
  KeepBook keep_ ABSL_GUARDED_BY(mutex_);
  std::vector<Outlet> outlets_ ABSL_GUARDED_BY(mutex_);  // one a shared tier
  absl::Duration look_at_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<BlockId, LocalWrite> local_writes_ ABSL_GUARDED_BY(mutex_);
  std::deque<BlockId> local_queue_ ABSL_GUARDED_BY(mutex_);  // of them those that have not begun
  uint32_t local_running_ ABSL_GUARDED_BY(mutex_) = 0;
  // Committed blocks that will be written when there is time, with their serials; not locked.
  std::deque<std::pair<BlockId, uint32_t>> committed_ ABSL_GUARDED_BY(mutex_);
  std::deque<RoomRequest> room_waiters_ ABSL_GUARDED_BY(mutex_);
  LocalBudget local_budget_ ABSL_GUARDED_BY(mutex_);
  // Until then nothing is offered to the local tier for eviction's sake: it has just refused.
  absl::Duration refused_until_ ABSL_GUARDED_BY(mutex_);
  WriteOutcome refusal_ ABSL_GUARDED_BY(mutex_) = WriteOutcome::kWritten;
  std::vector<std::shared_ptr<FlushOperation>> flushes_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<EvictOperation>> evicts_ ABSL_GUARDED_BY(mutex_);
  // What lower tiers may still find although a Delete has begun; how many Deletes name it.
  absl::flat_hash_map<std::string, uint32_t> deleting_ ABSL_GUARDED_BY(mutex_);
  GenerationBook generations_ ABSL_GUARDED_BY(mutex_);
  PrivateBook private_ ABSL_GUARDED_BY(mutex_);
  EventBook events_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t payload_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t regions_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t region_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  double read_rate_ ABSL_GUARDED_BY(mutex_) = 0;
  double write_rate_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t steal_turn_ ABSL_GUARDED_BY(mutex_) = 0;
  StoreCounters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
