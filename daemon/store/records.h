// What the store keeps besides blocks: tenants, scopes, pools, sessions, leases, holds, regions,
// tickets, operations. Plain records; all guarded by the store's lock unless a field says
// otherwise.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "tiers/dram/slab_directory.h"
#include "tiers/os/file_system.h"
#include "tiers/placement/eviction_policy.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/vocab/deferred_calls.h"

namespace terrace {

// Blocks of one tenant and slot size: the domain of one eviction policy.
struct Pool {
  TenantId tenant{0};
  uint64_t slot_bytes = 0;
  std::unique_ptr<EvictionPolicy> policy;
  uint32_t written_ahead = 0;  // evictions until the next victims are looked at again
};

struct Namespace {
  TenantId tenant{0};
  NamespaceRecord record;
  Digest128 digest;
  Digest128 family;
  uint64_t generation = 1;
  std::optional<PublishWhen> publish;  // by a rule; nullopt: as for the tenant
  bool removed_from = false;           // cleared, or some of it deleted, in this life
  bool noted = false;                  // in the directory of what is kept
  // Cleared while a pool's generation could not be known.
  bool cleared_blindly = false;
  // The last generation that this node raised itself; no clear after it is known while it is the
  // present one.
  uint64_t own_clear = 0;
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  // Of a private one; see private_namespaces.cc.
  uint32_t openers = 0;  // sessions that are not forgotten
  bool stays = false;    // opened without a session
  // What names it by its number, or will again by its digest.
  uint32_t scopes = 0;
  uint32_t deletes = 0;
};

// (namespace, generation, salt). Lives while blocks or operations use it.
struct Scope {
  NamespaceId ns{0};
  uint64_t generation = 0;
  std::string salt;
  uint64_t users = 0;
  uint64_t name_seed = 0;  // of its blocks' names for policies
  bool noted = false;      // in the directory of what is kept
};

struct ScopeName {
  NamespaceId ns{0};
  uint64_t generation = 0;
  std::string salt;
  friend bool operator==(const ScopeName&, const ScopeName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const ScopeName& n) {
    return H::combine(std::move(h), static_cast<uint32_t>(n.ns), n.generation, n.salt);
  }
};

struct Tenant {
  std::string alias;
  uint64_t guaranteed_bytes = 0;
  uint64_t limit_bytes = 0;
  std::optional<PublishWhen> publish;  // nullopt: as each tier's policy says
  // Bits 1 << PublishWhen: what rules say of some of its namespaces, or said earlier.
  uint8_t ruled = 0;
  uint64_t used_bytes = 0;
  uint64_t blocks = 0;
  uint64_t leased_bytes = 0;
  uint64_t pinned_bytes = 0;
  uint64_t in_place_bytes = 0;  // slots of blocks that the front reads in place
  uint32_t sessions = 0;
  uint32_t holds = 0;
  uint32_t tickets = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;
  std::map<uint64_t, uint16_t> pools;  // by slot bytes
  absl::flat_hash_map<Digest128, NamespaceId> namespaces;
};

// Of a client's memory: `users` counts operations whose copies may touch it.
struct MemoryUse {
  uint32_t users = 0;
  std::vector<std::function<void()>> when_idle;
};

// Shared by the session's table and the operations that use it.
struct Region {
  uint32_t id = 0;
  GuardedRegion memory;
  RegionGeometry geometry;
  uint64_t payload_bytes = 0;
  bool read_only = false;
  bool counted_failed = false;
  MemoryUse use;
  std::shared_ptr<MemoryUse> session_use;  // owners: the session and all regions that it had
};

struct Operation;

struct StoreSession {
  TenantId tenant{0};
  bool lease_right = false;
  bool closed = false;
  uint64_t leased_bytes = 0;
  absl::flat_hash_set<Digest128> leases;
  absl::flat_hash_set<Digest128> holds;
  absl::flat_hash_set<SlabId> mapped;
  std::map<uint32_t, std::shared_ptr<Region>> regions;
  std::shared_ptr<MemoryUse> memory_use = std::make_shared<MemoryUse>();  // see Region::session_use
  std::map<uint64_t, std::shared_ptr<Operation>>
      operations;  // by call id, those that can be cancelled
  absl::flat_hash_set<NamespaceId> private_namespaces;  // that it opened
};

// Private namespaces on their way out, and what is left of those that are gone.
struct PrivateBook {
  absl::flat_hash_set<NamespaceId> going;
  absl::Duration look_again_at;                 // for their blocks
  std::vector<NamespaceId> free;                // numbers
  absl::flat_hash_set<Digest128> removed_from;  // as Namespace has it
  uint64_t forgotten = 0;
};

struct Lease {
  SessionId session = kNoSession;
  TenantId tenant{0};
  std::vector<BlockId> blocks;  // by position in the reply; kNoBlock: not delivered or given up
  uint64_t live = 0;
};

struct Hold {
  SessionId session = kNoSession;
  TenantId tenant{0};
  absl::Duration expiry;
  std::vector<BlockId> blocks;
};

// The bytes of a get or put that the calling thread copies itself: at most.
inline uint64_t CopiedByCaller(const BlockStoreOptions& options, bool alone) {
  constexpr uint64_t kBesideOthers = uint64_t{128} << 10;
  return alone ? options.copied_by_caller : std::min(options.copied_by_caller, kBesideOthers);
}

// A get or put between its call and its done. Shared by the jobs that work on it and the tables
// that wait for it.
struct Operation {
  enum class Kind : uint8_t { kGet, kPut };
  explicit Operation(Kind operation_kind) : kind(operation_kind) {}
  const Kind kind;
  Caller caller;
  uint64_t call_id = 0;
  absl::Duration deadline;
  uint32_t waiting = 0;     // flights of others, and writes to lower tiers, that it waits for
  bool dispatched = false;  // delivery or copying has begun
  bool ended = false;
  std::vector<std::function<void(bool)>> on_end;
  std::vector<std::shared_ptr<Region>> regions;
  // Lock-free: read and advanced by jobs while they copy.
  std::atomic<bool> cancelled{false};
  std::atomic<uint32_t> next{0};
  absl::Duration copy_began;
  std::atomic<uint64_t> copied_bytes{0};
};

struct GetTarget {
  BlockId block = kNoBlock;
  bool locked = false;
  uint32_t position = 0;  // in the reply
  const Region* region = nullptr;
  uint32_t region_block = 0;
  const char* source = nullptr;
  uint32_t payload_bytes = 0;
  uint8_t tier = 0;  // where the block was found; 0: DRAM
  uint64_t inline_offset = 0;
  Digest128 checksum;
  GetOutcome outcome = GetOutcome::kMiss;  // by std::atomic_ref while slices of it are copied
};

// What one copy takes: a target's payload, or a part of it where few blocks are wanted, so that the
// copy threads share them.
struct GetSlice {
  uint32_t target = 0;
  uint64_t begin = 0;
  uint64_t bytes = 0;
  bool verify = false;  // never of a part: the hash is that of the whole
};

// A block from an earlier life that a get has to verify before anything of it is delivered.
struct GetCheck {
  uint32_t target = 0;
  absl::Span<const char> payload;
  Digest128 checksum;
  bool right = false;
};

struct GetOperation : Operation {
  GetOperation() : Operation(Kind::kGet) {}
  GetCall call;
  GetResult result;
  std::vector<GetTarget> targets;  // one a key
  std::vector<GetSlice> slices;    // what is to be copied; Operation::next counts these
  std::atomic<uint32_t> slices_left{0};
  std::vector<GetCheck> checks;
  bool checked = false;
  std::atomic<uint32_t> next_check{0};
  std::atomic<uint32_t> checks_left{0};
  uint64_t copied_by_caller = 0;  // at most; 0: the call has returned
  std::function<void(absl::StatusOr<GetResult>)> done;
};

struct PutTarget {
  BlockId block = kNoBlock;
  uint32_t position = 0;
  uint32_t payload_bytes = 0;
  const char* inline_source = nullptr;
  uint32_t region_block = 0;
  bool committed = false;
  absl::Duration give_up = absl::InfiniteDuration();  // on waiting for a slot; set by the first try
};

inline constexpr uint32_t kNoTarget = UINT32_MAX;  // of a put

// A put is stored first, and then published, written and synced as far as it waits for that.
enum class PutStage : uint8_t { kStoring, kPublishing, kWriting, kSyncing };

struct PutOperation : Operation {
  PutOperation() : Operation(Kind::kPut) {}
  PutStage stage = PutStage::kStoring;
  PutCall call;
  PutResult result;
  ScopeId scope{0};
  const Region* region = nullptr;
  BlockId parent = kNoBlock;
  GrowthTicket growth;
  std::atomic<uint32_t> jobs{0};                       // that have not ended
  std::atomic<uint32_t> declined_from{UINT32_MAX};  // the first position that was not let in
  std::vector<BlockId> chain;  // per key: the block that it names, kNoBlock when it is not stored
  std::vector<PutTarget> targets;  // what this put has to copy
  std::function<void(absl::StatusOr<PutResult>)> done;
};

// Several writes to lower tiers that somebody waits for together.
struct WriteBarrier {
  uint32_t left = 0;
  uint32_t failed = 0;
  WriteOutcome failure = WriteOutcome::kWritten;  // the last one
  std::function<void(DeferredCalls&)> all_ended;  // under the store's lock, when `left` falls to 0
};

// Who wants to know how the write of a block ended: a put, or a barrier (whose owners are these
// waiters and the operation that made it). With neither, nobody is told; `awaited` then says
// whether a put will come to wait.
struct WriteWaiter {
  std::shared_ptr<PutOperation> put;
  uint32_t position = 0;  // of the put's key
  std::shared_ptr<WriteBarrier> barrier;
  Awaited awaited = Awaited::kNo;
};

// A request to a lower tier and the text that it borrows.
struct OwnedWrite {
  WriteRequest request;
  std::string salt;
  std::string key;
  std::string parent;
  AlignedBuffer copy;  // of a slot that may not be written to, or is not verified

  // Makes `copy` and writes that instead. False: the payload is not what it was.
  bool CopyVerified();
  // To be called where it lies, before it is handed over.
  void Borrow() {
    request.identity.salt = salt;
    request.identity.key = key;
    request.parent = parent;
  }
};

// Names the publication that a shared tier answers for. Shared by the callbacks of one call.
struct PublicationEnd {
  size_t outlet = 0;
  std::string name;
  uint64_t publication = 0;
};

// Names an identity among those that are being deleted, and published.
std::string LocalName(const BlockIdentity& identity);

// A block on its way to the local tier; locked meanwhile.
struct LocalWrite {
  bool running = false;  // else queued
  std::vector<WriteWaiter> waiters;
};

// How a block that needs a slot fares: kMakeMemory and kTakeSlab are to be done without the lock.
enum class Room : uint8_t {
  kSlot,
  kMakeMemory,
  kTakeSlab,
  kRenewSlab,
  kQuota,
  kDeclined,
  kWait,
  kNone
};
enum class Taking : uint8_t { kTaken, kWait, kNone };  // of a slab
enum class Whose : uint8_t { kAnyones, kOwnKept };     // kOwnKept: of an earlier life

// What a block that needs a slot waits with while victims are written.
struct RoomRequest {
  absl::Duration give_up;        // from then on a victim is not written any more, but lost
  std::function<void()> resume;  // handed to the executor when it is worth trying again
};

// A Flush between its call and its done. Shared by the table of flushes and the callbacks of its
// writes.
struct FlushOperation {
  TenantId tenant{0};
  Level level = Level::kLocalWritten;
  absl::Duration deadline;
  bool to_pool = false;  // else to the local tier
  uint32_t cursor = 0;   // the next block to look at
  bool scanned = false;
  bool syncing = false;
  bool ended = false;
  std::shared_ptr<WriteBarrier> writes;
  std::function<void(absl::Status)> done;
};

// An operator's Evict between its call and its done; shared like a FlushOperation.
struct EvictOperation {
  std::optional<TenantId> only;
  uint64_t target_used_bytes = 0;
  EvictResult result;
  bool slice_queued = false;  // with the executor
  bool ended = false;
  std::function<void(absl::StatusOr<EvictResult>)> done;
};

// A ClearNamespace between its call and its done. Shared by the tables that wait for a tier.
struct ClearProgress {
  TenantId tenant{0};
  Digest128 digest;
  uint64_t generation = 0;
  bool local_left = false;  // the local tier has not answered
  bool local_failed = false;
  uint8_t outlets_left = 0;  // a bit an outlet that has not answered
  absl::Duration give_up;    // on waiting for those
  std::function<void(absl::StatusOr<ClearedNamespace>)> done;
};

// A generation on its way to the local tier. `clear` is nullptr where nobody waits for it.
struct GenerationNote {
  Digest128 digest;
  uint64_t generation = 0;
  std::shared_ptr<ClearProgress> clear;
};

// What outlives the process.
struct KeepBook {
  std::unique_ptr<SlabDirectory> directory;     // nullptr: nothing does
  absl::flat_hash_map<SlabId, uint32_t> slabs;  // by number; index in the directory
  absl::flat_hash_set<SlabId> held;             // clients of an earlier life may still read in them
  absl::flat_hash_set<SlabId> emptied;          // of earlier lives, to be retired
  absl::Duration last_renewal;                  // when a slab of an earlier life was last emptied
  uint64_t recovered_slabs = 0;
  uint64_t recovered_blocks = 0;
  uint64_t recovered_bytes = 0;
  uint64_t dropped_blocks = 0;
};

// Memory on its way back to the system; `serial` 0: nobody keeps it.
struct DyingSlab {
  std::unique_ptr<SlabMemory> memory;
  uint64_t serial = 0;
};

// Which generations are above 1, and who is still to be told.
struct GenerationBook {
  absl::flat_hash_map<Digest128, uint64_t> noted;
  std::vector<std::shared_ptr<ClearProgress>> clearing;
  std::deque<GenerationNote> notes;                  // the first one is under way
  absl::flat_hash_map<Digest128, uint64_t> unnoted;  // raised, not durable
  absl::Duration retry_at;                           // of the latter
};

// A Delete that lower tiers still work on. Shared by the callbacks of its calls.
struct DeleteOperation {
  std::vector<std::string> names;  // of LocalName; none where nothing is written below DRAM
  uint64_t generation = 0;
  StorePart part;
  BlockStore::DeleteResult result;
  std::shared_ptr<WriteBarrier> writes;  // of its blocks that were under way
  uint32_t left = 0;                     // calls of the tiers
  std::string failed_tier;               // "": none
  std::function<void(absl::StatusOr<BlockStore::DeleteResult>)> done;
};

struct Ticket {
  TenantId tenant{0};
  SessionId session = kNoSession;
  TicketResult result;
  absl::Duration deadline;
  absl::Duration ended_at;
  uint32_t waiting = 0;
  Digest128 hold_id;
  struct Waiter {
    absl::Duration until;
    std::function<void(absl::StatusOr<TicketResult>)> done;
  };
  std::vector<Waiter> waiters;
};

// Who wants to know how the filling of a block ended.
struct FlightWaiter {
  std::shared_ptr<GetOperation> get;
  std::shared_ptr<PutOperation> put;
  uint64_t ticket = 0;
  uint32_t index = 0;  // of the target or key
};

// Reads from one lower tier, so that one which hangs keeps no other's waiting.
struct ReadQueue {
  std::vector<std::pair<Priority, BlockId>> waiting;  // sorted: best last
  uint32_t running = 0;
  uint64_t bytes = 0;  // of those that wait and run

  // Behind those that wait with the same priority.
  void Add(BlockId block, Priority priority) {
    const auto at =
        std::upper_bound(waiting.begin(), waiting.end(), priority,
                         [](Priority wanted, const auto& entry) { return wanted <= entry.first; });
    waiting.insert(at, {priority, block});
  }
  // As if it had been added with this priority; nothing where it does not wait.
  void Raise(BlockId block, Priority priority) {
    const auto found = std::find_if(waiting.begin(), waiting.end(),
                                    [block](const auto& entry) { return entry.second == block; });
    if (found != waiting.end() && found->first < priority) {
      waiting.erase(found);
      Add(block, priority);
    }
  }
};

// A block being filled, by a put or by a read from a lower tier.
struct Flight {
  std::vector<FlightWaiter> waiters;
  bool is_read = false;
  uint32_t tier = 0;  // index into the lower tiers
  LowerBlock lower;
  Priority priority = Priority::kNormal;
  uint64_t read_token = 0;
  absl::Duration give_up = absl::InfiniteDuration();  // on waiting for a slot; set by the first try
  bool reading = false;
  bool cancel_wanted = false;
  bool for_return = false;  // nobody has asked for it yet
};

// A block as a probe saw it: by the time that it is touched the id may name another.
struct SeenBlock {
  BlockId id = kNoBlock;
  uint32_t serial = 0;
  uint32_t payload_bytes = 0;
  uint32_t key = 0;  // its position in the part
};

}  // namespace terrace
