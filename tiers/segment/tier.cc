// A segment tier's life, its time and its figures.
#include "tiers/segment/tier.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/superblock_format.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kPositionsASegment = 256;
constexpr uint64_t kLeastSegmentBytes = uint64_t{256} << 20;
constexpr uint64_t kRecordsPerSegment = 16;
constexpr uint32_t kSequenceBits = 40;  // below the tier's epoch
constexpr uint64_t kMaxSegmentBytes = uint64_t{16} << 30;
// Beside one open segment for each heat: one for the tier's own records, one to open next, and one
// that is reclaimed.
constexpr uint32_t kSpareSegments = 3;

absl::Status CheckOptions(const SegmentTierOptions& options) {
  const uint64_t record_bytes =
      uint64_t{RecordPages(static_cast<uint32_t>(options.max_payload_bytes), kMaxMetadataBytes)} *
      kPageBytes;
  if (options.max_payload_bytes == 0 || options.max_payload_bytes > kMaxPayloadBytes) {
    return absl::InvalidArgumentError("max_payload_bytes: 1 to 64 MiB");
  }
  if (options.heats == 0 || options.heats > kMaxHeats) {
    return absl::InvalidArgumentError("heats: 1 to 3");
  }
  if (options.segment_bytes % kPageBytes != 0 ||
      options.segment_bytes < record_bytes * 2 + (64 << 10) ||
      options.segment_bytes > kMaxSegmentBytes) {
    return absl::InvalidArgumentError(
        "segment_bytes: a multiple of 4096, room for two maximal records, at most 16 GiB");
  }
  if (!(options.max_rewritten_share >= 0 && options.max_rewritten_share <= 0.5)) {
    return absl::InvalidArgumentError("max_rewritten_share: 0 to 0.5");
  }
  if (options.write_depth == 0 || options.max_reads == 0 || options.max_writes == 0) {
    return absl::InvalidArgumentError("write_depth, max_reads, max_writes: at least 1");
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t DefaultSegmentBytes(uint64_t max_payload_bytes) {
  const uint64_t record_bytes =
      uint64_t{RecordPages(static_cast<uint32_t>(max_payload_bytes), kMaxMetadataBytes)} *
      kPageBytes;
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  const uint64_t records = (record_bytes * kRecordsPerSegment + kMiB - 1) / kMiB * kMiB + kMiB;
  return std::max(kLeastSegmentBytes, records);
}

uint64_t LeastTierCapacity(const SegmentTierOptions& options) {
  const uint64_t segment_bytes = options.segment_bytes == 0
                                     ? DefaultSegmentBytes(options.max_payload_bytes)
                                     : options.segment_bytes;
  return (options.heats + kSpareSegments) * segment_bytes;
}

absl::StatusOr<std::unique_ptr<SegmentTier>> OpenSegmentTier(const SegmentTierOptions& options,
                                                             const SegmentTierParts& parts) {
  SegmentTierOptions chosen = options;
  if (chosen.segment_bytes == 0) {
    chosen.segment_bytes = DefaultSegmentBytes(chosen.max_payload_bytes);
  }
  if (absl::Status checked = CheckOptions(chosen); !checked.ok()) {
    return checked;
  }
  absl::StatusOr<std::unique_ptr<TierFolder>> folder =
      TierFolder::Open(*parts.files, {chosen.path, chosen.segment_bytes, chosen.expected_uuid});
  if (!folder.ok()) {
    return folder.status();
  }
  // The tier that is there decides; a tier made with smaller segments serves smaller records.
  chosen.segment_bytes = (*folder)->superblock().segment_bytes;
  if (absl::Status checked = CheckOptions(chosen); !checked.ok()) {
    return checked;
  }
  if (chosen.capacity_bytes / chosen.segment_bytes < chosen.heats + kSpareSegments) {
    return absl::InvalidArgumentError(absl::StrCat("capacity_bytes: at least ",
                                                   chosen.heats + kSpareSegments, " segments of ",
                                                   chosen.segment_bytes));
  }
  SegmentTierParts chosen_parts = parts;
  if (parts.open_index) {
    chosen_parts.index = parts.open_index((*folder)->superblock().uuid);
  }
  auto tier = std::make_unique<Tier>(chosen, chosen_parts, *std::move(folder));
  if (absl::Status started = tier->Start(); !started.ok()) {
    return started;
  }
  return tier;
}

Tier::Tier(const SegmentTierOptions& options,
           SegmentTierParts parts,
           std::unique_ptr<TierFolder> folder)
    : options_(options),
      parts_(std::move(parts)),
      folder_(std::move(folder)),
      segment_pages_(static_cast<uint32_t>(folder_->superblock().segment_bytes / kPageBytes)),
      own_writer_(kMaxHeats),
      rescue_writer_(IsLarge() ? kMaxHeats + 1 : kMaxHeats),
      appended_pages_(options.capacity_bytes / kPageBytes),
      sequence_(folder_->superblock().epoch << kSequenceBits) {}

Tier::~Tier() {
  {
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    serving_.store(false);
    for (uint32_t writer = 0; writer < writers_.size(); ++writer) {
      EndWaitingLocked(writer, WriteOutcome::kClosed, deferred);
    }
    StopScrubLocked(deferred);
  }
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Tier::IdleLocked));
}

absl::Status Tier::Start() {
  absl::StatusOr<std::vector<SegmentFile>> files = folder_->OpenSegments();
  if (!files.ok()) {
    return files.status();
  }
  std::vector<SegmentPosition> positions;
  if (parts_.index != nullptr) {
    // What cannot be read is as good as absent: the segments are scanned.
    absl::StatusOr<std::vector<SegmentPosition>> known = parts_.index->Positions();
    positions = known.ok() ? *std::move(known) : std::vector<SegmentPosition>();
  }
  // The latest first: what was written last is likely to be asked for first.
  std::sort(files->begin(), files->end(),
            [](const SegmentFile& a, const SegmentFile& b) { return a.epoch > b.epoch; });
  std::vector<std::pair<Segment*, SegmentPosition>> own;
  std::vector<std::pair<Segment*, SegmentPosition>> others;
  {
    absl::MutexLock lock(&mutex_);
    next_check_ = parts_.clock->Now() + options_.retry_interval;
    next_scrub_ = parts_.clock->Now() + options_.scrub_interval;
    for (SegmentFile& file : *files) {
      SegmentPosition position;
      for (const SegmentPosition& known : positions) {
        position = known.segment == file.number ? known : position;
      }
      const bool used = file.found == FoundSegment::kUsed;
      const bool is_own = file.role == SegmentRole::kOwn;
      Segment* segment = AdoptLocked(std::move(file));
      if (used) {
        (is_own ? own : others).emplace_back(segment, position);
      }
    }
  }
  // What was deleted or cleared is known before the first lookup.
  for (const auto& [segment, position] : own) {
    RecoverJob(segment, position);
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  for (const auto& [segment, position] : others) {
    RunJobLocked(
        Priority::kNormal, [this, found = segment, where = position] { RecoverJob(found, where); },
        deferred);
  }
  return absl::OkStatus();
}

Segment* Tier::AdoptLocked(SegmentFile file) {
  auto segment = std::make_unique<Segment>();
  segment->number = file.number;
  segment->epoch = file.epoch;
  segment->role = file.role;
  segment->file = std::move(file.file);
  segment->stage = Stage::kUnproven;
  if (file.found == FoundSegment::kBlank) {
    segment->stage = Stage::kFree;
  } else if (file.found == FoundSegment::kUsed) {
    segment->stage = Stage::kSealing;
    segment->footer_begun = true;  // not before it has been scanned
    ++recovering_;
  }
  Segment* adopted = segment.get();
  segments_[file.number] = std::move(segment);
  return adopted;
}

void Tier::RunJobLocked(Priority priority, std::function<void()> job, DeferredCalls& deferred) {
  ++jobs_;
  deferred.Add([this, priority, job = std::move(job)] {
    parts_.maintenance->Run(priority, [this, job] {
      job();
      JobEnded();
    });
  });
}

void Tier::JobEnded() {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  MaybeEndCloseLocked(deferred);
  --jobs_;
}

Digest128 Tier::FingerprintOf(const BlockIdentity& identity) const {
  return IdentityFingerprint(identity.namespace_digest, identity.generation, identity.salt,
                             identity.key, folder_->superblock().uuid.lo);
}

void Tier::ForgetPlaceLocked(const RecordPlace& place) {
  Segment& segment = *segments_.at(place.segment);
  segment.live_pages -= place.pages;
  --segment.live_records;
}

void Tier::CountPlaceLocked(const RecordPlace& place) {
  Segment& segment = *segments_.at(place.segment);
  segment.live_pages += place.pages;
  ++segment.live_records;
}

uint32_t Tier::LogPosition() const {
  return static_cast<uint32_t>(appended_pages_.load(std::memory_order_relaxed) *
                               kPositionsASegment / segment_pages_);
}

double Tier::UnusedShare(const RecordPlace& place) const {
  const uint32_t since = LogPosition() - place.used_at;
  return static_cast<double>(since) /
         static_cast<double>(uint64_t{MaxSegments()} * kPositionsASegment);
}

void Tier::NoteFaultLocked(const absl::Status& status) {
  figures_.last_fault = std::string(status.message());
}

void Tier::PumpAllLocked(DeferredCalls& deferred) {
  for (uint32_t writer = 0; writer < writers_.size(); ++writer) {
    PumpLocked(writer, deferred);
  }
}

void Tier::Tick() {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = parts_.clock->Now();
  ExpireWaitingLocked(deferred);
  if (now - last_sync_ >= options_.sync_interval && AnyDirtyLocked()) {
    sync_waiting_.emplace_back([](const absl::Status&) {});
    StartSyncLocked(deferred);
  }
  if (now - last_index_ >= options_.sync_interval) {
    last_index_ = now;
    WriteIndexLocked(deferred);
  }
  if (now >= next_check_ && !checking_) {
    next_check_ = now + options_.retry_interval;
    ForgetReclaimFailuresLocked();
    CheckPathLocked(deferred);
  }
  MaybeReclaimLocked(deferred);
  MaybeProbeReadsLocked(deferred);
  MaybeScrubLocked(deferred);
  MaybeTellChangesLocked(deferred);
  PumpAllLocked(deferred);
}

void Tier::CheckPathLocked(DeferredCalls& deferred) {
  checking_ = true;
  RunJobLocked(
      Priority::kLow,
      [this] {
        absl::StatusOr<bool> here = false;
        {
          absl::MutexLock folder_lock(&folder_mutex_);
          here = folder_->PathLeadsHere();
        }
        DeferredCalls later;
        absl::MutexLock relock(&mutex_);
        checking_ = false;
        // A fault says nothing about where the path leads; reads and writes show it themselves.
        if (here.ok()) {
          detached_ = !*here;
          UpdateServingLocked();
        } else {
          NoteFaultLocked(here.status());
        }
        PumpAllLocked(later);
      },
      deferred);
}

void Tier::WriteIndexLocked(DeferredCalls& deferred) {
  if (parts_.index == nullptr || index_busy_ || index_lost_) {
    return;
  }
  BlockIndex::Batch batch;
  batch.forgotten_segments.swap(forgotten_);
  for (const auto& [number, segment] : segments_) {
    const bool written = segment->stage == Stage::kOpen || segment->stage == Stage::kSealing ||
                         segment->stage == Stage::kSealed;
    const bool sealed = segment->stage == Stage::kSealed;
    if (!written || segment->entries.empty() ||
        (!sealed && segment->indexed_entries >= segment->entries.size())) {
      continue;
    }
    batch.records.insert(batch.records.end(), segment->entries.begin() + segment->indexed_entries,
                         segment->entries.end());
    segment->indexed_entries = static_cast<uint32_t>(segment->entries.size());
    batch.positions.push_back({number, segment->epoch, segment->end_page, sealed});
    if (sealed) {
      segment->entries = {};
    }
  }
  if (batch.forgotten_segments.empty() && batch.positions.empty()) {
    return;
  }
  index_busy_ = true;
  RunJobLocked(
      Priority::kLow, [this, batch = std::move(batch)] { IndexJob(batch); }, deferred);
}

void Tier::IndexJob(const BlockIndex::Batch& batch) {
  const absl::Status applied = parts_.index->Apply(batch);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  index_busy_ = false;
  if (!applied.ok()) {
    // What follows would leave a gap behind a position that says complete.
    ++figures_.index_faults;
    index_lost_ = true;
  }
}

void Tier::Close(std::function<void(absl::Status)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (closed_) {
    deferred.Add([done = std::move(done)] { done(absl::OkStatus()); });
    return;
  }
  close_waiting_.push_back(std::move(done));
  closing_ = true;
  serving_.store(false);
  for (uint32_t writer = 0; writer < writers_.size(); ++writer) {
    EndWaitingLocked(writer, WriteOutcome::kClosed, deferred);
    LeaveAheadLocked(writer, deferred);
  }
  for (const auto& [number, segment] : segments_) {
    DetachLocked(*segment, deferred);
  }
  StopScrubLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

void Tier::MaybeEndCloseLocked(DeferredCalls& deferred) {
  if (close_waiting_.empty() || close_ending_ || recovering_ > 0 || reclaim_ != nullptr ||
      scrub_ != nullptr || choosing_ || index_busy_) {
    return;
  }
  for (const auto& [number, segment] : segments_) {
    if (segment->stage == Stage::kOpening || segment->stage == Stage::kOpen ||
        segment->stage == Stage::kSealing) {
      return;
    }
  }
  WriteIndexLocked(deferred);
  if (index_busy_) {
    return;  // its end comes here again
  }
  close_ending_ = true;
  RunJobLocked(
      Priority::kNormal, [this] { CloseJob(); }, deferred);
}

void Tier::CloseJob() {
  if (parts_.index != nullptr) {
    parts_.index->Sync().IgnoreError();  // it is derived, and rebuilt where it is lost
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (std::function<void(absl::Status)>& done : close_waiting_) {
    deferred.Add([callback = std::move(done)] { callback(absl::OkStatus()); });
  }
  close_waiting_.clear();
}

TierState Tier::StateLocked() const {
  const absl::Duration now = parts_.clock->Now();
  if (closing_) {
    return TierState::kClosed;
  }
  if (detached_) {
    return TierState::kDetached;
  }
  if (now < read_only_until_) {
    return TierState::kReadOnly;
  }
  if (now < faulty_until_ || reads_suspended_) {
    return TierState::kFaulty;
  }
  return recovering_ > 0 ? TierState::kRecovering : TierState::kOnline;
}

std::vector<SegmentTier::Note> Tier::Notes() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Note> notes;
  for (const auto& [name, note] : notes_) {
    notes.push_back({name, note.value});
  }
  return notes;
}

std::vector<DriveView> Tier::Drives() const {
  DriveView view;
  view.path = options_.path;
  view.figures = figures();
  view.open = view.figures.state != TierState::kDetached;
  if (!view.open) {
    view.problem = "the path leads elsewhere";
  } else if (view.figures.state == TierState::kFaulty) {
    view.problem = view.figures.last_fault;
  }
  return {view};
}

SegmentTierFigures Tier::figures() const {
  const uint64_t records = table_.size();
  absl::MutexLock lock(&mutex_);
  SegmentTierFigures figures = figures_;
  figures.state = StateLocked();
  figures.transfers = folder_->transfers();
  figures.capacity_bytes = options_.capacity_bytes;
  figures.records = records;
  figures.segments_to_recover = recovering_;
  figures.reads_suspended = reads_suspended_;
  for (const auto& [number, segment] : segments_) {
    ++figures.segments;
    figures.file_bytes += segment->file == nullptr ? 0 : folder_->superblock().segment_bytes;
    figures.live_bytes += segment->live_pages * kPageBytes;
    figures.free_segments += segment->stage == Stage::kFree ? 1 : 0;
    figures.unproven_segments += segment->stage == Stage::kUnproven ? 1 : 0;
    figures.retired_segments += segment->stage == Stage::kRetired ? 1 : 0;
  }
  return figures;
}

}  // namespace terrace
