// Which records a tier holds, and where: the index that answers lookups, in memory.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

struct RecordPlace {
  Digest128 checksum;
  uint64_t sequence = 0;
  uint32_t segment = 0;
  uint32_t page = 0;
  uint32_t payload_bytes = 0;
  uint32_t pages = 0;  // of the whole record
  // How far the log was when the block was last of use; the tier says in which unit. It wraps.
  uint32_t used_at = 0;

  [[nodiscard]] bool SameRecord(const RecordPlace& other) const {
    return segment == other.segment && page == other.page && sequence == other.sequence;
  }
};

// As LowerBlock has it.
constexpr uint64_t LocationOf(uint32_t segment, uint32_t page) {
  return uint64_t{segment} << 32 | page;
}

// Thread-safe: shards with a lock each, held for one look-up. About 100 bytes a record.
class RecordTable {
 public:
  [[nodiscard]] std::optional<RecordPlace> Find(const Digest128& fingerprint) const;
  // The same, and notes that the block was of use.
  std::optional<RecordPlace> Use(const Digest128& fingerprint, uint32_t now);
  // Of two records of one identity the later stays. True: `place` is now held; *replaced is what
  // was before.
  bool InsertLater(const Digest128& fingerprint,
                   const RecordPlace& place,
                   std::optional<RecordPlace>* replaced);
  // Only where `old_place` is still held. When the block was last of use stays as it is.
  bool Move(const Digest128& fingerprint, const RecordPlace& old_place, const RecordPlace& place);
  bool RemoveIf(const Digest128& fingerprint, const RecordPlace& place);
  // Everything in a segment; both look at every record of the tier.
  void RemoveSegment(uint32_t segment);
  [[nodiscard]] std::vector<std::pair<Digest128, RecordPlace>> InSegment(uint32_t segment) const;
  [[nodiscard]] uint64_t size() const;

 private:
  // The fingerprint is a hash already.
  struct Identity {
    size_t operator()(const Digest128& digest) const { return digest.lo; }
  };
  struct Shard {
    mutable absl::Mutex mutex;
    absl::flat_hash_map<Digest128, RecordPlace, Identity> places ABSL_GUARDED_BY(mutex);
  };
  static constexpr size_t kShards = 64;

  [[nodiscard]] Shard& ShardOf(const Digest128& fingerprint) {
    return shards_[fingerprint.hi % kShards];
  }
  [[nodiscard]] const Shard& ShardOf(const Digest128& fingerprint) const {
    return shards_[fingerprint.hi % kShards];
  }

  std::array<Shard, kShards> shards_;
};

}  // namespace terrace
