#include "tiers/segment/record_table.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace terrace {

std::optional<RecordPlace> RecordTable::Find(const Digest128& fingerprint) const {
  const Shard& shard = ShardOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.places.find(fingerprint);
  return found == shard.places.end() ? std::nullopt : std::make_optional(found->second);
}

std::optional<RecordPlace> RecordTable::Use(const Digest128& fingerprint, uint32_t now) {
  Shard& shard = ShardOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.places.find(fingerprint);
  if (found == shard.places.end()) {
    return std::nullopt;
  }
  found->second.used_at = now;
  return found->second;
}

bool RecordTable::InsertLater(const Digest128& fingerprint,
                              const RecordPlace& place,
                              std::optional<RecordPlace>* replaced) {
  Shard& shard = ShardOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  const auto [at, inserted] = shard.places.try_emplace(fingerprint, place);
  if (inserted) {
    replaced->reset();
    return true;
  }
  if (at->second.sequence >= place.sequence) {
    return false;
  }
  *replaced = at->second;
  at->second = place;
  return true;
}

bool RecordTable::Move(const Digest128& fingerprint,
                       const RecordPlace& old_place,
                       const RecordPlace& place) {
  Shard& shard = ShardOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.places.find(fingerprint);
  if (found == shard.places.end() || !found->second.SameRecord(old_place)) {
    return false;
  }
  const uint32_t used_at = found->second.used_at;
  found->second = place;
  found->second.used_at = used_at;
  return true;
}

bool RecordTable::RemoveIf(const Digest128& fingerprint, const RecordPlace& place) {
  Shard& shard = ShardOf(fingerprint);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.places.find(fingerprint);
  if (found == shard.places.end() || !found->second.SameRecord(place)) {
    return false;
  }
  shard.places.erase(found);
  return true;
}

void RecordTable::RemoveSegment(uint32_t segment) {
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    absl::erase_if(shard.places,
                   [segment](const auto& entry) { return entry.second.segment == segment; });
  }
}

std::vector<std::pair<Digest128, RecordPlace>> RecordTable::InSegment(uint32_t segment) const {
  std::vector<std::pair<Digest128, RecordPlace>> found;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    for (const auto& [fingerprint, place] : shard.places) {
      if (place.segment == segment) {
        found.emplace_back(fingerprint, place);
      }
    }
  }
  return found;
}

uint64_t RecordTable::size() const {
  uint64_t size = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    size += shard.places.size();
  }
  return size;
}

}  // namespace terrace
