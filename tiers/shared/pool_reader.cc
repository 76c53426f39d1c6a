#include "tiers/shared/pool_reader.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace terrace {
namespace {

constexpr double kNewestShare = 0.1;  // of the moving average
constexpr size_t kMaxHeatsKept = 65536;

ReadOutcome OutcomeOf(RecordVerdict verdict) {
  switch (verdict) {
    case RecordVerdict::kGenuine:
      return ReadOutcome::kVerified;
    case RecordVerdict::kAnother:
      return ReadOutcome::kGone;
    case RecordVerdict::kDamaged:
    case RecordVerdict::kForged:
      break;
  }
  return ReadOutcome::kCorrupt;
}

}  // namespace

void PoolReader::Read(uint64_t token,
                      const LowerTier::ReadRequest& request,
                      const Digest128& fingerprint,
                      std::function<void(ReadOutcome)> done) {
  auto read = std::make_unique<OneRead>();
  ReadOutcome refused = ReadOutcome::kVerified;
  if (!catalogue_.Find(fingerprint, &read->place) ||
      read->place.place.payload_bytes != request.block.payload_bytes ||
      !(access_.protection->ChecksumOfListed(read->place.place.checksum, fingerprint) ==
        request.block.checksum)) {
    refused = ReadOutcome::kGone;
  } else if (request.destination.size() < request.block.payload_bytes) {
    refused = ReadOutcome::kFault;
  }
  if (refused != ReadOutcome::kVerified) {
    done(refused);
    return;
  }
  read->token = token;
  read->identity = OwnedIdentity(request.identity);
  read->fingerprint = fingerprint;
  read->checksum = request.block.checksum;
  read->pages = 1 + PagesOf(request.block.payload_bytes);
  read->destination = request.destination.first(request.block.payload_bytes);
  read->deadline = request.deadline;
  read->priority = request.priority;
  read->done = std::move(done);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  ++reads_;
  if (stopped_ || reads_ > options_.max_reads) {
    EndOneLocked(std::move(read), stopped_ ? ReadOutcome::kCancelled : ReadOutcome::kFault,
                 deferred);
    return;
  }
  const auto at = std::find_if(waiting_.begin(), waiting_.end(),
                               [&](const auto& other) { return other->priority < read->priority; });
  waiting_.insert(at, std::move(read));
  PumpLocked(deferred);
}

void PoolReader::PumpLocked(DeferredCalls& deferred) {
  while (!waiting_.empty() && calls_ < options_.depth) {
    std::shared_ptr<Group> group = NextGroupLocked();  // owners: the calls that it is in
    if (group == nullptr) {
      return;  // no buffer: the next one that comes back pumps, or the next tick
    }
    ++calls_;
    ++figures_.calls;
    bytes_in_flight_ += group->bytes;
    deferred.Add([this, group] { Submit(group); });
  }
}

// The first that waits, and those among the others that lie right behind it.
std::shared_ptr<PoolReader::Group> PoolReader::NextGroupLocked() {
  const uint64_t most = std::min(options_.merge_bytes, access_.files->max_buffer_bytes());
  std::vector<size_t> chosen = {0};
  uint64_t bytes = uint64_t{waiting_.front()->pages} * kPageBytes;
  const SegmentName segment = waiting_.front()->place.segment;
  uint32_t next_page = waiting_.front()->place.place.page + waiting_.front()->pages;
  for (bool more = true; more;) {
    more = false;
    for (size_t i = 1; i < waiting_.size() && !more; ++i) {
      const OneRead& other = *waiting_[i];
      const uint64_t with = bytes + uint64_t{other.pages} * kPageBytes;
      if (other.place.place.page == next_page && other.place.segment == segment && with <= most) {
        chosen.push_back(i);
        bytes = with;
        next_page += other.pages;
        more = true;
      }
    }
  }
  auto group = std::make_shared<Group>();
  group->buffer = access_.files->TakeBuffer(bytes);
  if (group->buffer == nullptr) {
    return nullptr;
  }
  group->bytes = bytes;
  group->begun = access_.clock->Now();
  for (const size_t i : chosen) {
    group->reads.push_back(std::move(waiting_[i]));
  }
  std::erase(waiting_, nullptr);
  return group;
}

void PoolReader::Submit(const std::shared_ptr<Group>& group) {
  const OneRead& first = *group->reads.front();
  PoolCall call = access_.CallOf(PoolOp::kRead, SegmentPath(first.place.segment));
  call.offset = uint64_t{first.place.place.page} * kPageBytes;
  call.length = group->bytes;
  call.buffer = group->buffer;
  call.how = group->how;
  call.priority = first.priority;
  for (const std::unique_ptr<OneRead>& read : group->reads) {
    call.deadline = std::min(call.deadline, read->deadline);
  }
  access_.files->Submit(std::move(call),
                        [this, group](const PoolReply& reply) { CallEnded(group, reply); });
}

void PoolReader::CallEnded(const std::shared_ptr<Group>& group, const PoolReply& reply) {
  // The file system has the next call before this one's records are checked: calls that ran side by
  // side end side by side, and it would have nothing to do meanwhile.
  {
    DeferredCalls deferred;
    absl::MutexLock lock(&mutex_);
    --calls_;
    PumpLocked(deferred);
  }
  if (reply.status.ok()) {
    group->got = std::min(reply.bytes, group->bytes);
    hashing_.Run(group->reads.front()->priority, [this, group] { Verify(group); });
    return;
  }
  ReadOutcome outcome = ReadOutcome::kFault;
  if (absl::IsNotFound(reply.status)) {
    outcome = ReadOutcome::kGone;  // removed by its owner
  } else if (absl::IsDeadlineExceeded(reply.status)) {
    outcome = ReadOutcome::kDeadline;
  } else if (absl::IsCancelled(reply.status)) {
    outcome = ReadOutcome::kCancelled;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (outcome == ReadOutcome::kFault || outcome == ReadOutcome::kDeadline) {
      ++figures_.faults;
      figures_.mount_faults +=
          absl::IsDeadlineExceeded(reply.status) || absl::IsUnavailable(reply.status) ? 1 : 0;
      figures_.last_fault = std::string(reply.status.message());
    }
  }
  End(group, std::vector<ReadOutcome>(group->reads.size(), outcome));
}

RecordVerdict PoolReader::Take(const OneRead& read, absl::Span<const char> bytes) const {
  ExpectedRecord expected;
  expected.place = {access_.pool, read.place.life_id, read.place.segment.number,
                    read.place.place.page};
  expected.identity = read.identity.view();
  expected.fingerprint = read.fingerprint;
  expected.checksum = read.checksum;
  return access_.protection->ReadRecord(expected, bytes, read.destination);
}

void PoolReader::Verify(const std::shared_ptr<Group>& group) {
  const absl::Span<const char> memory = group->buffer->memory().first(group->got);
  std::vector<ReadOutcome> outcomes;
  bool doubtful = false;
  uint64_t forged = 0;
  uint64_t at = 0;
  for (const std::unique_ptr<OneRead>& read : group->reads) {
    const uint64_t bytes = uint64_t{read->pages} * kPageBytes;
    const RecordVerdict verdict =
        Take(*read, memory.subspan(std::min<uint64_t>(at, memory.size())));
    outcomes.push_back(OutcomeOf(verdict));
    forged += verdict == RecordVerdict::kForged ? 1 : 0;
    doubtful = doubtful || outcomes.back() == ReadOutcome::kCorrupt;
    at += bytes;
  }
  if (doubtful && group->how == ReadHow::kKept) {
    group->how = ReadHow::kFresh;
    {
      absl::MutexLock lock(&mutex_);
      ++figures_.repeated;
      ++figures_.calls;
      ++calls_;  // beyond the depth, if need be: it has its buffer already
    }
    Submit(group);
    return;
  }
  if (forged > 0) {
    absl::MutexLock lock(&mutex_);
    figures_.forged += forged;
  }
  End(group, std::move(outcomes));
}

void PoolReader::End(const std::shared_ptr<Group>& group, std::vector<ReadOutcome> outcomes) {
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const OneRead& read = *group->reads[i];
    if (outcomes[i] == ReadOutcome::kCorrupt || outcomes[i] == ReadOutcome::kGone) {
      catalogue_.Remove(read.fingerprint, read.place.segment, read.place.place.page);
    }
  }
  group->buffer.reset();
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  const absl::Duration took = access_.clock->Now() - group->begun;
  if (outcomes.front() == ReadOutcome::kVerified && took > absl::ZeroDuration()) {
    // All that was in flight shared the medium meanwhile.
    const double rate = static_cast<double>(bytes_in_flight_) / absl::ToDoubleSeconds(took);
    double& average = figures_.bytes_per_second;
    average = average == 0 ? rate : average + kNewestShare * (rate - average);
  }
  bytes_in_flight_ -= group->bytes;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i] == ReadOutcome::kVerified) {
      ++figures_.reads;
      figures_.read_bytes += group->reads[i]->destination.size();
      if (heats_.size() < kMaxHeatsKept || heats_.contains(group->reads[i]->place.segment)) {
        ++heats_[group->reads[i]->place.segment];
      }
    }
    figures_.corrupt += outcomes[i] == ReadOutcome::kCorrupt ? 1 : 0;
    EndOneLocked(std::move(group->reads[i]), outcomes[i], deferred);
  }
  PumpLocked(deferred);
}

void PoolReader::EndOneLocked(std::unique_ptr<OneRead> read,
                              ReadOutcome outcome,
                              DeferredCalls& deferred) {
  --reads_;
  deferred.Add([done = std::move(read->done), outcome] { done(outcome); });
}

void PoolReader::Cancel(uint64_t token) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [token](const auto& read) { return read->token == token; });
  if (found != waiting_.end()) {
    std::unique_ptr<OneRead> read = std::move(*found);
    waiting_.erase(found);
    EndOneLocked(std::move(read), ReadOutcome::kCancelled, deferred);
  }
}

void PoolReader::Expire() {
  const absl::Duration now = access_.clock->Now();
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  for (std::unique_ptr<OneRead>& read : waiting_) {
    if (read->deadline <= now) {
      EndOneLocked(std::move(read), ReadOutcome::kDeadline, deferred);
    }
  }
  std::erase(waiting_, nullptr);
  PumpLocked(deferred);
}

void PoolReader::Stop() {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  for (std::unique_ptr<OneRead>& read : waiting_) {
    EndOneLocked(std::move(read), ReadOutcome::kCancelled, deferred);
  }
  waiting_.clear();
}

absl::Duration PoolReader::Estimate(uint64_t bytes) const {
  absl::MutexLock lock(&mutex_);
  if (figures_.bytes_per_second == 0) {
    return absl::ZeroDuration();
  }
  return absl::Seconds(static_cast<double>(bytes_in_flight_ + bytes) / figures_.bytes_per_second);
}

std::vector<ReportedHeat> PoolReader::TakeHeats() {
  std::vector<ReportedHeat> heats;
  absl::MutexLock lock(&mutex_);
  for (const auto& [segment, reads] : heats_) {
    heats.push_back({segment, reads});
  }
  heats_.clear();
  return heats;
}

PoolReaderFigures PoolReader::figures() const {
  absl::MutexLock lock(&mutex_);
  PoolReaderFigures figures = figures_;
  figures.in_flight = reads_;
  return figures;
}

}  // namespace terrace
