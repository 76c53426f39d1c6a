#include "tiers/shared/pool_catalogue.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/segment/record_format.h"

namespace terrace {
namespace {

// Kinds of records that lookups may find.
bool IsBlock(const IndexedRecord& record) {
  return record.kind == static_cast<uint8_t>(RecordKind::kBlock);
}

IndexedRecord NameEntry(uint32_t number, const SegmentName& name, uint32_t file_pages) {
  IndexedRecord entry;
  entry.segment = number;
  entry.page = 0;
  entry.fingerprint = name.life.node;
  entry.sequence = name.life.epoch;
  entry.checksum = {file_pages, name.number};
  return entry;
}

}  // namespace

absl::Status PoolCatalogue::Load() {
  if (index_ == nullptr) {
    return absl::OkStatus();
  }
  absl::MutexLock change(&change_mutex_);
  const absl::StatusOr<std::vector<SegmentPosition>> positions = index_->Positions();
  absl::Status status = positions.status();
  for (size_t i = 0; status.ok() && i < positions->size(); ++i) {
    status = LoadSegment((*positions)[i]);
  }
  absl::MutexLock lock(&mutex_);
  for (uint32_t number = 0; number < entries_.size(); ++number) {
    if (!entries_[number].has_value()) {
      freed_.push_back(number);
    }
  }
  index_failed_ = !status.ok();
  return status;
}

absl::Status PoolCatalogue::LoadSegment(const SegmentPosition& position) {
  std::optional<Entry> entry;
  std::vector<IndexedRecord> records;
  const absl::Status status = index_->Load(position.segment, [&](const IndexedRecord& record) {
    if (record.page == 0) {
      entry.emplace();
      entry->known.name = {{record.fingerprint, record.sequence},
                           static_cast<uint32_t>(record.checksum.lo)};
      entry->known.file_pages = static_cast<uint32_t>(record.checksum.hi);
    } else {
      records.push_back(record);
    }
  });
  {
    absl::MutexLock lock(&mutex_);
    if (!status.ok() || !entry.has_value() || numbers_.contains(entry->known.name) ||
        LifeId(pool_, entry->known.name.life) != position.epoch) {
      batch_.forgotten_segments.push_back(position.segment);
      return status;
    }
    entry->life_id = position.epoch;
    entry->known.complete_pages = position.complete_pages;
    entry->known.sealed = position.sealed;
    entry->known.records = static_cast<uint32_t>(records.size());
    entries_.resize(std::max<size_t>(entries_.size(), size_t{position.segment} + 1));
    numbers_[entry->known.name] = position.segment;
    entries_[position.segment] = *std::move(entry);
  }
  for (const IndexedRecord& record : records) {
    table_.Insert(record.fingerprint,
                  {record.checksum, position.segment, record.page, record.payload_bytes});
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- lookups

bool PoolCatalogue::IsUsable(const PoolPlace& place) const {
  absl::ReaderMutexLock lock(&mutex_);
  if (place.segment >= entries_.size() || !entries_[place.segment].has_value()) {
    return false;
  }
  const Entry& entry = *entries_[place.segment];
  return !entry.listers.empty() && !entry.all_killed && !entry.killed.contains(place.page);
}

bool PoolCatalogue::Holds(const Digest128& fingerprint) const {
  PoolPlace place;
  return table_.Find(
      fingerprint, [this](const PoolPlace& at) { return IsUsable(at); }, &place);
}

bool PoolCatalogue::Find(const Digest128& fingerprint, FoundPlace* out) const {
  if (!table_.Find(
          fingerprint, [this](const PoolPlace& at) { return IsUsable(at); }, &out->place)) {
    return false;
  }
  absl::ReaderMutexLock lock(&mutex_);
  const uint32_t number = out->place.segment;
  if (number >= entries_.size() || !entries_[number].has_value()) {
    return false;  // forgotten meanwhile
  }
  out->segment = entries_[number]->known.name;
  out->life_id = entries_[number]->life_id;
  return true;
}

// ---------------------------------------------------------------- segments

uint32_t PoolCatalogue::NumberLocked(const SegmentName& name, uint32_t file_pages) {
  const auto [at, inserted] = numbers_.try_emplace(name, 0);
  if (!inserted) {
    return at->second;
  }
  uint32_t number = static_cast<uint32_t>(entries_.size());
  if (free_numbers_.empty()) {
    entries_.emplace_back();
  } else {
    number = free_numbers_.back();
    free_numbers_.pop_back();
  }
  at->second = number;
  Entry entry;
  entry.known.name = name;
  entry.known.file_pages = file_pages;
  entry.life_id = LifeId(pool_, name.life);
  entry.dirty = true;
  TakeEarlyLocked(name, &entry);
  if (index_ != nullptr && !index_failed_) {
    batch_.records.push_back(NameEntry(number, name, file_pages));
  }
  entries_[number] = std::move(entry);
  return number;
}

KnownSegment PoolCatalogue::Keep(const Digest128& lister,
                                 const SegmentName& name,
                                 uint32_t file_pages) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = *entries_[NumberLocked(name, file_pages)];
  if (std::find(entry.listers.begin(), entry.listers.end(), lister) == entry.listers.end()) {
    entry.listers.push_back(lister);
  }
  return entry.known;
}

bool PoolCatalogue::IsListed(const SegmentName& name) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = numbers_.find(name);
  return found != numbers_.end() && !entries_[found->second]->listers.empty();
}

std::optional<KnownSegment> PoolCatalogue::Known(const SegmentName& name) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) {
    return std::nullopt;
  }
  return entries_[found->second]->known;
}

void PoolCatalogue::Add(const SegmentName& name,
                        absl::Span<const IndexedRecord> records,
                        uint32_t complete_pages,
                        bool sealed) {
  std::vector<std::pair<Digest128, PoolPlace>> fresh;
  absl::MutexLock change(&change_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    const auto found = numbers_.find(name);
    if (found == numbers_.end()) {
      return;  // forgotten meanwhile
    }
    Entry& entry = *entries_[found->second];
    for (const IndexedRecord& record : records) {
      if (!IsBlock(record) || record.page < entry.known.complete_pages ||
          record.page >= complete_pages) {
        continue;
      }
      ++entry.known.records;
      if (entry.killed.contains(record.page)) {
        continue;
      }
      fresh.push_back({record.fingerprint,
                       {record.checksum, found->second, record.page, record.payload_bytes}});
      if (index_ != nullptr && !index_failed_) {
        batch_.records.push_back(record);
        batch_.records.back().segment = found->second;
      }
    }
    entry.known.complete_pages = std::max(entry.known.complete_pages, complete_pages);
    entry.known.sealed = entry.known.sealed || sealed;
    entry.dirty = true;
  }
  for (const auto& [fingerprint, place] : fresh) {
    table_.Insert(fingerprint, place);
  }
}

void PoolCatalogue::Drop(const Digest128& lister, const std::vector<SegmentName>& names) {
  absl::MutexLock change(&change_mutex_);
  absl::flat_hash_set<uint32_t> gone;
  {
    absl::MutexLock lock(&mutex_);
    for (const SegmentName& name : names) {
      const auto found = numbers_.find(name);
      if (found == numbers_.end()) {
        continue;
      }
      std::vector<Digest128>& listers = entries_[found->second]->listers;
      std::erase(listers, lister);
      if (listers.empty()) {
        ForgetLocked(name, &gone);
      }
    }
  }
  RemoveGone(gone);
}

void PoolCatalogue::Forget(const std::vector<SegmentName>& names) {
  absl::MutexLock change(&change_mutex_);
  absl::flat_hash_set<uint32_t> gone;
  {
    absl::MutexLock lock(&mutex_);
    for (const SegmentName& name : names) {
      ForgetLocked(name, &gone);
    }
  }
  RemoveGone(gone);
}

void PoolCatalogue::Unlearn(const SegmentName& name, uint32_t file_pages) {
  absl::MutexLock change(&change_mutex_);
  absl::flat_hash_set<uint32_t> gone;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = numbers_.find(name);
    if (found == numbers_.end()) {
      return;
    }
    Entry before = *std::move(entries_[found->second]);
    ForgetLocked(name, &gone);
    // Under another number, as the table and the index have yet to forget the first.
    Entry& entry = *entries_[NumberLocked(name, file_pages)];
    entry.listers = std::move(before.listers);
    entry.killed = std::move(before.killed);
    entry.all_killed = before.all_killed;
  }
  RemoveGone(gone);
}

void PoolCatalogue::ForgetLocked(const SegmentName& name, absl::flat_hash_set<uint32_t>* gone) {
  Entry unused;
  TakeEarlyLocked(name, &unused);
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) {
    return;
  }
  gone->insert(found->second);
  entries_[found->second].reset();
  batch_.forgotten_segments.push_back(found->second);
  numbers_.erase(found);
}

void PoolCatalogue::RemoveGone(const absl::flat_hash_set<uint32_t>& gone) {
  unswept_.insert(gone.begin(), gone.end());
  if (unswept_.size() >= kMaxUnswept) {
    Sweep();
  }
}

void PoolCatalogue::Sweep() {
  if (unswept_.empty()) {
    return;
  }
  table_.RemoveSegments([this](uint32_t number)
                            ABSL_NO_THREAD_SAFETY_ANALYSIS { return unswept_.contains(number); });
  // Only now may a number be used again, and not before the index has forgotten it too.
  absl::MutexLock lock(&mutex_);
  freed_.insert(freed_.end(), unswept_.begin(), unswept_.end());
  unswept_.clear();
}

std::vector<SegmentName> PoolCatalogue::Unkept() const {
  std::vector<SegmentName> names;
  absl::ReaderMutexLock lock(&mutex_);
  for (const std::optional<Entry>& entry : entries_) {
    if (entry.has_value() && entry->listers.empty()) {
      names.push_back(entry->known.name);
    }
  }
  return names;
}

// ---------------------------------------------------------------- records

void PoolCatalogue::Apply(const Kill& kill) {
  absl::MutexLock lock(&mutex_);
  const auto found = numbers_.find(kill.segment);
  if (found == numbers_.end()) {
    ApplyEarlyLocked(kill);
  } else {
    entries_[found->second]->killed.insert(kill.page);
  }
}

uint64_t PoolCatalogue::SegmentId(const SegmentName& name) const {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15U;  // so that numbers spread over all bits
  return LifeId(pool_, name.life) + name.number * kOdd;
}

void PoolCatalogue::ApplyEarlyLocked(const Kill& kill) {
  if (early_all_ || early_segments_.contains(SegmentId(kill.segment))) {
    return;
  }
  if (early_pages_ < kMaxEarlyKills) {
    early_pages_ += early_kills_[kill.segment].insert(kill.page).second ? 1 : 0;
    return;
  }
  Entry as_a_whole;
  TakeEarlyLocked(kill.segment, &as_a_whole);
  if (early_segments_.size() < kMaxEarlySegments) {
    early_segments_.insert(SegmentId(kill.segment));
  } else {
    early_all_ = true;
    early_kills_.clear();
    early_segments_.clear();
    early_pages_ = 0;
  }
}

void PoolCatalogue::TakeEarlyLocked(const SegmentName& name, Entry* entry) {
  entry->all_killed = early_segments_.erase(SegmentId(name)) > 0 || early_all_;
  if (const auto early = early_kills_.find(name); early != early_kills_.end()) {
    early_pages_ -= early->second.size();
    entry->killed = std::move(early->second);
    early_kills_.erase(early);
  }
}

void PoolCatalogue::Remove(const Digest128& fingerprint, const SegmentName& name, uint32_t page) {
  std::optional<uint32_t> number;
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = numbers_.find(name);
    if (found != numbers_.end()) {
      number = found->second;
    }
  }
  if (number.has_value()) {
    table_.Remove(fingerprint, *number, page);
  }
}

std::vector<Kill> PoolCatalogue::Places(const Digest128& fingerprint) const {
  std::vector<PoolPlace> places;
  PoolPlace unused;
  table_.Find(
      fingerprint,
      [&places](const PoolPlace& place) {
        places.push_back(place);
        return false;
      },
      &unused);
  std::vector<Kill> kills;
  absl::ReaderMutexLock lock(&mutex_);
  for (const PoolPlace& place : places) {
    if (place.segment < entries_.size() && entries_[place.segment].has_value()) {
      kills.push_back({fingerprint, entries_[place.segment]->known.name, place.page});
    }
  }
  return kills;
}

// ---------------------------------------------------------------- the index

absl::Status PoolCatalogue::Flush() {
  BlockIndex::Batch batch;
  std::vector<uint32_t> freed;
  {
    absl::MutexLock change(&change_mutex_);
    Sweep();
  }
  {
    absl::MutexLock lock(&mutex_);
    batch.forgotten_segments.swap(batch_.forgotten_segments);
    batch.records.swap(batch_.records);
    freed.swap(freed_);
    if (index_ == nullptr || index_failed_) {
      free_numbers_.insert(free_numbers_.end(), freed.begin(), freed.end());
      return absl::OkStatus();
    }
    // What was added and forgotten since the last time would outlive its segment.
    const absl::flat_hash_set<uint32_t> forgotten(batch.forgotten_segments.begin(),
                                                  batch.forgotten_segments.end());
    std::erase_if(batch.records, [&forgotten](const IndexedRecord& record) {
      return forgotten.contains(record.segment);
    });
    for (uint32_t number = 0; number < entries_.size(); ++number) {
      std::optional<Entry>& entry = entries_[number];
      if (entry.has_value() && std::exchange(entry->dirty, false)) {
        batch.positions.push_back(
            {number, entry->life_id, entry->known.complete_pages, entry->known.sealed});
      }
    }
  }
  if (batch.forgotten_segments.empty() && batch.records.empty() && batch.positions.empty()) {
    absl::MutexLock lock(&mutex_);
    free_numbers_.insert(free_numbers_.end(), freed.begin(), freed.end());
    return absl::OkStatus();
  }
  const absl::Status status = index_->Apply(batch);
  absl::MutexLock lock(&mutex_);
  index_failed_ = !status.ok();
  free_numbers_.insert(free_numbers_.end(), freed.begin(), freed.end());
  return status;
}

uint64_t PoolCatalogue::memory_bytes() const {
  uint64_t bytes = table_.memory_bytes();
  absl::ReaderMutexLock lock(&mutex_);
  bytes += entries_.capacity() * sizeof(std::optional<Entry>);
  bytes += numbers_.capacity() * (sizeof(SegmentName) + sizeof(uint32_t) + 1);
  return bytes;
}

}  // namespace terrace
