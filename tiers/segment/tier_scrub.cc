// Scrub: what lies in sealed segments is read back, in slices, and what is damaged is a miss from
// then on.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/tier.h"

namespace terrace {
namespace {

// Read at a turn, after which whoever else wants the maintenance executor comes first.
constexpr uint64_t kSliceBytes = uint64_t{8} << 20;

}  // namespace

// Guarded by the tier's lock but for `records`, `next` and `buffer`, which the one job that runs
// has.
struct ScrubPass {
  ScrubPace pace = ScrubPace::kBudget;
  std::vector<std::pair<uint32_t, uint64_t>> segments;  // number and epoch
  size_t at = 0;                                        // among them
  bool listed = false;                                  // `records` are those of the segment
  std::vector<IndexedRecord> records;
  size_t next = 0;
  AlignedBuffer buffer;
  ScrubResult result;
  std::vector<std::function<void(const ScrubResult&)>> done;
  bool job_runs = false;
};

void Tier::Scrub(ScrubPace pace, std::function<void(const ScrubResult&)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (closing_) {
    deferred.Add([done = std::move(done)] { done(ScrubResult()); });
    return;
  }
  if (scrub_ == nullptr) {
    BeginScrubLocked(pace);
  }
  scrub_->pace = std::max(scrub_->pace, pace);
  scrub_->done.push_back(std::move(done));
  StartScrubJobLocked(deferred);
}

ScrubProgress Tier::scrub_progress() const {
  absl::MutexLock lock(&mutex_);
  ScrubProgress progress;
  if (scrub_ != nullptr) {
    progress.running = true;
    progress.segments = static_cast<uint32_t>(scrub_->segments.size());
    progress.segments_done = static_cast<uint32_t>(scrub_->at);
    progress.so_far = scrub_->result;
  }
  return progress;
}

void Tier::BeginScrubLocked(ScrubPace pace) {
  const absl::Duration now = parts_.clock->Now();
  scrub_ = std::make_shared<ScrubPass>();
  scrub_->pace = pace;
  for (const auto& [number, segment] : segments_) {
    if (segment->stage == Stage::kSealed) {
      scrub_->segments.emplace_back(number, segment->epoch);
    }
  }
  next_scrub_ = now + options_.scrub_interval;
  last_scrub_turn_ = now;
  scrub_allowance_ = 0;
}

void Tier::MaybeScrubLocked(DeferredCalls& deferred) {
  const absl::Duration now = parts_.clock->Now();
  if (scrub_ == nullptr && now >= next_scrub_ && recovering_ == 0 && !closing_ &&
      options_.scrub_bytes_per_second > 0) {
    BeginScrubLocked(ScrubPace::kBudget);
  }
  StartScrubJobLocked(deferred);
}

void Tier::StartScrubJobLocked(DeferredCalls& deferred) {
  if (scrub_ == nullptr || scrub_->job_runs) {
    return;
  }
  if (scrub_->pace == ScrubPace::kBudget) {
    const absl::Duration now = parts_.clock->Now();
    const double earned = static_cast<double>(options_.scrub_bytes_per_second) *
                          absl::ToDoubleSeconds(now - last_scrub_turn_);
    last_scrub_turn_ = now;
    // Never more than a slice in advance: a pause must not be made up for.
    scrub_allowance_ = std::min(scrub_allowance_ + earned, static_cast<double>(kSliceBytes));
    if (scrub_allowance_ <= 0) {
      return;
    }
  }
  scrub_->job_runs = true;
  RunJobLocked(
      Priority::kLow, [this, pass = scrub_] { ScrubJob(pass); }, deferred);
}

Segment* Tier::NextToScrubLocked(ScrubPass& pass) {
  for (; pass.at < pass.segments.size(); ++pass.at) {
    const auto found = segments_.find(pass.segments[pass.at].first);
    if (found != segments_.end() && found->second->stage == Stage::kSealed &&
        found->second->epoch == pass.segments[pass.at].second) {
      ++found->second->pins;
      return found->second.get();
    }
    pass.listed = false;
  }
  return nullptr;
}

void Tier::ScrubJob(const std::shared_ptr<ScrubPass>& pass) {
  const uint64_t before = pass->result.bytes;
  for (;;) {
    Segment* segment = nullptr;
    {
      DeferredCalls deferred;
      absl::MutexLock lock(&mutex_);
      segment = closing_ ? nullptr : NextToScrubLocked(*pass);
      if (segment == nullptr) {
        EndScrubLocked(!closing_, deferred);
        return;
      }
    }
    if (!pass->listed) {
      ListRecords(*segment, &pass->records).IgnoreError();  // what is held is listed in any case
      pass->listed = true;
      pass->next = 0;
    }
    while (pass->next < pass->records.size() && pass->result.bytes - before < kSliceBytes) {
      ScrubRecord(*pass, *segment, pass->records[pass->next++]);
    }
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    UnpinLocked(*segment, deferred);
    if (pass->next == pass->records.size()) {
      ++pass->at;
      pass->listed = false;
    }
    if (pass->result.bytes - before >= kSliceBytes) {
      scrub_allowance_ -= static_cast<double>(pass->result.bytes - before);
      pass->job_runs = false;
      StartScrubJobLocked(deferred);
      return;
    }
  }
}

bool Tier::ScrubbedLocked(const IndexedRecord& record, RecordPlace* place) const {
  if (record.kind != static_cast<uint8_t>(RecordKind::kBlock)) {
    return true;
  }
  const std::optional<RecordPlace> held = table_.Find(record.fingerprint);
  if (!held.has_value() || held->segment != record.segment || held->page != record.page) {
    return false;
  }
  *place = *held;
  return true;
}

void Tier::ScrubRecord(ScrubPass& pass, Segment& segment, const IndexedRecord& record) {
  RecordPlace place;
  {
    absl::MutexLock lock(&mutex_);
    if (closing_ || !ScrubbedLocked(record, &place)) {
      return;
    }
  }
  const uint64_t bytes = RecordBytes(record);
  if (pass.buffer.size() < bytes) {
    pass.buffer = AlignedBuffer(bytes);
  }
  const absl::Span<char> whole = pass.buffer.span().first(bytes);
  const absl::Status status = ReadFully(*segment.file, uint64_t{record.page} * kPageBytes, whole);
  const bool unreadable = !status.ok() && !absl::IsOutOfRange(status);
  RecordHeader header;
  RecordFault fault = RecordFault::kHeader;  // also of what lies behind the file's end
  if (status.ok()) {
    fault = CheckRecord(whole, {uuid(), segment.epoch, record}, &header);
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  ++pass.result.records;
  pass.result.bytes += bytes;
  ++figures_.scrubbed_records;
  figures_.scrubbed_bytes += bytes;
  if (unreadable) {
    // A drive that is gone for a while must not empty the tier.
    ++pass.result.unreadable;
    ++figures_.scrub_unreadable;
    NoteFaultLocked(status);
    return;
  }
  if (fault == RecordFault::kNone) {
    return;
  }
  if (record.kind == static_cast<uint8_t>(RecordKind::kBlock)) {
    if (!QuarantineLocked(segment, record.fingerprint, place, nullptr)) {
      return;  // a read found it, or it was deleted
    }
  } else {
    ++segment.corrupt_records;
    RestoreNoteLocked(record, deferred);
  }
  CountFaultLocked(fault);
  ++pass.result.corrupt;
  ++figures_.scrub_corrupt;
}

void Tier::RestoreNoteLocked(const IndexedRecord& record, DeferredCalls& deferred) {
  for (const auto& [name, note] : notes_) {
    if (note.segment != record.segment || note.page != record.page) {
      continue;
    }
    std::unique_ptr<Append> append = MakeOwnRecord(RecordKind::kNote, name, note.value);
    append->sequence = NextSequenceLocked();
    ++transfers_;  // until the callback below
    append->done = [this](WriteOutcome outcome, const LowerBlock& /*block*/) {
      absl::MutexLock lock(&mutex_);
      figures_.notes_restored += outcome == WriteOutcome::kWritten ? 1 : 0;
      --transfers_;
    };
    EnqueueLocked(own_writer_, std::move(append), deferred);
    return;
  }
}

void Tier::StopScrubLocked(DeferredCalls& deferred) {
  if (scrub_ != nullptr && !scrub_->job_runs) {
    EndScrubLocked(false, deferred);
  }
}

void Tier::EndScrubLocked(bool complete, DeferredCalls& deferred) {
  const std::shared_ptr<ScrubPass> pass = std::move(scrub_);
  scrub_ = nullptr;
  pass->result.complete = complete;
  figures_.scrub_passes += complete ? 1 : 0;
  for (std::function<void(const ScrubResult&)>& done : pass->done) {
    deferred.Add([callback = std::move(done), result = pass->result] { callback(result); });
  }
  MaybeReclaimLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

}  // namespace terrace
