// What a BlockStore says of itself to metrics and operators (BlockStore::Usage, Tenants,
// Namespaces, Explain, Evict, Verify).
//
// Values, each of one moment.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"
#include "tiers/placement/load_advice.h"
#include "tiers/placement/write_budget.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/shared/shared_tier.h"
#include "tiers/vocab/namespace_record.h"
#include "tiers/vocab/outcome.h"

namespace terrace {

// DRAM and the tiers below it.
inline constexpr uint32_t kMaxTiers = 16;

// What became of a return that an engine told of.
enum class ReturnEnd : uint8_t {
  kFetched = 0,    // what had left DRAM was asked of the tiers below
  kResident = 1,   // nothing had left DRAM that is worth loading
  kOvertaken = 2,  // its chain grew, or its conversation ended, before
  kLate = 3,       // the tiers were busy until it was too late
  kRefused = 4,    // too many are expected
};
inline constexpr size_t kReturnEnds = 5;

// What happened, as counters since start; read by metrics and Status. Arrays are indexed by the
// enum's value.
struct StoreCounters {
  std::array<uint64_t, 9> get_outcomes{};
  std::array<uint64_t, 5> put_outcomes{};
  std::array<uint64_t, 14> put_reasons{};
  uint64_t probe_keys = 0;
  uint64_t probe_hits = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_copied_out = 0;
  uint64_t bytes_leased = 0;
  uint64_t evictions = 0;
  uint64_t evicted_bytes = 0;
  uint64_t corrupt = 0;
  uint64_t verified_on_get = 0;
  uint64_t prefetch_arrived = 0;
  uint64_t prefetch_failed = 0;
  std::array<uint64_t, kReturnEnds> returns{};  // that were expected, by what became of them
  // Payload read before anybody asked for it, because a return was expected.
  uint64_t return_bytes = 0;
  uint64_t return_bytes_used = 0;    // of it, by gets, probes and puts
  uint64_t return_bytes_wasted = 0;  // of it, what left DRAM unused
  uint64_t single_flight_joined = 0;
  uint64_t slabs_recut = 0;
  uint64_t slabs_retired = 0;
  uint64_t regions_failed = 0;
  std::array<uint64_t, kMaxTiers>
      tier_hits{};                            // keys that gets delivered, by where they were found
  uint64_t local_writes = 0;                  // blocks written to the local tier
  uint64_t local_write_bytes = 0;             // of payload
  std::array<uint64_t, 10> local_refusals{};  // blocks that the local tier did not take, by outcome
  // Blocks that no tier holds any more because the local one did not take them before their
  // eviction, by its outcome; [0]: they are too large for it.
  std::array<uint64_t, 10> local_losses{};
  uint64_t room_waits = 0;  // times that a block had to wait for a victim's write
  uint64_t events = 0;      // that were told to watchers, snapshots included
  uint64_t event_gaps = 0;  // of them, that events were lost
  std::array<uint64_t, 24>
      eviction_age_log2_s{};  // [i]: evicted at an age below 2^i seconds since last touch
};

struct TenantUsage {
  std::string alias;
  uint64_t used_bytes = 0;  // slots, rounding included
  uint64_t guaranteed_bytes = 0;
  uint64_t limit_bytes = 0;  // 0: none
  uint64_t blocks = 0;
  uint64_t leased_bytes = 0;
  uint64_t pinned_bytes = 0;
  uint32_t sessions = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;
};

struct NamespaceUsage {
  std::string tenant;
  NamespaceRecord record;
  Digest128 digest;
  Digest128 family;
  uint64_t generation = 1;
  uint64_t blocks = 0;
  uint64_t bytes = 0;
};

// Why a block was not published.
enum class PublishDrop : uint8_t {
  kEvicted = 0,    // before its turn came
  kQueueFull = 1,  // max_queue blocks waited already
  kBusy = 2,       // the pool's own queue was full, several times
  kFault = 3,
  kSuspended = 4,  // the pool was not there when the block's time ended
  kTooLarge = 5,
  kCleared = 6,
  kDeleted = 7,
  kNoSpace = 8,
  kDeadline = 9,
  kClosed = 10,
};
inline constexpr size_t kPublishDrops = 11;

struct SharedTierUsage {
  std::string name;
  SharedTierFigures figures;
  std::vector<PoolNodeView> nodes;
  uint64_t queued = 0;      // blocks that wait for their turn to be published
  uint64_t publishing = 0;  // that the pool has taken, and has not answered for
  uint64_t published = 0;
  uint64_t already_there = 0;  // when their turn came
  std::array<uint64_t, kPublishDrops> drops{};
  uint64_t unraised_generations = 0;  // that the pool could not be told yet
  uint64_t hits = 0;                  // keys that gets delivered from it
};

struct LocalTierUsage {
  std::string name;
  SegmentTierFigures figures;
  ScrubProgress scrub;
  std::vector<DriveView> drives;  // in the order of the configuration
};

// Of writes to the local tier; all 0 where there is none.
struct LocalBudgetUsage {
  uint64_t bytes_per_day = 0;                  // 0: no limit
  double saved_up_bytes = 0;                   // below 0: to be paid back
  double price_seconds_per_byte = 0;           // 0: slack
  std::array<uint64_t, kAdmissions> judged{};  // blocks, by Admission
};

// What came from earlier lives of the process.
struct KeptUsage {
  uint64_t blocks = 0;          // that were there at the start
  uint64_t bytes = 0;           // of their payload
  uint64_t slabs = 0;           // that hold such blocks still, or wait to be given back
  uint64_t dropped_blocks = 0;  // that were known and could not be had
  uint64_t held_bytes = 0;      // of slabs that clients of the life before may still read in
};

struct StoreUsage {
  KeptUsage kept;
  uint64_t blocks = 0;
  uint64_t payload_bytes = 0;
  uint64_t used_slot_bytes = 0;
  uint64_t capacity_bytes = 0;
  uint64_t assigned_slabs = 0;
  uint64_t free_slabs = 0;
  PageKind page_kind = PageKind::kSmall;
  uint64_t sessions = 0;
  uint64_t leased_blocks = 0;
  uint64_t leased_bytes = 0;
  uint64_t quarantined_bytes = 0;
  uint64_t holds = 0;
  uint64_t regions = 0;
  uint64_t region_bytes = 0;
  uint64_t tickets = 0;
  uint64_t watchers = 0;
  uint64_t event_bytes = 0;  // of events that are kept for them
  uint64_t calls_in_flight = 0;
  uint64_t read_bytes_per_s = 0;  // moving averages; 0: not measured yet
  uint64_t write_bytes_per_s = 0;
  uint64_t metadata_bytes = 0;  // index, block metadata and placement
  uint64_t local_writes_in_flight = 0;
  uint64_t waiting_for_room = 0;         // blocks that wait for a victim to be written
  std::vector<TierCost> costs;           // of lower tiers, nearest first
  uint64_t recompute_spans = 0;          // that told what it takes to compute
  uint64_t recompute_spans_refused = 0;  // and that did not, as absurd or mixed with other work
  std::vector<LocalTierUsage> local_tiers;
  LocalBudgetUsage local_budget;
  std::vector<SharedTierUsage> shared_tiers;
  StoreCounters counters;
};

struct Explanation {
  KeyState state = KeyState::kMiss;
  std::string tier;
  uint64_t payload_bytes = 0;
  uint64_t generation = 0;
  SlabId slab{0};
  uint64_t slab_offset = 0;
  uint32_t leases = 0;
  uint32_t holds = 0;
  bool pinned = false;
  absl::Duration age;
  absl::Duration idle;
  uint64_t eviction_rank = 0;
  uint64_t first_token = 0;
  std::string text;
};

struct EvictResult {
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  uint64_t used_bytes = 0;
};
struct VerifyResult {
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  uint64_t corrupt = 0;
};

}  // namespace terrace
