// Where the records of a pool lie: the compact map that answers lookups, in memory.
//
// Several nodes may have published one block; each of their records has an entry, and a lookup gets
// any of them. 40 bytes an entry in tables that are 43 to 85 % full: 47 to 94 bytes a record.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

struct PoolPlace {
  Digest128 checksum;
  uint32_t segment = 0;  // this node's own number for it (pool_catalogue.h)
  uint32_t page = 0;
  uint32_t payload_bytes = 0;
  friend bool operator==(const PoolPlace&, const PoolPlace&) = default;
};

// Thread-safe: shards with a lock each, held for one lookup or, by RemoveSegments, for the pass
// over one of them.
class PoolTable {
 public:
  // The first entry that `usable` accepts; it is called under the shard's lock.
  bool Find(const Digest128& fingerprint,
            const std::function<bool(const PoolPlace&)>& usable,
            PoolPlace* out) const;
  // False: this very record is there already.
  bool Insert(const Digest128& fingerprint, const PoolPlace& place);
  // The one that lies there.
  bool Remove(const Digest128& fingerprint, uint32_t segment, uint32_t page);
  // Every entry in a segment that `gone` names; returns how many.
  uint64_t RemoveSegments(const std::function<bool(uint32_t segment)>& gone);
  void Clear();
  [[nodiscard]] uint64_t size() const;
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  // Of the fingerprint only the lower half is kept: whoever reads the record compares its identity.
  struct Entry {
    uint64_t tag = 0;  // 0: free
    uint64_t checksum_hi = 0;
    uint64_t checksum_lo = 0;
    uint32_t segment = 0;
    uint32_t page = 0;
    uint32_t payload_bytes = 0;
    uint32_t zero = 0;
  };
  struct Shard {
    mutable absl::Mutex mutex;
    std::vector<Entry> entries ABSL_GUARDED_BY(mutex);  // a power of two, or none
    uint64_t used ABSL_GUARDED_BY(mutex) = 0;
  };
  static constexpr size_t kShards = 256;  // so that growing one stalls nobody for long

  static uint64_t TagOf(const Digest128& fingerprint);
  static void GrowLocked(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static void EraseLocked(Shard& shard, size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  [[nodiscard]] Shard& ShardOf(const Digest128& fingerprint) {
    return shards_[fingerprint.hi % kShards];
  }
  [[nodiscard]] const Shard& ShardOf(const Digest128& fingerprint) const {
    return shards_[fingerprint.hi % kShards];
  }

  std::array<Shard, kShards> shards_;
};

}  // namespace terrace
