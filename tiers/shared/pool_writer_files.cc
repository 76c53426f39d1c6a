// What a PoolWriter does on the maintenance executor: files, syncs and reports. Everything here
// blocks in PoolFiles::Call, and nothing does with the lock held.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/segment_format.h"
#include "tiers/shared/pool_writer.h"

namespace terrace {
namespace {

// Of the interval between two heads, where somebody waits and nothing more is on its way.
constexpr int kAwaitedShare = 12;
constexpr uint32_t kRemovalsATime = 4;  // a removal may take long

}  // namespace

// ---------------------------------------------------------------- the begin

absl::Status PoolWriter::Begin(const NodeLife& life,
                               const WholeReport& taken_over,
                               const std::vector<NodeLife>& ended) {
  const PoolAccess& access = parts_.access;
  for (const std::string& path : {NodePath(life.node), LifePath(life)}) {
    if (absl::Status status = MakePoolFolder(access, path); !status.ok()) {
      return status;
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    life_ = life;
    life_id_ = LifeId(access.pool, life);
    segments_.clear();
    for (const ReportedSegment& reported : taken_over.segments) {
      TakeOverLocked(reported);
    }
    kills_ = taken_over.kills;
    for (const ReportedGeneration& raised : taken_over.generations) {
      uint64_t& known = generations_[raised.namespace_digest];
      known = std::max(known, raised.generation);
    }
    serial_ = 0;
    manifest_ = 0;
    last_manifest_ = 0;
  }
  absl::Status status = WriteManifest();
  if (status.ok()) {
    status = WriteHead();
  }
  if (status.ok()) {
    // Its name is what counts.
    status = WriteSmallFile(access, PoolOp::kCreate, MemberPath(life), access.pool.ToHex());
  }
  if (!status.ok()) {
    return status;
  }
  for (const NodeLife& earlier : ended) {
    // Left over, it is only listed in vain.
    if (absl::Status left = LeaveEarlierLife(earlier); IsMountFault(left)) {
      return left;
    }
  }
  absl::MutexLock lock(&mutex_);
  begun_ = true;
  for (const auto& [name, segment] : segments_) {
    if (segment->state != ReportedState::kGone) {
      parts_.catalogue->Keep(life.node, name, segment->file_pages);
    }
  }
  return absl::OkStatus();
}

absl::Status PoolWriter::LeaveEarlierLife(const NodeLife& earlier) {
  absl::Status first = absl::OkStatus();
  for (const std::string& path : {MemberPath(earlier), ClaimPath(earlier), HeadPath(earlier)}) {
    const absl::Status status =
        parts_.access.files->Call(parts_.access.CallOf(PoolOp::kRemove, path)).status;
    first = first.ok() && !absl::IsNotFound(status) ? status : first;
  }
  return first;
}

// ---------------------------------------------------------------- what there is to do

bool PoolWriter::WantsSegmentLocked() const {
  if (!room_ || closing_) {
    return !queue_.empty() && current_ == nullptr;  // to refuse what waits
  }
  // The next one is made before it is needed, so that nothing waits for it.
  return (current_ == nullptr && !queue_.empty()) ||
         (current_ != nullptr && spare_ == nullptr &&
          current_->next_page > current_->file_pages / 4 * 3);
}

// Nothing more is on its way, so that a head of what there is keeps nobody waiting in vain.
bool PoolWriter::IsAwaitedAndIdleLocked() const {
  return queue_.empty() && batches_in_flight_ == 0 && (awaited_ > 0 || !told_by_head_.empty());
}

bool PoolWriter::WantsReportLocked() {
  const absl::Duration now = parts_.access.clock->Now();
  const bool news =
      dirty_ || std::any_of(segments_.begin(), segments_.end(),
                            [this](const auto& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                              return !entry.second->written.empty() || EndsLocked(*entry.second);
                            });
  news_since_ = news ? std::min(news_since_, now) : absl::InfiniteDuration();
  if (now - last_head_ >= options_.heartbeat) {
    return true;
  }
  // What nobody waits for is told for many at a time.
  return news &&
         (IsAwaitedAndIdleLocked() ? now - last_head_ >= options_.head_interval / kAwaitedShare
                                   : now - news_since_ >= options_.head_interval);
}

bool PoolWriter::WantsWork() {
  const absl::Duration now = parts_.access.clock->Now();
  absl::MutexLock lock(&mutex_);
  if (!begun_ || fenced_ || closed_ || now < retry_at_) {
    return false;
  }
  if (closing_ || WantsSegmentLocked() || WantsReportLocked() ||
      (!queue_.empty() && queue_.front()->deadline <= now)) {
    return true;
  }
  return std::any_of(segments_.begin(), segments_.end(), [&](const auto& entry) {
    return entry.second->gone_at + options_.grace <= now;
  });
}

absl::Status PoolWriter::Work() {
  {
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    if (!begun_ || fenced_ || closed_) {
      return absl::OkStatus();
    }
    ExpireLocked(deferred);
    PumpLocked(deferred);
    while (closing_ && queue_.empty() && current_ != nullptr) {
      DetachLocked();  // and the one that was made ahead
    }
  }
  absl::Status status = OpenSegment();
  bool report = false;
  if (!IsMountFault(status)) {
    absl::MutexLock lock(&mutex_);
    report = closing_ || WantsReportLocked();
  }
  if (report) {
    status = SyncWritten();
    status = IsMountFault(status) ? status : PublishReports();
  }
  if (!IsMountFault(status)) {
    status = RemoveGone();
  }
  bool fenced = false;
  {
    absl::MutexLock lock(&mutex_);
    fenced = fenced_;
    if (IsMountFault(status)) {
      NoteFaultLocked(status);
      retry_at_ = parts_.access.clock->Now() + options_.retry_interval;
    } else if (closing_) {
      const bool open = std::any_of(segments_.begin(), segments_.end(), [](const auto& entry) {
        return entry.second->state == ReportedState::kOpen;
      });
      closed_ = queue_.empty() && batches_in_flight_ == 0 && !open && !dirty_;
    }
  }
  if (fenced) {
    Abandon(WriteOutcome::kClosed);  // what was in hand here when it was fenced
  }
  return status;
}

// ---------------------------------------------------------------- segments

absl::Status PoolWriter::OpenSegment() {
  SegmentName name;
  uint64_t life_id = 0;
  {
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    if (!WantsSegmentLocked()) {
      return absl::OkStatus();
    }
    if (!room_ || closing_) {
      while (!queue_.empty()) {
        std::unique_ptr<Pending> pending = std::move(queue_.front());
        queue_.pop_front();
        EndPendingLocked(std::move(pending),
                         closing_ ? WriteOutcome::kClosed : WriteOutcome::kNoSpace, deferred);
      }
      return absl::OkStatus();
    }
    name = {life_, next_number_++};
    life_id = life_id_;
  }
  const PoolAccess& access = parts_.access;
  absl::Status status = absl::OkStatus();
  if (const std::string group = SegmentGroupPath(name); group != group_made_) {
    status = MakePoolFolder(access, group);
    group_made_ = status.ok() ? group : "";
  }
  if (status.ok()) {
    PoolCall make = access.CallOf(PoolOp::kMake, SegmentPath(name));
    make.length = options_.segment_bytes;
    status = access.files->Call(std::move(make)).status;
  }
  if (status.ok()) {
    PoolCall write = access.CallOf(PoolOp::kWrite, SegmentPath(name));
    write.length = kPageBytes;
    write.buffer = access.files->TakeBuffer(kPageBytes);
    if (write.buffer == nullptr) {
      status = absl::ResourceExhaustedError("pool: no buffer is free");
    } else {
      EncodeSegmentHead(
          {access.pool, name.number, SegmentRole::kBlocks, life_id, options_.segment_bytes},
          write.buffer->memory().first(kPageBytes));
      status = access.files->Call(std::move(write)).status;
    }
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) {
    NoteFaultLocked(status);
    // Whoever waits is told at once: the space may be gone for long.
    const WriteOutcome outcome = OutcomeOfFailure(status);
    while (current_ == nullptr && !queue_.empty()) {
      std::unique_ptr<Pending> pending = std::move(queue_.front());
      queue_.pop_front();
      EndPendingLocked(std::move(pending), outcome, deferred);
    }
    return status;
  }
  auto segment = std::make_unique<Segment>();
  segment->name = name;
  segment->file_pages = static_cast<uint32_t>(options_.segment_bytes / kPageBytes);
  parts_.catalogue->Keep(life_.node, name, segment->file_pages);
  (current_ == nullptr ? current_ : spare_) = segment.get();
  segments_[name] = std::move(segment);
  PumpLocked(deferred);
  return absl::OkStatus();
}

IndexedRecord PoolWriter::IndexedOf(uint32_t number, const Pending& pending) const {
  IndexedRecord record;
  record.segment = number;
  record.page = pending.page;
  record.payload_bytes = pending.payload_bytes;
  record.sequence = pending.sequence;
  record.kind = static_cast<uint8_t>(RecordKind::kBlock);
  record.extra_pages =
      static_cast<uint8_t>(ExtraPages(static_cast<uint32_t>(pending.metadata.size())));
  record.fingerprint = pending.fingerprint;
  record.checksum = parts_.access.protection->ListedChecksum(pending.checksum, pending.fingerprint);
  return record;
}

absl::Status PoolWriter::SyncWritten() {
  std::vector<Segment*> segments;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, segment] : segments_) {
      if (!segment->written.empty() || EndsLocked(*segment)) {
        segments.push_back(segment.get());
      }
    }
  }
  for (Segment* segment : segments) {
    if (absl::Status status = SyncSegment(*segment); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

bool PoolWriter::EndsLocked(const Segment& segment) const {
  return segment.detached && segment.state == ReportedState::kOpen && segment.batches.empty();
}

// Of a segment that ends here the footer is written first, so that one sync is for both: what a
// crash leaves of the records that it names is for readers to check in any case.
absl::Status PoolWriter::SyncSegment(Segment& segment) {
  uint32_t written_page = 0;
  std::vector<std::unique_ptr<Pending>> covered;
  std::vector<IndexedRecord> fresh;
  bool ends = false;
  bool footer = false;
  {
    absl::MutexLock lock(&mutex_);
    written_page = segment.written_page;
    covered.swap(segment.written);
    ends = EndsLocked(segment);
    footer = ends && !segment.failed;
    if (ends && !footer && covered.empty()) {
      segment.state = ReportedState::kCut;
      segment.changed = true;
      dirty_ = true;
      return absl::OkStatus();
    }
  }
  for (const std::unique_ptr<Pending>& pending : covered) {
    if (!pending->rotten) {
      fresh.push_back(IndexedOf(segment.name.number, *pending));
    }
  }
  bool sealed = false;
  if (footer) {
    const absl::Status status = WriteFooter(segment, fresh, written_page);
    absl::MutexLock lock(&mutex_);
    if (IsMountFault(status)) {
      segment.written = std::move(covered);  // nothing else is written into one that ends
      return status;
    }
    if (!status.ok()) {
      NoteFaultLocked(status);
    }
    sealed = status.ok();
  }
  const absl::Status status =
      parts_.access.files->Call(parts_.access.CallOf(PoolOp::kSync, SegmentPath(segment.name)))
          .status;
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  segment.changed = true;
  dirty_ = true;
  if (!status.ok()) {
    EndUnsyncedLocked(segment, std::move(covered), deferred);
    NoteFaultLocked(status);
    return status;
  }
  segment.synced_page = written_page;
  segment.records.insert(segment.records.end(), fresh.begin(), fresh.end());
  segment.synced_records += static_cast<uint32_t>(fresh.size());
  for (std::unique_ptr<Pending>& pending : covered) {
    if (pending->rotten) {
      ++figures_.rotten;
      EndPendingLocked(std::move(pending), WriteOutcome::kFault, deferred);
    } else {
      segment.synced.push_back(std::move(pending));
    }
  }
  if (ends) {
    segment.state = sealed ? ReportedState::kSealed : ReportedState::kCut;
  }
  return absl::OkStatus();
}

// Nobody knows what of it is there; another sync would say nothing about it.
void PoolWriter::EndUnsyncedLocked(Segment& segment,
                                   std::vector<std::unique_ptr<Pending>> covered,
                                   DeferredCalls& deferred) {
  segment.failed = true;
  if (&segment == current_) {
    DetachLocked();
  }
  segment.detached = true;
  for (std::vector<std::unique_ptr<Pending>>* list : {&covered, &segment.written}) {
    for (std::unique_ptr<Pending>& pending : *list) {
      EndPendingLocked(std::move(pending), WriteOutcome::kFault, deferred);
    }
    list->clear();
  }
}

absl::Status PoolWriter::WriteFooter(const Segment& segment,
                                     absl::Span<const IndexedRecord> fresh,
                                     uint32_t end_page) {
  SegmentTrailer trailer;
  std::vector<IndexedRecord> records;
  {
    absl::MutexLock lock(&mutex_);
    records = segment.records;
    trailer.epoch = life_id_;
  }
  records.insert(records.end(), fresh.begin(), fresh.end());
  const uint32_t footer_pages = FooterPages(records.size());
  trailer.end_page = end_page;
  trailer.tier_uuid = parts_.access.pool;
  trailer.number = segment.name.number;
  trailer.role = SegmentRole::kBlocks;
  trailer.entries = static_cast<uint32_t>(records.size());
  trailer.entries_page = segment.file_pages - footer_pages;
  PoolCall write = parts_.access.CallOf(PoolOp::kWrite, SegmentPath(segment.name));
  write.offset = uint64_t{trailer.entries_page} * kPageBytes;
  write.length = uint64_t{footer_pages} * kPageBytes;
  write.buffer = parts_.access.files->TakeBuffer(write.length);
  if (write.buffer == nullptr) {
    return absl::ResourceExhaustedError("pool: no buffer is free");
  }
  const absl::Span<char> entries =
      write.buffer->memory().first(uint64_t{footer_pages - 1} * kPageBytes);
  EncodeEntries(records, entries);
  trailer.entries_checksum = PayloadChecksum(entries);
  EncodeTrailer(trailer, write.buffer->memory().subspan(entries.size(), kPageBytes));
  return parts_.access.files->Call(std::move(write)).status;
}

absl::Status PoolWriter::RemoveGone() {
  std::vector<SegmentName> due;
  const absl::Duration now = parts_.access.clock->Now();
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, segment] : segments_) {
      if (segment->gone_at + options_.grace <= now && due.size() < kRemovalsATime) {
        due.push_back(name);
      }
    }
  }
  for (const SegmentName& name : due) {
    const absl::Status status =
        parts_.access.files->Call(parts_.access.CallOf(PoolOp::kRemove, SegmentPath(name))).status;
    if (!status.ok() && !absl::IsNotFound(status)) {
      return status;
    }
    {
      absl::MutexLock lock(&mutex_);
      ++figures_.removed_segments;
      segments_.at(name)->removed = true;
      segments_.at(name)->gone_at = absl::InfiniteDuration();
      // Listed as gone until the next manifest, which leaves it out.
    }
    if (absl::Status left = LeaveFolders(name); IsMountFault(left)) {
      return left;
    }
  }
  return absl::OkStatus();
}

absl::Status PoolWriter::LeaveFolders(const SegmentName& removed) {
  bool group_left = true;
  bool life_left = true;
  {
    absl::MutexLock lock(&mutex_);
    life_left = !(removed.life == life_);
    group_left =
        life_left || removed.number / kSegmentsAFolder != (next_number_ - 1) / kSegmentsAFolder;
    for (const auto& [name, segment] : segments_) {
      if (segment->removed || name.life != removed.life) {
        continue;
      }
      life_left = false;
      group_left =
          group_left && name.number / kSegmentsAFolder != removed.number / kSegmentsAFolder;
    }
  }
  // Refused where something else is left in it.
  absl::Status status = absl::OkStatus();
  for (const std::string& path : {group_left ? SegmentGroupPath(removed) : std::string(),
                                  life_left ? LifePath(removed.life) : std::string()}) {
    if (!path.empty() && !IsMountFault(status)) {
      status = parts_.access.files->Call(parts_.access.CallOf(PoolOp::kRemoveFolder, path)).status;
    }
  }
  return status;
}

}  // namespace terrace
