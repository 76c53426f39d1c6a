// BlockStore: the deep module. It joins index, DRAM arena, placement and lower tiers into one
// asynchronous store, and owns leases, holds, pins, tickets, regions and quotas. It knows nothing
// of gRPC, sockets, protobuf or configuration files.
//
// Promises (DESIGN.md section 1): a block becomes visible only when its bytes are complete and
// hashed (P0); what a get delivers stays until its lease ends (P1); callers see only their tenant
// (P2); nothing blocks and everything has a deadline (P3); the end of a session gives back
// everything that it held (P4).
//
// Threads: thread-safe. No call blocks. `done` callbacks run on the calling thread or on a thread
// of the executor, never under a lock of the store; they must only hand work on. Times are on the
// injected clock; Tick() makes time pass for holds, tickets, pins and deadlines of waiting calls,
// and must be called at least every 50 ms.
//
// What it does not promise: order between concurrent calls; that a STORED block is still there
// later without a hold.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "daemon/dram_keeper.h"
#include "daemon/learnt_policy.h"
#include "daemon/store_events.h"
#include "daemon/store_usage.h"
#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/fault_guard.h"
#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/load_advice.h"
#include "tiers/placement/write_budget.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/shared/shared_tier.h"
#include "tiers/vocab/block_key.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"
#include "tiers/vocab/lower_tier.h"
#include "tiers/vocab/namespace_record.h"
#include "tiers/vocab/outcome.h"
#include "tiers/vocab/region_geometry.h"

namespace terrace {

inline constexpr uint32_t kMaxKeysPerCall = 16384;
inline constexpr uint32_t kMaxPartsPerCall = 64;
inline constexpr uint64_t kMaxInlineBytes = uint64_t{3} << 20;
inline constexpr absl::Duration kMaxHold = absl::Minutes(10);

// Who calls. The tenant comes from the authenticated peer, the session from the socket (kNoSession
// over gRPC).
struct Caller {
  TenantId tenant{0};
  SessionId session = kNoSession;
};

// One namespace's share of a request; owns its bytes, so that it may outlive the message that it
// came from. Its envelope (sizes, counts) has been checked by the caller; single keys need not be.
struct StorePart {
  Digest128 namespace_digest;
  std::string salt;
  Rule rule = Rule::kPrefix;
  uint32_t key_bytes = 32;
  std::string keys;  // end to end; a multiple of key_bytes
  uint64_t first_token = 0;
  std::vector<uint32_t> end_tokens;  // empty, or one a key, rising
  uint32_t window_tokens = 0;

  [[nodiscard]] uint32_t key_count() const {
    return static_cast<uint32_t>(keys.size() / key_bytes);
  }
  [[nodiscard]] KeyView key(uint32_t i) const {
    return KeyView(keys).substr(size_t{i} * key_bytes, key_bytes);
  }
};

struct OpenedNamespace {
  Digest128 digest;
  Digest128 family;
  uint64_t generation = 1;
  bool pending = false;  // as of ClearedNamespace
};

struct ClearedNamespace {
  uint64_t generation = 1;
  bool pending = false;  // not every node of a pool is known to have learned of this generation
};

struct ProbeCall {
  std::vector<StorePart> parts;
  std::string request_id;
  absl::Duration hold;  // zero: none
  bool prefetch = false;
  Priority priority = Priority::kNormal;
};
struct ProbeResult {
  std::string states;  // a byte a key: KeyState | tier index << 4
  std::vector<uint32_t> part_hits;
  std::vector<uint32_t> part_boundary_keys;
  uint64_t boundary_tokens = 0;
  absl::Duration load_time;
  absl::Duration recompute_time;  // of what lies under the boundary; zero: not known
  uint64_t worth_tokens = 0;      // the boundary up to which loading saves most time
  uint64_t hit_bytes = 0;
  Digest128 hold_id;  // zero: none
  absl::Duration hold;
  uint64_t ticket = 0;
};

struct PrefetchCall {
  std::vector<StorePart> parts;
  Priority priority = Priority::kNormal;
  absl::Duration deadline;  // absolute, on the clock
  absl::Duration hold;
};
struct PrefetchResult {
  uint64_t ticket = 0;
  uint32_t keys_moving = 0;
  uint32_t keys_ready = 0;
  uint32_t keys_missing = 0;
  Digest128 hold_id;
};
enum class TicketState : uint8_t { kRunning = 1, kDone = 2, kCancelled = 3, kExpired = 4 };
struct TicketResult {
  TicketState state = TicketState::kRunning;
  uint32_t keys_total = 0;
  uint32_t keys_arrived = 0;
  uint32_t keys_failed = 0;
  uint64_t bytes_arrived = 0;
};

// kInPlace is for the daemon itself: the front sends payloads larger than a message piece by piece,
// and the workers of GPUs copy from where they lie.
enum class Delivery : uint8_t { kInline = 1, kLease = 2, kRegion = 3, kInPlace = 4 };

struct RegionBlocks {
  uint32_t region_id = 0;
  std::vector<uint32_t> block_indexes;  // one a key
};
struct GetCall {
  std::vector<StorePart> parts;
  Delivery delivery = Delivery::kInline;
  std::vector<RegionBlocks> regions;  // kRegion: one a part
  Digest128 hold_id;                  // zero: none
  bool wait_pending = false;
  absl::Duration deadline;  // absolute, on the clock
  uint64_t call_id = 0;     // for Cancel; unique in the session; 0: cannot be cancelled
  bool alone = false;       // nobody else waits: see BlockStoreOptions::copied_by_caller
  bool sampled = false;     // kInPlace: only a share is verified, see verify_one_in
};
struct GetResult {
  std::string outcomes;  // a byte a key: GetOutcome
  std::vector<uint32_t> payload_bytes;
  Digest128 lease_id;
  std::vector<uint32_t> slab_ids;
  std::vector<uint64_t> slab_offsets;
  std::string payload;
  // kInPlace: where the payloads lie (if `sampled`, slab_ids and slab_offsets say it too; if not,
  // every byte was verified for this very call); empty where not OK. They stay, as they are, while
  // `reading` lives: its last owner gives the blocks back, before the store is destroyed, and takes
  // its lock. Blocks being read in place are at most lease_share of the tenant's DRAM, then BUSY.
  std::vector<absl::Span<const char>> in_place;
  std::shared_ptr<const void> reading;
};

struct LeaseRelease {
  Digest128 lease_id;
  std::vector<uint32_t> key_positions;  // empty: all
};
struct ReleaseResult {
  uint32_t released = 0;
  uint32_t not_found = 0;
};

struct PutCall {
  StorePart part;
  std::string parent;                   // "": none
  std::vector<uint32_t> payload_bytes;  // one a key
  RegionBlocks region;                  // region_id 0: inline
  std::string payload;                  // inline
  // Where the payloads lie, one a key, in the place of both; untouched by others until `done`.
  // nullptr: there is none, because the block is thought to be held (InDram); FAILED with kInvalid
  // if it is not.
  std::vector<const char*> in_place;
  std::vector<BlockMetadata> metadata;  // none, or one a key; for watchers (see IsWatched)
  RequestHints hints;                   // of the request that the blocks belong to
  Level wait_for = Level::kDram;
  absl::Duration deadline;
  uint64_t call_id = 0;
  bool alone = false;           // as of a get
  absl::Duration compute_time;  // of all of its blocks, as the engine says; zero: it does not
};
struct PutResult {
  std::string outcomes;  // a byte a key: PutOutcome
  std::string reasons;   // a byte a key: Reason
  std::string levels;    // a byte a key: Level
};

struct PinResult {
  std::string reasons;  // a byte a key: Reason
  uint64_t pinned_bytes = 0;
  uint64_t budget_bytes = 0;
};

// Upcalls. They run without a lock of the store and must only hand work on.
class StoreObserver {
 public:
  virtual ~StoreObserver() = default;
  virtual void SlabRetired(SessionId session, SlabId slab) = 0;
};

enum class LocalWrites : uint8_t { kOnEviction = 0, kOnCommit = 1 };

// When a block is published to a shared tier, beside what puts and Flush ask for. What the tier
// holds, and what came from it, is not published.
enum class PublishWhen : uint8_t {
  kOnCommit = 0,
  kOnReuse = 1,     // when it is asked for after its put
  kOnEviction = 2,  // from DRAM
  kNever = 3,
};

// What holds for the namespaces that match, whatever their tenant and the tiers say. Of each thing
// the first rule counts that matches and says it.
struct NamespaceRule {
  std::string tenant;  // alias; "": of every tenant
  std::string model;   // of the namespace's record; a pattern of glob(7) in which * goes beyond "/"
  std::optional<PublishWhen> publish;
  std::optional<RecomputeModel> recompute = std::nullopt;  // what it takes to compute their blocks
};

struct SharedTierPolicy {
  PublishWhen publish = PublishWhen::kOnCommit;
  uint64_t max_payload_bytes = uint64_t{16} << 20;  // larger blocks are not published; 0: any
  uint32_t max_queue = uint32_t{1} << 18;           // blocks that wait for their turn
};

struct BlockStoreOptions {
  uint64_t dram_bytes = uint64_t{1} << 30;
  std::string policy = "phl";  // see MakeEvictionPolicy
  uint32_t verify_one_in =
      64;                   // region and inline gets re-check this share of blocks; 1: all, 0: none
  double pin_share = 0.25;  // of the tenant's DRAM
  double lease_share = 0.25;  // of the tenant's DRAM, a session
  uint32_t max_tenants = 64;
  uint32_t max_namespaces_per_tenant = 1024;
  uint32_t max_scopes_per_tenant =
      65536;  // namespaces x salts; the least used without blocks is forgotten first
  uint32_t max_holds_per_tenant = 16384;
  uint32_t max_regions_per_session = 64;
  uint32_t max_tickets_per_tenant = 4096;
  // Gets and puts of so much are copied by the thread that calls, where nobody else waits; beside
  // others, those of at most 128 KiB: to hand a copy on costs a wake-up. 0: the executor copies all.
  uint64_t copied_by_caller = uint64_t{2} << 20;
  // Whether chains that left DRAM are read again shortly before their engine said that they return.
  bool fetch_returns = true;
  // When a block is written to the local tier, beside what puts and Flush ask for.
  LocalWrites local_writes = LocalWrites::kOnEviction;
  // Larger blocks stay in DRAM; 0: any.
  uint64_t local_max_payload_bytes = uint64_t{16} << 20;
  // Bytes that may be written to the local tier a day, all that is written included; beyond that,
  // what is worth it goes first (tiers/placement/local_admission.h). What puts and Flush wait for
  // is written in any case, and taken off. 0: no limit.
  uint64_t local_endurance_per_day = 0;
  // For so long it is saved up what was not written.
  absl::Duration local_endurance_burst = absl::Hours(24);
  // How long a new block waits for the one whose place it takes to be written to the local tier, or
  // published on eviction; after that the latter is lost.
  absl::Duration max_wait_for_room = absl::Milliseconds(100);
  // One a shared tier, in the order of Parts::shared; those that are missing are as by default.
  std::vector<SharedTierPolicy> shared;
};

inline constexpr size_t kMaxSharedTiers = 8;

class BlockStore {
 public:
  // Borrowed objects outlive the store. Makes and touches the arena: blocks for as long as that
  // takes.
  struct Parts {
    const Clock* clock = nullptr;
    Executor* executor = nullptr;  // copies and hashes run here, but for copied_by_caller
    SlabSource* slabs = nullptr;
    // Nullable. Blocks are written to it, and it is the nearest tier below DRAM.
    SegmentTier* local = nullptr;
    // Blocks are published to them; behind the local tier, nearest first. At most kMaxSharedTiers.
    std::vector<SharedTier*> shared;
    std::vector<LowerTier*> lower_tiers;  // read only, behind those; nearest first
    StoreObserver* observer = nullptr;    // nullable
    std::vector<LearntPolicy> learnt;     // from SaveLearnt of an earlier life
    // Nullable: DRAM ends with the process. Blocks of its earlier lives are there from the start;
    // each is verified before it is first delivered, or written to another tier.
    DramKeeper* keeper = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<BlockStore>> Create(const BlockStoreOptions& options,
                                                            const Parts& parts);

  // Waits until nothing is in flight in the executor or a lower tier.
  virtual ~BlockStore() = default;

  // ---- tenants and sessions
  // Idempotent by alias. RESOURCE_EXHAUSTED over max_tenants.
  virtual absl::StatusOr<TenantId> OpenTenant(std::string_view alias) = 0;
  // limit_bytes 0: none. INVALID_ARGUMENT when guarantees exceed capacity or limit < guarantee.
  virtual absl::Status SetQuota(TenantId tenant,
                                uint64_t guaranteed_bytes,
                                uint64_t limit_bytes) = 0;
  // Of namespaces that are open and of those to come. Replaces those before.
  virtual void SetNamespaceRules(std::vector<NamespaceRule> rules) = 0;
  // When the tenant's blocks are published, to whichever shared tier; nullopt: as the tiers'
  // policies say.
  virtual void SetPublishing(TenantId tenant, std::optional<PublishWhen> publish) = 0;
  // leases: the process is known by a pidfd, so leases may be granted.
  enum class LeaseRight : uint8_t { kNone, kProvenByPidfd };
  virtual SessionId OpenSession(TenantId tenant, LeaseRight leases) = 0;
  // The connection is over: holds end, waiting calls are cancelled, regions go as soon as no copy
  // touches them. Leases stay (quarantined) until ProcessGone. `done` when no copy can touch the
  // memory of any region that the session had, even one that is being unregistered; at once when
  // the id is unknown.
  virtual void CloseSession(SessionId session, std::function<void()> done) = 0;
  // The process is proven dead: its leases end. Implies CloseSession.
  virtual void ProcessGone(SessionId session) = 0;
  [[nodiscard]] virtual uint64_t LeaseLimitBytes(SessionId session) const = 0;

  // ---- namespaces
  // A private one (IsPrivate) is forgotten, its blocks with it, some time after the last of the
  // sessions that opened it is over and its process gone; where the latter is not known by a pidfd,
  // after the session. One that somebody opened without a session stays. INVALID_ARGUMENT,
  // RESOURCE_EXHAUSTED; FAILED_PRECONDITION: the digest is another record's.
  virtual absl::StatusOr<OpenedNamespace> OpenNamespace(const Caller& caller,
                                                        const NamespaceRecord& record) = 0;
  absl::StatusOr<OpenedNamespace> OpenNamespace(TenantId tenant, const NamespaceRecord& record) {
    return OpenNamespace(Caller{tenant, kNoSession}, record);
  }
  // `done` gets the new generation, once it outlives the process and a loss of power. The blocks of
  // older ones are misses as soon as the call returns. NOT_FOUND. UNAVAILABLE: cleared, but the
  // local tier could not note it (or, where there is none, a pool), so that a restart may bring the
  // blocks back; clear again. A pool that cannot be told is told later, and the answer is pending
  // then: OpenNamespace says when it is not any more.
  virtual void ClearNamespace(TenantId tenant,
                              const Digest128& digest,
                              std::function<void(absl::StatusOr<ClearedNamespace>)> done) = 0;

  // ---- regions and slabs
  // INVALID_ARGUMENT (geometry), ALREADY_EXISTS (id in use), RESOURCE_EXHAUSTED.
  struct RegionSpec {
    uint32_t region_id = 0;
    GuardedRegion memory;
    RegionGeometry geometry;
    bool read_only = false;
  };
  virtual absl::StatusOr<uint64_t> RegisterRegion(SessionId session, RegionSpec spec) = 0;
  // `done` when no copy can touch the memory; at once when the id is unknown.
  virtual void UnregisterRegion(SessionId session,
                                uint32_t region_id,
                                std::function<void()> done) = 0;
  struct SlabGrant {
    Descriptor descriptor;  // a duplicate
    uint64_t bytes = 0;
  };
  // NOT_FOUND: unknown or another tenant's. FAILED_PRECONDITION: the session has no right to
  // leases.
  virtual absl::StatusOr<SlabGrant> MapSlab(SessionId session, SlabId slab) = 0;
  // The session has it mapped no longer. Unknown: nothing happens.
  virtual void UnmapSlab(SessionId session, SlabId slab) = 0;

  // ---- the data path. Unknown namespaces are misses (get, probe) or a failed call:
  // done gets NOT_FOUND for a put, delete or pin into a namespace that the tenant has not opened.
  virtual void Probe(const Caller& caller,
                     ProbeCall call,
                     std::function<void(ProbeResult)> done) = 0;
  virtual void Prefetch(const Caller& caller,
                        PrefetchCall call,
                        std::function<void(absl::StatusOr<PrefetchResult>)> done) = 0;
  virtual void WaitTicket(const Caller& caller,
                          uint64_t ticket,
                          absl::Duration until,
                          std::function<void(absl::StatusOr<TicketResult>)> done) = 0;
  // FAILED_PRECONDITION: kLease without the right, kRegion over gRPC. NOT_FOUND: region id.
  virtual void Get(const Caller& caller,
                   GetCall call,
                   std::function<void(absl::StatusOr<GetResult>)> done) = 0;
  virtual void Put(const Caller& caller,
                   PutCall call,
                   std::function<void(absl::StatusOr<PutResult>)> done) = 0;
  // Which of the keys a Put would not copy, because they lie in DRAM already: a byte a key, 1 or 0.
  // What lies behind a chain's first gap may be 0. Nothing is touched, and nothing keeps them
  // there.
  virtual std::string InDram(TenantId tenant, const StorePart& part) = 0;
  virtual ReleaseResult Release(const Caller& caller,
                                absl::Span<const LeaseRelease> leases,
                                absl::Span<const Digest128> holds) = 0;
  struct DeleteResult {
    uint32_t deleted = 0;
    uint32_t not_found = 0;
  };
  // The blocks are hidden when the call returns; `done` once that outlives a loss of power, and the
  // other nodes of every pool can learn of it. NOT_FOUND.
  // UNAVAILABLE: hidden, but a tier could not record it: delete again.
  virtual void Delete(const Caller& caller,
                      const StorePart& part,
                      std::function<void(absl::StatusOr<DeleteResult>)> done) = 0;
  // The highest level that puts and Flush can wait for.
  [[nodiscard]] virtual Level HighestLevel() const = 0;
  // `done` when every block of the tenant that was stored before the call has reached the level; of
  // kPool: lies in the first shared tier that takes the tenant's blocks, or is too large for it.
  // UNAVAILABLE: some have not, and why. DEADLINE_EXCEEDED. A level that no tier here offers counts
  // as the highest that one does.
  virtual void Flush(TenantId tenant,
                     Level level,
                     absl::Duration deadline,
                     std::function<void(absl::Status)> done) = 0;
  // ttl zero: until Unpin.
  virtual absl::StatusOr<PinResult> Pin(const Caller& caller,
                                        const StorePart& part,
                                        absl::Duration ttl) = 0;
  virtual absl::StatusOr<uint32_t> Unpin(const Caller& caller, const StorePart& part) = 0;
  // `done(found)` when no copy of it can touch the caller's memory any more.
  virtual void CancelCall(const Caller& caller,
                          uint64_t call_id,
                          std::function<void(bool)> done) = 0;
  virtual void CancelTicket(const Caller& caller,
                            uint64_t ticket,
                            std::function<void(bool)> done) = 0;

  // ---- events
  // Whether anybody of any tenant watches or did within the last minute; false: metadata of puts is
  // of no use. Takes no lock.
  [[nodiscard]] virtual bool IsWatched() const = 0;
  // The tenant's blocks, as they come and go. While nobody watches nothing is recorded: who goes on
  // more than a minute after the tenant's last watcher was gone is told of a gap.
  // RESOURCE_EXHAUSTED: kMaxWatchersPerTenant watch, or kMaxSnapshotsPerTenant snapshots are told.
  virtual absl::StatusOr<std::unique_ptr<StoreWatcher>> Watch(TenantId tenant, WatchCall call) = 0;

  // ---- time, operation
  virtual void Tick() = 0;

  // What the policies have learnt until now. Takes milliseconds, and waits for a lesson that is
  // under way: not for threads that serve clients.
  virtual std::vector<LearntPolicy> SaveLearnt() = 0;
  // While draining, puts are DECLINED with kDraining; gets go on.
  virtual void SetDraining(bool draining) = 0;
  [[nodiscard]] virtual StoreUsage Usage() const = 0;
  // As SharedTier has it; empty: no tier of this name.
  [[nodiscard]] virtual std::vector<PoolSegmentView> ReclaimOrder(std::string_view tier) const = 0;
  [[nodiscard]] virtual std::vector<TenantUsage> Tenants() const = 0;
  [[nodiscard]] virtual std::vector<NamespaceUsage> Namespaces() const = 0;
  virtual absl::StatusOr<Explanation> Explain(std::string_view tenant, const StorePart& part) = 0;
  // tenant "": all. What the local tier takes is written first. `done` when so much is used, or
  // nothing more can go. NOT_FOUND.
  virtual void Evict(std::string_view tenant,
                     uint64_t target_used_bytes,
                     std::function<void(absl::StatusOr<EvictResult>)> done) = 0;
  // Recomputes checksums of everything on the executor; corrupt blocks are dropped.
  virtual void Verify(std::function<void(VerifyResult)> done) = 0;
  // Reads the local tier's sealed segments back; see SegmentTier::Scrub. FAILED_PRECONDITION: there
  // is no local tier.
  virtual void ScrubLocal(ScrubPace pace,
                          std::function<void(absl::StatusOr<ScrubResult>)> done) = 0;
};

}  // namespace terrace
