#include "tiers/shared/pool_tier.h"

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
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "tiers/segment/record_format.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr absl::Duration kTailPause = absl::Milliseconds(100);
// What a deletion does to records that others publish before they hear of it; longer than that
// takes.
constexpr absl::Duration kLateComers = absl::Seconds(60);
constexpr size_t kMaxDeleted = 65536;
constexpr absl::Duration kLook = absl::Milliseconds(2);  // between two looks at what ends soon

}  // namespace

PoolTier::PoolTier(const SharedTierOptions& options, const SharedTierParts& parts)
    : options_(options), parts_(parts) {
  absl::MutexLock lock(&mutex_);
  next_heat_ = parts_.clock->Now();
}

PoolTier::~PoolTier() {
  closing_.store(true);
  FinishClose();
}

// What is in flight ends soon, because PoolFiles was stopped.
void PoolTier::FinishClose() {
  serving_.store(false);
  parts_.files->Stop();
  if (has_pool_.load()) {
    opened_->reader.Stop();
  }
  while (!IdleNow()) {
    absl::SleepFor(kLook);
  }
  closed_.store(true);
}

bool PoolTier::IdleNow() {
  std::vector<std::shared_ptr<PoolWriter>> writers;
  {
    absl::MutexLock lock(&mutex_);
    if (tailing_ || writing_) {
      return false;
    }
    writers = old_writers_;
    if (writer_ != nullptr) {
      writers.push_back(writer_);
    }
  }
  for (const std::shared_ptr<PoolWriter>& writer : writers) {
    writer->Abandon(WriteOutcome::kClosed);
    if (!writer->Idle()) {
      return false;
    }
  }
  return !has_pool_.load() || opened_->reader.figures().in_flight == 0;
}

// ---------------------------------------------------------------- lookups and reads

Digest128 PoolTier::FingerprintOf(const BlockIdentity& identity) const {
  return opened_->protection->Fingerprint(identity);
}

bool PoolTier::Lookup(const BlockIdentity& identity, LowerBlock* out) {
  FoundPlace found;
  if (!Serving()) {
    return false;
  }
  const Digest128 fingerprint = FingerprintOf(identity);
  if (IsDeleted(fingerprint) || !opened_->catalogue.Find(fingerprint, &found)) {
    return false;
  }
  out->payload_bytes = found.place.payload_bytes;
  out->checksum = opened_->protection->ChecksumOfListed(found.place.checksum, fingerprint);
  out->location = 0;
  return true;
}

// What others published before they heard of a deletion may have become known since.
bool PoolTier::IsDeleted(const Digest128& fingerprint) const {
  if (!any_deleted_.load()) {
    return false;
  }
  absl::MutexLock lock(&mutex_);
  return deleted_.contains(fingerprint);
}

bool PoolTier::Holds(const BlockIdentity& identity) const {
  return has_pool_.load() && opened_->catalogue.Holds(FingerprintOf(identity));
}

uint64_t PoolTier::Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) {
  const uint64_t token = next_token_.fetch_add(1);
  if (!Serving()) {
    done(ReadOutcome::kFault);
  } else {
    opened_->reader.Read(token, request, FingerprintOf(request.identity), std::move(done));
  }
  return token;
}

void PoolTier::Cancel(uint64_t token) {
  if (has_pool_.load()) {
    opened_->reader.Cancel(token);
  }
}

absl::Duration PoolTier::EstimateRead(uint64_t bytes) const {
  return has_pool_.load() ? opened_->reader.Estimate(bytes) : absl::ZeroDuration();
}

// ---------------------------------------------------------------- publishing

std::shared_ptr<PoolWriter> PoolTier::WriterNow() const {
  absl::MutexLock lock(&mutex_);
  return writer_;
}

void PoolTier::Publish(const WriteRequest& request,
                       std::function<void()> released,
                       std::function<void(WriteOutcome)> done) {
  TERRACE_CHECK(request.payload_bytes > 0 && request.metadata.size() <= kMaxMetadataBytes &&
                request.slot.size() >= kPageBytes + uint64_t{request.payload_bytes});
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  WriteOutcome refusal = WriteOutcome::kWritten;
  if (closing_.load()) {
    refusal = WriteOutcome::kClosed;
  } else if (writer == nullptr || !mount_ok_.load()) {
    refusal = WriteOutcome::kFault;
  } else if (request.payload_bytes > options_.max_payload_bytes) {
    refusal = WriteOutcome::kNoSpace;
  } else if (Holds(request.identity)) {
    refusal = WriteOutcome::kHeld;
  }
  if (refusal != WriteOutcome::kWritten) {
    released();
    done(refusal);
    return;
  }
  const Digest128 fingerprint = FingerprintOf(request.identity);
  {
    absl::MutexLock lock(&mutex_);
    deleted_.erase(fingerprint);  // it was put again
  }
  writer->Publish(request, fingerprint, std::move(released), std::move(done));
}

void PoolTier::Delete(absl::Span<const BlockIdentity> identities,
                      std::function<void(WriteOutcome)> done) {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr || closing_.load()) {
    done(closing_.load() ? WriteOutcome::kClosed : WriteOutcome::kFault);
    return;
  }
  std::vector<Kill> kills;
  const absl::Duration until = parts_.clock->Now() + kLateComers;
  for (const BlockIdentity& identity : identities) {
    const Digest128 fingerprint = FingerprintOf(identity);
    {
      absl::MutexLock lock(&mutex_);
      if (deleted_.size() < kMaxDeleted) {
        deleted_[fingerprint] = until;
        any_deleted_.store(true);
      }
    }
    for (const Kill& kill : opened_->catalogue.Places(fingerprint)) {
      kills.push_back(kill);
      opened_->catalogue.Apply(kill);
    }
  }
  if (kills.empty()) {
    done(WriteOutcome::kWritten);
    return;
  }
  writer->AddKills(kills, std::move(done));
}

// ---------------------------------------------------------------- generations

void PoolTier::RaiseGeneration(const RaisedGeneration& raised,
                               std::function<void(absl::Status)> done) {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  {
    absl::MutexLock lock(&mutex_);
    uint64_t& known = known_generations_[raised.namespace_digest];
    known = std::max(known, raised.generation);
  }
  if (writer == nullptr) {
    done(absl::UnavailableError("pool: it is not open"));
    return;
  }
  writer->AddGeneration(raised, std::move(done));
}

bool PoolTier::SeenByAll(const RaisedGeneration& raised) const {
  return has_pool_.load() && opened_->tailer.SeenByAll(raised, options_.dead_after);
}

void PoolTier::WatchGenerations(LearnGenerations learn) {
  {
    absl::MutexLock lock(&watch_mutex_);
    learn_ = std::move(learn);
  }
  absl::MutexLock lock(&mutex_);
  // Nothing is found before the watcher has heard what is known; the next look at the pool tells
  // it.
  tell_all_ = true;
  serving_.store(false);
  next_tail_ = absl::ZeroDuration();
}

// ---------------------------------------------------------------- time and the end

void PoolTier::Tick() {
  const absl::Duration now = parts_.clock->Now();
  if (closed_.load()) {
    return;
  }
  if (has_pool_.load()) {
    opened_->reader.Expire();
  }
  StartWriting();
  absl::MutexLock lock(&mutex_);
  if (!tailing_ && !closing_.load() && next_tail_ <= now) {
    tailing_ = true;
    next_tail_ = now + kTailPause;
    parts_.maintenance->Run(Priority::kNormal, [this] { RunTail(); });
  }
}

void PoolTier::StartWriting() {
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer == nullptr || !mount_ok_.load() || !writer->WantsWork()) {
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (!writing_ && !closing_.load()) {
    writing_ = true;
    parts_.maintenance->Run(Priority::kNormal, [this] { RunWrite(); });
  }
}

void PoolTier::Close(absl::Duration deadline, std::function<void(absl::Status)> done) {
  if (closing_.exchange(true)) {
    done(absl::OkStatus());
    return;
  }
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  if (writer != nullptr) {
    writer->Close();
  }
  parts_.maintenance->Run(Priority::kHigh, [this, writer, deadline, done = std::move(done)] {
    while (writer != nullptr && !writer->Closed() && parts_.clock->Now() < deadline) {
      bool mine = false;
      {
        absl::MutexLock lock(&mutex_);
        mine = !std::exchange(writing_, true);
      }
      if (mine) {
        const absl::Status status = writer->Work();
        absl::MutexLock lock(&mutex_);
        writing_ = false;
      }
      absl::SleepFor(kLook);
    }
    const bool whole = writer == nullptr || writer->Closed();
    if (has_pool_.load()) {
      const absl::Status flushed = opened_->catalogue.Flush();
      static_cast<void>(flushed);  // what is lost is read again
    }
    FinishClose();
    done(whole ? absl::OkStatus()
               : absl::DeadlineExceededError("pool: not all that was taken is published"));
  });
}

// ---------------------------------------------------------------- what is known

SharedTierFigures PoolTier::figures() const {
  SharedTierFigures figures;
  figures.files = parts_.files->figures();
  figures.capacity_bytes = options_.capacity_bytes;
  figures.auth = Auth();
  if (closed_.load()) {
    figures.state = PoolState::kClosed;
  } else if (foreign_.load()) {
    figures.state = PoolState::kForeign;
  } else if (mount_failed_.load()) {
    figures.state = PoolState::kSuspended;
  } else if (serving_.load()) {
    figures.state =
        opened_->tailer.behind_segments() > 0 ? PoolState::kCatchingUp : PoolState::kOnline;
  }
  const std::shared_ptr<PoolWriter> writer = WriterNow();
  {
    absl::MutexLock lock(&mutex_);
    figures.last_fault = last_fault_;
    figures.reclaimed_segments = reclaimed_;
    figures.adopted_nodes = adopted_;
    figures.orphans_removed = orphans_;
  }
  if (!has_pool_.load()) {
    return figures;
  }
  figures.pool_uuid = opened_->access.pool;
  figures.records = opened_->catalogue.records();
  figures.catalogue_bytes = opened_->catalogue.memory_bytes();
  const PoolReaderFigures reads = opened_->reader.figures();
  figures.reads = reads.reads;
  figures.read_bytes = reads.read_bytes;
  figures.read_calls = reads.calls;
  figures.read_faults = reads.faults;
  figures.corrupt = reads.corrupt;
  figures.forged = reads.forged;
  const PoolTailerFigures tail = opened_->tailer.figures();
  figures.heads_read = tail.heads_read;
  figures.footers_read = tail.footers_read;
  figures.segments_scanned = tail.segments_scanned;
  if (writer != nullptr) {
    const PoolWriterFigures own = writer->figures();
    figures.own_bytes = own.own_bytes;
    figures.published = own.published;
    figures.published_bytes = own.published_bytes;
    figures.written_bytes = own.written_bytes;
    figures.write_faults = own.write_faults;
    figures.segments = own.own_segments;
  }
  figures.pool_bytes = figures.own_bytes;
  for (const PoolNodeView& node : opened_->tailer.Nodes()) {
    ++figures.nodes;
    figures.segments += node.segments;
    figures.pool_bytes += node.bytes;
  }
  ++figures.nodes;  // this one
  return figures;
}

std::vector<PoolNodeView> PoolTier::Nodes() const {
  std::vector<PoolNodeView> nodes;
  if (!has_pool_.load()) {
    return nodes;
  }
  nodes = opened_->tailer.Nodes();
  if (const std::shared_ptr<PoolWriter> writer = WriterNow(); writer != nullptr) {
    const PoolWriterFigures own = writer->figures();
    PoolNodeView self;
    self.node = options_.node;
    self.self = true;
    self.epoch = writer->life().epoch;
    self.segments = own.own_segments;
    self.bytes = own.own_bytes;
    self.records = own.published;
    nodes.insert(nodes.begin(), self);
  }
  return nodes;
}

absl::StatusOr<std::unique_ptr<SharedTier>> OpenSharedTier(const SharedTierOptions& options,
                                                           const SharedTierParts& parts) {
  if (options.node.IsZero()) {
    return absl::InvalidArgumentError("node: must not be zero");
  }
  const uint64_t record =
      (uint64_t{
           RecordPages(static_cast<uint32_t>(std::min(options.max_payload_bytes, kMaxPayloadBytes)),
                       kMaxMetadataBytes)} +
       4) *
      kPageBytes;
  if (options.max_payload_bytes == 0 || options.max_payload_bytes > kMaxPayloadBytes) {
    return absl::InvalidArgumentError("max_payload_bytes: must be from 1 to 64 MiB");
  }
  if (options.segment_bytes % kPageBytes != 0 || options.segment_bytes < record ||
      options.segment_bytes > uint64_t{16} << 30) {
    return absl::InvalidArgumentError(
        absl::StrCat("segment_bytes: must be a multiple of 4096 from ", record, " to 16 GiB"));
  }
  if (options.capacity_bytes < 2 * options.segment_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("capacity_bytes: must be at least ", 2 * options.segment_bytes));
  }
  if (parts.files->max_buffer_bytes() < record) {
    return absl::InvalidArgumentError("max_payload_bytes: larger than a buffer of the pool");
  }
  return std::make_unique<PoolTier>(options, parts);
}

}  // namespace terrace
