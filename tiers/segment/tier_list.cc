// What lies here by name: told when it changes, and listed. The table knows fingerprints alone, so
// that names are read from the headers of records.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "tiers/segment/tier.h"

namespace terrace {
namespace {

// Beyond, they are not told one by one.
constexpr size_t kMaxChanged = 65536;

}  // namespace

void Tier::WatchChanges(LearnChanges learn) {
  absl::MutexLock lock(&change_mutex_);
  changes_watched_ = learn != nullptr;
  learn_changes_ = std::move(learn);
}

void Tier::NoteChangedLocked(NamedBlock block) {
  if (!changes_watched_) {
    return;
  }
  if (changed_.size() >= kMaxChanged) {
    changed_.clear();
    unnamed_ = Unnamed::kMore;
  }
  changed_.push_back(std::move(block));
}

void Tier::NoteUnnamedLocked() {
  if (changes_watched_) {
    unnamed_ = Unnamed::kMore;
  }
}

void Tier::MaybeTellChangesLocked(DeferredCalls& deferred) {
  if (telling_changes_ || closing_ || (changed_.empty() && unnamed_ == Unnamed::kNone)) {
    return;
  }
  telling_changes_ = true;
  RunJobLocked(
      Priority::kLow, [this] { TellChanges(); }, deferred);
}

void Tier::TellChanges() {
  std::vector<NamedBlock> changed;
  Unnamed unnamed = Unnamed::kNone;
  {
    absl::MutexLock lock(&mutex_);
    changed.swap(changed_);
    unnamed = std::exchange(unnamed_, Unnamed::kNone);
  }
  {
    absl::ReaderMutexLock lock(&change_mutex_);
    if (learn_changes_) {
      learn_changes_(changed, unnamed);
    }
  }
  absl::MutexLock lock(&mutex_);
  telling_changes_ = false;
}

std::optional<NamedBlock> Tier::ReadName(File& file,
                                         uint64_t epoch,
                                         const IndexedRecord& record) const {
  AlignedBuffer page(kPageBytes);
  RecordHeader header;
  if (!ReadFully(file, uint64_t{record.page} * kPageBytes, page.span()).ok() ||
      CheckHeader(page.span(), {uuid(), epoch, record}, &header) != RecordFault::kNone) {
    return std::nullopt;
  }
  return NamedBlock{header.namespace_digest, header.generation,          std::string(header.salt),
                    std::string(header.key), std::string(header.parent), header.first_token};
}

std::vector<NamedBlock> Tier::ReadNames(const Reclaim& reclaim, Unnamed* unnamed) {
  std::vector<NamedBlock> names;
  if (!changes_watched_) {
    return names;
  }
  for (const IndexedRecord& record : reclaim.records) {
    {
      absl::MutexLock lock(&mutex_);
      RecordPlace place;
      if (record.kind != static_cast<uint8_t>(RecordKind::kBlock) ||
          !WantedLocked(reclaim, record, &place)) {
        continue;
      }
    }
    std::optional<NamedBlock> name = ReadName(*reclaim.victim->file, reclaim.victim->epoch, record);
    if (name.has_value()) {
      names.push_back(*std::move(name));
    } else {
      *unnamed = Unnamed::kMore;
    }
  }
  return names;
}

void Tier::List(const ListPlace& from,
                std::function<void(const ListPlace& next, std::vector<NamedBlock>)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (closing_ || from.over) {
    ListPlace end = from;
    end.over = true;
    deferred.Add([done = std::move(done), end] { done(end, {}); });
    return;
  }
  RunJobLocked(
      Priority::kLow, [this, from, done = std::move(done)] { ListJob(from, done); }, deferred);
}

// By the age of their present use, so that what is opened meanwhile comes last.
Segment* Tier::NextToListLocked(ListPlace* place) {
  Segment* next = nullptr;
  for (const auto& [number, segment] : segments_) {
    const bool holds = segment->live_records > 0 && segment->stage != Stage::kUnproven;
    if (holds && segment->epoch >= place->epoch &&
        (next == nullptr || segment->epoch < next->epoch)) {
      next = segment.get();
    }
  }
  if (next != nullptr) {
    place->record = next->epoch == place->epoch ? place->record : 0;
    place->epoch = next->epoch;
    ++next->pins;
  }
  return next;
}

void Tier::ListJob(
    const ListPlace& from,
    const std::function<void(const ListPlace& next, std::vector<NamedBlock>)>& done) {
  ListPlace next = from;
  Segment* segment = nullptr;
  std::vector<IndexedRecord> records;
  size_t before = 0;  // records of the segment that come before those
  size_t all = 0;
  {
    absl::MutexLock lock(&mutex_);
    segment = closing_ ? nullptr : NextToListLocked(&next);
    if (segment != nullptr) {
      const std::vector<IndexedRecord>& entries = segment->entries;
      all = entries.size();
      before = std::min<size_t>(next.record, all);
      const size_t after = std::min<size_t>(before + kListedAtOnce, all);
      records.assign(entries.data() + before, entries.data() + after);
    }
  }
  std::vector<NamedBlock> names;
  if (segment == nullptr) {
    next.over = true;
    done(next, std::move(names));
    return;
  }
  if (all == 0) {                                   // sealed
    ListRecords(*segment, &records).IgnoreError();  // what is held is listed in any case
    all = records.size();
  }
  const auto end = static_cast<uint32_t>(std::min(all, size_t{next.record} + kListedAtOnce));
  for (size_t i = next.record; i < end; ++i) {
    const IndexedRecord& record = records[i - before];
    {
      absl::MutexLock lock(&mutex_);
      RecordPlace place;
      if (record.kind != static_cast<uint8_t>(RecordKind::kBlock) ||
          !ScrubbedLocked(record, &place)) {
        continue;
      }
    }
    std::optional<NamedBlock> name = ReadName(*segment->file, next.epoch, record);
    if (name.has_value()) {
      names.push_back(*std::move(name));
    }
  }
  next.record = std::max(end, next.record);
  if (next.record >= all) {
    ++next.epoch;
    next.record = 0;
  }
  {
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    UnpinLocked(*segment, deferred);
  }
  done(next, std::move(names));
}

}  // namespace terrace
