// What this node knows of a pool's content: which segments there are, and which records lie in
// them.
//
// Lookups are answered from memory. A block index keeps a copy, so that a restart need not read the
// pool's footers again; it is never trusted, as whoever reads a record checks it in full. Each
// segment has a number of this node's own, under which the index has it. The entry of page 0, where
// no record can lie, names the segment: fingerprint = node, sequence = epoch, checksum.lo = number,
// checksum.hi = pages of the file.
//
// Thread-safe. Load and Flush block on the index, nothing blocks on the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_table.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// A record that a lookup found.
struct FoundPlace {
  SegmentName segment;
  uint64_t life_id = 0;  // the epoch that its header names
  PoolPlace place;
};

struct KnownSegment {
  SegmentName name;
  uint32_t file_pages = 0;
  // Every record that begins before is known; from there on up to what is published none may be.
  uint32_t complete_pages = 1;
  bool sealed = false;
  uint32_t records = 0;  // that were added, deleted ones included
};

class PoolCatalogue {
 public:
  // `index` is borrowed and nullable.
  PoolCatalogue(const Digest128& pool, BlockIndex* index) : pool_(pool), index_(index) {}

  // What an earlier life knew. Nothing of it is found before Keep has named its segment.
  absl::Status Load();

  // ---- lookups
  bool Find(const Digest128& fingerprint, FoundPlace* out) const;
  [[nodiscard]] bool Holds(const Digest128& fingerprint) const;

  // ---- segments
  // The segment is there, says `lister`, a node; records of it are found from now on. Returns what
  // is known of it.
  KnownSegment Keep(const Digest128& lister, const SegmentName& name, uint32_t file_pages);
  // Whether a node lists it now.
  [[nodiscard]] bool IsListed(const SegmentName& name) const;
  [[nodiscard]] std::optional<KnownSegment> Known(const SegmentName& name) const;
  // Records of the segment that begin before `complete_pages`; those that are known already change
  // nothing. The segment is kept.
  void Add(const SegmentName& name,
           absl::Span<const IndexedRecord> records,
           uint32_t complete_pages,
           bool sealed);
  // The lister does not say so any more. What nobody lists is forgotten.
  void Drop(const Digest128& lister, const std::vector<SegmentName>& names);
  // Its records are not known any more, and are added anew; who lists it and what is killed stays.
  void Unlearn(const SegmentName& name, uint32_t file_pages);
  // Whoever lists them: they are not there.
  void Forget(const std::vector<SegmentName>& names);
  // Segments that Load brought and nobody has named since.
  [[nodiscard]] std::vector<SegmentName> Unkept() const;

  // ---- records
  // This record is a miss for good, also when it is added later. Of segments that are not known,
  // kMaxEarlyKills records are remembered one by one; a segment of which there are more is a miss
  // as a whole, and beyond kMaxEarlySegments of those whatever becomes known later is, until the
  // next start: what was deleted never comes back for want of memory.
  static constexpr size_t kMaxEarlyKills = size_t{1} << 18;
  static constexpr size_t kMaxEarlySegments = size_t{1} << 19;
  void Apply(const Kill& kill);
  // A read found that it is not what it is listed as: a miss in this life.
  void Remove(const Digest128& fingerprint, const SegmentName& name, uint32_t page);
  // All records of one identity, as kills.
  [[nodiscard]] std::vector<Kill> Places(const Digest128& fingerprint) const;

  // Brings the index up to date, and gives back what forgotten records took. After an error the
  // index is not used any more in this life.
  absl::Status Flush();

  [[nodiscard]] uint64_t records() const { return table_.size(); }
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  struct Entry {
    KnownSegment known;
    uint64_t life_id = 0;
    std::vector<Digest128> listers;        // none: Load brought it, and nobody has named it since
    absl::flat_hash_set<uint32_t> killed;  // pages
    bool all_killed = false;
    bool dirty = false;  // its position is to be written
  };

  absl::Status LoadSegment(const SegmentPosition& position)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  uint32_t NumberLocked(const SegmentName& name, uint32_t file_pages)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsUsable(const PoolPlace& place) const ABSL_LOCKS_EXCLUDED(mutex_);
  // 64 bits that tell segments apart; one that is taken for another is killed with it.
  [[nodiscard]] uint64_t SegmentId(const SegmentName& name) const;
  void ApplyEarlyLocked(const Kill& kill) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What of it was killed before it was known.
  void TakeEarlyLocked(const SegmentName& name, Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetLocked(const SegmentName& name, absl::flat_hash_set<uint32_t>* gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveGone(const absl::flat_hash_set<uint32_t>& gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  void Sweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);

  const Digest128 pool_;
  BlockIndex* const index_;
  // Held over what adds to the table or takes from it, so that no record comes back behind its
  // segment's end.
  absl::Mutex change_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  PoolTable table_;  // its locks come before mutex_: lookups ask IsUsable
  // Numbers of segments that are forgotten while the table still has their records, which no lookup
  // finds: taking them out looks at the whole table, so it is done for many at a time.
  static constexpr size_t kMaxUnswept = 64;
  absl::flat_hash_set<uint32_t> unswept_ ABSL_GUARDED_BY(change_mutex_);
  mutable absl::Mutex mutex_;
  std::vector<std::optional<Entry>> entries_ ABSL_GUARDED_BY(mutex_);  // by number
  std::vector<uint32_t> free_numbers_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<SegmentName, uint32_t> numbers_ ABSL_GUARDED_BY(mutex_);
  // Of segments that are not known yet.
  absl::flat_hash_map<SegmentName, absl::flat_hash_set<uint32_t>> early_kills_
      ABSL_GUARDED_BY(mutex_);
  size_t early_pages_ ABSL_GUARDED_BY(mutex_) = 0;                        // of all in it
  absl::flat_hash_set<uint64_t> early_segments_ ABSL_GUARDED_BY(mutex_);  // by SegmentId
  bool early_all_ ABSL_GUARDED_BY(mutex_) = false;
  BlockIndex::Batch batch_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> freed_ ABSL_GUARDED_BY(mutex_);  // numbers that batch_ forgets
  bool index_failed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace terrace
