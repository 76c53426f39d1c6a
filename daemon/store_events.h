// What a tenant's blocks come to lie in and leave, told in order to whoever watches: the events of
// BlockStore::Watch.
//
// A block is told of where it is nearest, and in this node's own tiers alone: DRAM, then the local
// tier. kStored: it was held nowhere before, or was put anew. kMoved: it is nearest elsewhere now:
// evicted from DRAM, it still lies on the local tier; or it was read up. kRemoved: it is held
// nowhere any more. A pool belongs to the whole fleet: what lies only there is told of by nobody,
// and what is read up from it is kStored.
//
// What it promises: the events of a tenant come in the order in which they became true, numbered
// without holes from 1; what was lost is announced by kGap. After the last event of a block, read
// up to the newest, a get finds it where that says, but for what a fault hides and P0 drops.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/namespace_record.h"

namespace terrace {

// What an engine tells of a block for others' sake. It travels with the event, and is not kept.
struct BlockMetadata {
  std::vector<uint32_t> token_ids;
  std::string lora_name;
  std::string extra_keys;
};

// Values as in EventKind of cache.proto.
enum class StoreEventKind : uint8_t {
  kStored = 1,
  kRemoved = 2,
  kMoved = 3,
  kCleared = 4,  // all of the namespace
  kGap = 5,      // up to `sequence` events were lost: only a snapshot tells what is held now
  kSnapshotEnd = 7,
};

struct StoreEvent {
  StoreEventKind kind = StoreEventKind::kStored;
  uint64_t sequence = 0;  // of a snapshot: that as of which it is true
  Digest128 namespace_digest;
  std::string salt;
  uint32_t key_bytes = 0;
  std::string keys;           // end to end; kStored: each is the parent of the next
  std::string parent;         // kStored: of the first key; "": it begins a chain, or is not known
  uint64_t first_token = 0;   // kStored: of the first key
  uint32_t block_tokens = 0;  // kStored
  std::string tier;           // kStored, kMoved: where it is; kRemoved: where it was
  std::vector<BlockMetadata> metadata;  // kStored: none, or one a key

  [[nodiscard]] uint32_t key_count() const {
    return key_bytes == 0 ? 0 : static_cast<uint32_t>(keys.size() / key_bytes);
  }
  // That the event takes in memory, about.
  [[nodiscard]] uint64_t bytes() const;
};

struct WatchedNamespace {
  Digest128 digest;
  Digest128 family;
  NamespaceRecord record;
};

inline constexpr uint32_t kMaxWatchersPerTenant = 16;
inline constexpr uint32_t kMaxSnapshotsPerTenant = 2;  // that are being told
inline constexpr size_t kMaxEventsPerBatch = 256;
// A batch ends with the event that exceeds this; an event has at most 64 KiB, or one block.
inline constexpr uint64_t kEventBatchBytes = uint64_t{1} << 20;

struct WatchCall {
  uint64_t publisher_id = 0;    // 0: from now on; another publisher's: a gap, and then from now on
  uint64_t after_sequence = 0;  // go on behind this event
  // Begin with a kStored for everything held, and kSnapshotEnd; then what came after the sequence
  // as of which that is told. What lies in DRAM comes first, parents before their children; then
  // what lies only on the local tier, in no order. What changes while it is told may be told as it
  // is by then; the events that follow say it again.
  bool snapshot = false;
  std::vector<Digest128> namespaces;  // none: all
};

struct EventBatch {
  std::vector<StoreEvent> events;            // at most kMaxEventsPerBatch
  std::vector<WatchedNamespace> namespaces;  // that the watcher has not been told of before
  uint64_t newest = 0;                       // sequence of the tenant's newest event
  bool more = false;                         // it is worth asking again at once
};

// One watcher's place. Nothing is kept for it but that: who does not keep up is told of a gap.
// Confined to one thread at a time. To be destroyed before its store.
class StoreWatcher {
 public:
  virtual ~StoreWatcher() = default;
  // Random; another one in every life of the store.
  [[nodiscard]] virtual uint64_t publisher_id() const = 0;
  // What there is to tell; no events: nothing now. Does not block, and looks at a bounded number of
  // blocks under the store's lock.
  virtual EventBatch Next() = 0;
};

}  // namespace terrace
