// What is taken, and its way into a segment. What blocks is in pool_writer_files.cc.
#include "tiers/shared/pool_writer.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/segment_format.h"
#include "tiers/vocab/check.h"

namespace terrace {

WriteOutcome OutcomeOfFailure(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) {
    return WriteOutcome::kNoSpace;
  }
  return absl::IsPermissionDenied(status) ? WriteOutcome::kReadOnly : WriteOutcome::kFault;
}

PoolWriter::PoolWriter(const PoolWriterOptions& options, const PoolWriterParts& parts)
    : options_(options), parts_(parts) {}

PoolWriter::~PoolWriter() {
  absl::MutexLock lock(&mutex_);
  TERRACE_CHECK(queue_.empty() && batches_in_flight_ == 0);
}

// ---------------------------------------------------------------- taking

WriteOutcome PoolWriter::RefusalLocked(const Digest128& fingerprint, uint64_t bytes) const {
  if (fenced_ || closing_) {
    return WriteOutcome::kClosed;
  }
  if (!begun_) {
    return WriteOutcome::kFault;
  }
  if (publishing_.contains(fingerprint)) {
    return WriteOutcome::kHeld;
  }
  return figures_.waiting_bytes + bytes > options_.max_publishing_bytes ? WriteOutcome::kBusy
                                                                        : WriteOutcome::kWritten;
}

void PoolWriter::Publish(const WriteRequest& request,
                         const Digest128& fingerprint,
                         std::function<void()> released,
                         std::function<void(WriteOutcome)> done) {
  auto pending = std::make_unique<Pending>();
  pending->identity = OwnedIdentity(request.identity);
  pending->parent = std::string(request.parent);
  pending->metadata = std::string(request.metadata);
  pending->first_token = request.first_token;
  pending->tokens = request.tokens;
  pending->payload_bytes = request.payload_bytes;
  pending->pages =
      RecordPages(request.payload_bytes, static_cast<uint32_t>(request.metadata.size()));
  pending->slot = request.slot;
  pending->checksum = request.checksum;
  pending->fingerprint = fingerprint;
  pending->awaited = request.awaited;
  pending->deadline = request.deadline;
  pending->released = std::move(released);
  pending->done = std::move(done);
  const uint64_t bytes = uint64_t{pending->pages} * kPageBytes;
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  const WriteOutcome refusal = bytes > parts_.access.files->max_buffer_bytes()
                                   ? WriteOutcome::kNoSpace
                                   : RefusalLocked(fingerprint, bytes);
  if (refusal != WriteOutcome::kWritten) {
    deferred.Add(
        [released = std::move(pending->released), done = std::move(pending->done), refusal] {
          released();
          done(refusal);
        });
    return;
  }
  publishing_.insert(fingerprint);
  awaited_ += pending->awaited == Awaited::kYes ? 1 : 0;
  figures_.waiting_bytes += bytes;
  queue_.push_back(std::move(pending));
  PumpLocked(deferred);
}

void PoolWriter::StopCountingLocked(Pending& pending) {
  if (std::exchange(pending.counted, false)) {
    figures_.waiting_bytes -= uint64_t{pending.pages} * kPageBytes;
  }
}

void PoolWriter::EndPendingLocked(std::unique_ptr<Pending> pending,
                                  WriteOutcome outcome,
                                  DeferredCalls& deferred) {
  publishing_.erase(pending->fingerprint);
  awaited_ -= pending->awaited == Awaited::kYes ? 1 : 0;
  StopCountingLocked(*pending);
  if (outcome == WriteOutcome::kWritten) {
    ++figures_.published;
    figures_.published_bytes += pending->payload_bytes;
  }
  deferred.Add([released = std::move(pending->released), done = std::move(pending->done), outcome] {
    if (released != nullptr) {
      released();
    }
    done(outcome);
  });
}

void PoolWriter::ExpireLocked(DeferredCalls& deferred) {
  const absl::Duration now = parts_.access.clock->Now();
  for (auto at = queue_.begin(); at != queue_.end();) {
    if ((*at)->deadline <= now) {
      std::unique_ptr<Pending> pending = std::move(*at);
      at = queue_.erase(at);
      EndPendingLocked(std::move(pending), WriteOutcome::kDeadline, deferred);
    } else {
      ++at;
    }
  }
}

void PoolWriter::NoteFaultLocked(const absl::Status& status) {
  ++figures_.write_faults;
  figures_.last_fault = std::string(status.message());
}

// ---------------------------------------------------------------- into a segment

bool PoolWriter::FitsLocked(const Segment& segment, uint32_t pages, uint32_t more_records) const {
  return uint64_t{segment.next_page} + pages + FooterPages(segment.placed_records + more_records) <=
         segment.file_pages;
}

void PoolWriter::DetachLocked() {
  current_->detached = true;
  current_ = std::exchange(spare_, nullptr);
}

void PoolWriter::PumpLocked(DeferredCalls& deferred) {
  while (!queue_.empty() && current_ != nullptr && batches_in_flight_ < options_.write_depth) {
    if (!FitsLocked(*current_, queue_.front()->pages, 1)) {
      if (current_->placed_records == 0) {  // larger than a segment
        std::unique_ptr<Pending> pending = std::move(queue_.front());
        queue_.pop_front();
        EndPendingLocked(std::move(pending), WriteOutcome::kNoSpace, deferred);
      } else {
        DetachLocked();
      }
      continue;
    }
    std::unique_ptr<Batch> batch = FillBatchLocked();
    if (batch == nullptr) {
      return;  // no buffer: when one comes back, or with the next tick
    }
    Batch* borrowed = batch.get();  // its segment keeps it until it has ended
    const Priority priority = PriorityOf(*batch);
    current_->batches.push_back(std::move(batch));
    ++batches_in_flight_;
    deferred.Add([this, borrowed, priority] {
      parts_.hashing->Run(priority, [this, borrowed] { CopyBatch(borrowed); });
    });
  }
}

std::unique_ptr<PoolWriter::Batch> PoolWriter::FillBatchLocked() {
  const uint64_t room =
      std::min(options_.batch_bytes, parts_.access.files->max_buffer_bytes()) / kPageBytes;
  uint32_t pages = 0;
  uint32_t count = 0;
  for (const std::unique_ptr<Pending>& pending : queue_) {
    if (count > 0 && (pages + pending->pages > room ||
                      !FitsLocked(*current_, pages + pending->pages, count + 1))) {
      break;
    }
    pages += pending->pages;
    ++count;
  }
  auto batch = std::make_unique<Batch>();
  batch->buffer = parts_.access.files->TakeBuffer(uint64_t{pages} * kPageBytes);
  if (batch->buffer == nullptr) {
    return nullptr;
  }
  batch->segment = current_;
  batch->first_page = current_->next_page;
  for (; count > 0; --count) {
    std::unique_ptr<Pending> pending = std::move(queue_.front());
    queue_.pop_front();
    pending->page = current_->next_page;
    pending->sequence = next_sequence_++;
    current_->next_page += pending->pages;
    ++current_->placed_records;
    batch->records.push_back(std::move(pending));
  }
  batch->end_page = current_->next_page;
  return batch;
}

// What somebody waits for goes on beside that one's next copies, and not behind them.
Priority PoolWriter::PriorityOf(const Batch& batch) {
  const bool awaited =
      std::any_of(batch.records.begin(), batch.records.end(),
                  [](const auto& pending) { return pending->awaited == Awaited::kYes; });
  return awaited ? Priority::kNormal : Priority::kLow;
}

// On the hashing executor. Nobody else touches the batch until its write has ended.
void PoolWriter::CopyBatch(Batch* batch) {
  uint64_t life_id = 0;
  {
    absl::MutexLock lock(&mutex_);
    life_id = life_id_;
  }
  const absl::Span<char> memory = batch->buffer->memory();
  for (const std::unique_ptr<Pending>& pending : batch->records) {
    const absl::Span<char> record =
        memory.subspan(uint64_t{pending->page - batch->first_page} * kPageBytes,
                       uint64_t{pending->pages} * kPageBytes);
    PublishedRecord published;
    published.place = {parts_.access.pool, life_id, batch->segment->name.number, pending->page};
    published.sequence = pending->sequence;
    published.identity = pending->identity.view();
    published.fingerprint = pending->fingerprint;
    published.payload = pending->slot.subspan(kPageBytes, pending->payload_bytes);
    published.checksum = pending->checksum;
    published.parent = pending->parent;
    published.first_token = pending->first_token;
    published.tokens = pending->tokens;
    published.metadata = pending->metadata;
    pending->rotten = !parts_.access.protection->WriteRecord(
        published, [&pending] { std::exchange(pending->released, nullptr)(); }, record);
  }
  PoolCall call = parts_.access.CallOf(PoolOp::kWrite, SegmentPath(batch->segment->name));
  call.offset = uint64_t{batch->first_page} * kPageBytes;
  call.length = uint64_t{batch->end_page - batch->first_page} * kPageBytes;
  call.buffer = batch->buffer;
  call.priority = PriorityOf(*batch);
  parts_.access.files->Submit(
      std::move(call), [this, batch](const PoolReply& reply) { BatchEnded(batch, reply.status); });
}

void PoolWriter::BatchEnded(Batch* batch, const absl::Status& status) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  batch->ended = true;
  batch->status = status;
  batch->buffer.reset();
  --batches_in_flight_;
  if (status.ok()) {
    figures_.written_bytes += uint64_t{batch->end_page - batch->first_page} * kPageBytes;
  } else {
    NoteFaultLocked(status);
  }
  AdvanceLocked(*batch->segment, deferred);
  PumpLocked(deferred);
  if (IsAwaitedAndIdleLocked()) {
    ++waking_;
    deferred.Add([this] {
      parts_.wake();
      absl::MutexLock woken(&mutex_);
      --waking_;
    });
  }
}

void PoolWriter::AdvanceLocked(Segment& segment, DeferredCalls& deferred) {
  while (!segment.batches.empty() && segment.batches.front()->ended) {
    const std::unique_ptr<Batch> batch = std::move(segment.batches.front());
    segment.batches.pop_front();
    if (!batch->status.ok() && !segment.failed) {
      segment.failed = true;
      if (&segment == current_) {
        DetachLocked();
      }
      segment.detached = true;
    }
    for (std::unique_ptr<Pending>& pending : batch->records) {
      if (segment.failed) {
        const WriteOutcome outcome =
            batch->status.ok() ? WriteOutcome::kFault : OutcomeOfFailure(batch->status);
        EndPendingLocked(std::move(pending), outcome, deferred);
      } else {
        StopCountingLocked(*pending);
        segment.written.push_back(std::move(pending));
      }
    }
    if (!segment.failed) {
      segment.written_page = batch->end_page;
    }
  }
}

// ---------------------------------------------------------------- what heads say beside

void PoolWriter::AddKills(const std::vector<Kill>& kills, std::function<void(WriteOutcome)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (!begun_ || fenced_ || closing_ || kills_.size() + kills.size() > kMaxKills) {
    const WriteOutcome outcome = closing_             ? WriteOutcome::kClosed
                                 : begun_ && !fenced_ ? WriteOutcome::kNoSpace
                                                      : WriteOutcome::kFault;
    deferred.Add([done = std::move(done), outcome] { done(outcome); });
    return;
  }
  kills_.insert(kills_.end(), kills.begin(), kills.end());
  told_by_head_.push_back([done = std::move(done)](bool told) {
    done(told ? WriteOutcome::kWritten : WriteOutcome::kFault);
  });
  dirty_ = true;
}

void PoolWriter::AddGeneration(const RaisedGeneration& raised,
                               std::function<void(absl::Status)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  uint64_t& known = generations_[raised.namespace_digest];
  known = std::max(known, raised.generation);
  generations_changed_.insert(raised.namespace_digest);
  dirty_ = true;
  if (!begun_ || fenced_ || closing_ || generations_.size() > kMaxGenerations) {
    deferred.Add([done = std::move(done)] {
      done(absl::UnavailableError("pool: it cannot be written now"));
    });
    return;
  }
  told_by_head_.push_back([done = std::move(done)](bool told) {
    done(told ? absl::OkStatus() : absl::UnavailableError("pool: it cannot be written now"));
  });
}

void PoolWriter::Repeat(const std::vector<RaisedGeneration>& raised) {
  absl::MutexLock lock(&mutex_);
  for (const RaisedGeneration& one : raised) {
    if (generations_.size() >= kMaxGenerations && !generations_.contains(one.namespace_digest)) {
      continue;
    }
    uint64_t& known = generations_[one.namespace_digest];
    if (one.generation > known) {
      known = one.generation;
      generations_changed_.insert(one.namespace_digest);
      dirty_ = true;
    }
  }
}

std::vector<RaisedGeneration> PoolWriter::Generations() const {
  std::vector<RaisedGeneration> all;
  absl::MutexLock lock(&mutex_);
  all.reserve(generations_.size());
  for (const auto& [digest, generation] : generations_) {
    all.push_back({digest, generation});
  }
  return all;
}

void PoolWriter::Adopt(const WholeReport& whole, std::function<void(bool)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (!begun_ || fenced_ || closing_) {
    deferred.Add([done = std::move(done)] { done(false); });
    return;
  }
  for (const ReportedSegment& reported : whole.segments) {
    if (reported.state == ReportedState::kGone || segments_.contains(reported.name)) {
      continue;
    }
    TakeOverLocked(reported);
    parts_.catalogue->Keep(life_.node, reported.name, reported.file_pages);
  }
  const size_t room = kMaxKills - std::min<size_t>(kMaxKills, kills_.size());
  kills_.insert(
      kills_.end(), whole.kills.begin(),
      whole.kills.begin() + static_cast<int64_t>(std::min<size_t>(room, whole.kills.size())));
  told_by_head_.push_back(std::move(done));
  dirty_ = true;
}

void PoolWriter::TakeOverLocked(const ReportedSegment& reported) {
  auto segment = std::make_unique<Segment>();
  segment->name = reported.name;
  // What was open stays as far as it was published.
  segment->state = reported.state == ReportedState::kOpen ? ReportedState::kCut : reported.state;
  segment->file_pages = reported.file_pages;
  segment->next_page = segment->written_page = segment->synced_page = reported.end_page;
  segment->placed_records = segment->synced_records = reported.records;
  segment->detached = true;
  segments_[reported.name] = std::move(segment);
}

void PoolWriter::SetHeats(std::vector<ReportedHeat> heats) {
  heats.resize(std::min<size_t>(heats.size(), kMaxReportedHeats));
  absl::MutexLock lock(&mutex_);
  heats_ = std::move(heats);  // worth no head of its own
}

void PoolWriter::Retire(const std::vector<SegmentName>& names) {
  absl::MutexLock lock(&mutex_);
  for (const SegmentName& name : names) {
    const auto found = segments_.find(name);
    if (found == segments_.end() || found->second->state == ReportedState::kOpen ||
        found->second->state == ReportedState::kGone) {
      continue;
    }
    found->second->state = ReportedState::kGone;
    found->second->changed = true;
    dirty_ = true;
  }
}

void PoolWriter::SetRoom(bool there_is_room) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  room_ = there_is_room;
}

// ---------------------------------------------------------------- the end

void PoolWriter::Fence(const std::string& because) {
  {
    absl::MutexLock lock(&mutex_);
    fenced_ = true;
    figures_.last_fault = because;
  }
  Abandon(WriteOutcome::kClosed);
}

void PoolWriter::Close() {
  absl::MutexLock lock(&mutex_);
  closing_ = true;
  dirty_ = true;
}

bool PoolWriter::Closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_ || !begun_ || fenced_;
}

void PoolWriter::Abandon(WriteOutcome outcome) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  while (!queue_.empty()) {
    std::unique_ptr<Pending> pending = std::move(queue_.front());
    queue_.pop_front();
    EndPendingLocked(std::move(pending), outcome, deferred);
  }
  for (const auto& [name, segment] : segments_) {
    for (auto* list : {&segment->written, &segment->synced}) {
      for (std::unique_ptr<Pending>& pending : *list) {
        EndPendingLocked(std::move(pending), outcome, deferred);
      }
      list->clear();
    }
  }
  for (std::function<void(bool)>& told : told_by_head_) {
    deferred.Add([told = std::move(told)] { told(false); });
  }
  told_by_head_.clear();
}

void PoolWriter::SayAgain() {
  absl::MutexLock lock(&mutex_);
  dirty_ = true;
}

bool PoolWriter::Idle() const {
  absl::MutexLock lock(&mutex_);
  return queue_.empty() && batches_in_flight_ == 0 && publishing_.empty() && waking_ == 0;
}

// ---------------------------------------------------------------- what is known

PoolWriterFigures PoolWriter::figures() const {
  absl::MutexLock lock(&mutex_);
  PoolWriterFigures figures = figures_;
  for (const auto& [name, segment] : segments_) {
    figures.own_bytes += segment->removed ? 0 : uint64_t{segment->file_pages} * kPageBytes;
    figures.own_segments += segment->state == ReportedState::kGone ? 0 : 1;
  }
  return figures;
}

std::vector<ReportedSegment> PoolWriter::Reclaimable() const {
  std::vector<ReportedSegment> segments;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, segment] : segments_) {
    if (segment->state == ReportedState::kSealed || segment->state == ReportedState::kCut) {
      segments.push_back(ReportOf(*segment));
    }
  }
  return segments;
}

NodeLife PoolWriter::life() const {
  absl::MutexLock lock(&mutex_);
  return life_;
}

}  // namespace terrace
