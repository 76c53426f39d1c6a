#include "tiers/shared/pool_table.h"

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace terrace {
namespace {

constexpr size_t kLeastEntries = 16;

bool IsFull(uint64_t used, size_t entries) {
  return (used + 1) * 20 > entries * 17;  // 85 %
}

}  // namespace

uint64_t PoolTable::TagOf(const Digest128& fingerprint) {
  return fingerprint.lo == 0 ? 1 : fingerprint.lo;
}

bool PoolTable::Find(const Digest128& fingerprint,
                     const std::function<bool(const PoolPlace&)>& usable,
                     PoolPlace* out) const {
  const Shard& shard = ShardOf(fingerprint);
  const uint64_t tag = TagOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  if (shard.entries.empty()) {
    return false;
  }
  const size_t mask = shard.entries.size() - 1;
  for (size_t at = tag & mask; shard.entries[at].tag != 0; at = (at + 1) & mask) {
    const Entry& entry = shard.entries[at];
    if (entry.tag != tag) {
      continue;
    }
    const PoolPlace place{
        {entry.checksum_hi, entry.checksum_lo}, entry.segment, entry.page, entry.payload_bytes};
    if (usable(place)) {
      *out = place;
      return true;
    }
  }
  return false;
}

bool PoolTable::Insert(const Digest128& fingerprint, const PoolPlace& place) {
  Shard& shard = ShardOf(fingerprint);
  const uint64_t tag = TagOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  if (IsFull(shard.used, shard.entries.size())) {
    GrowLocked(shard);
  }
  const size_t mask = shard.entries.size() - 1;
  size_t at = tag & mask;
  for (; shard.entries[at].tag != 0; at = (at + 1) & mask) {
    const Entry& entry = shard.entries[at];
    if (entry.tag == tag && entry.segment == place.segment && entry.page == place.page) {
      return false;
    }
  }
  shard.entries[at] = {
      tag, place.checksum.hi, place.checksum.lo, place.segment, place.page, place.payload_bytes, 0};
  ++shard.used;
  return true;
}

bool PoolTable::Remove(const Digest128& fingerprint, uint32_t segment, uint32_t page) {
  Shard& shard = ShardOf(fingerprint);
  const uint64_t tag = TagOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  if (shard.entries.empty()) {
    return false;
  }
  const size_t mask = shard.entries.size() - 1;
  for (size_t at = tag & mask; shard.entries[at].tag != 0; at = (at + 1) & mask) {
    const Entry& entry = shard.entries[at];
    if (entry.tag == tag && entry.segment == segment && entry.page == page) {
      EraseLocked(shard, at);
      return true;
    }
  }
  return false;
}

uint64_t PoolTable::RemoveSegments(const std::function<bool(uint32_t)>& gone) {
  uint64_t removed = 0;
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    std::vector<Entry> kept;
    kept.reserve(shard.used);
    for (const Entry& entry : shard.entries) {
      if (entry.tag != 0 && !gone(entry.segment)) {
        kept.push_back(entry);
      }
    }
    if (kept.size() == shard.used) {
      continue;
    }
    removed += shard.used - kept.size();
    std::vector<Entry> entries(shard.entries.size());
    const size_t mask = entries.size() - 1;
    for (const Entry& entry : kept) {
      size_t at = entry.tag & mask;
      while (entries[at].tag != 0) {
        at = (at + 1) & mask;
      }
      entries[at] = entry;
    }
    shard.entries = std::move(entries);
    shard.used = kept.size();
  }
  return removed;
}

void PoolTable::Clear() {
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    shard.entries = {};
    shard.used = 0;
  }
}

uint64_t PoolTable::size() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    sum += shard.used;
  }
  return sum;
}

uint64_t PoolTable::memory_bytes() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    sum += shard.entries.capacity() * sizeof(Entry);
  }
  return sum;
}

void PoolTable::GrowLocked(Shard& shard) {
  std::vector<Entry> entries(shard.entries.empty() ? kLeastEntries : shard.entries.size() * 2);
  const size_t mask = entries.size() - 1;
  for (const Entry& entry : shard.entries) {
    if (entry.tag == 0) {
      continue;
    }
    size_t at = entry.tag & mask;
    while (entries[at].tag != 0) {
      at = (at + 1) & mask;
    }
    entries[at] = entry;
  }
  shard.entries = std::move(entries);
}

// Later entries of the run move up, so that no search stops too early.
void PoolTable::EraseLocked(Shard& shard, size_t at) {
  const size_t mask = shard.entries.size() - 1;
  size_t hole = at;
  for (size_t next = (hole + 1) & mask; shard.entries[next].tag != 0; next = (next + 1) & mask) {
    const size_t home = shard.entries[next].tag & mask;
    if (((next - home) & mask) >= ((next - hole) & mask)) {
      shard.entries[hole] = shard.entries[next];
      hole = next;
    }
  }
  shard.entries[hole] = Entry();
  --shard.used;
}

}  // namespace terrace
