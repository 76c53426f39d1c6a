// The read breaker: a medium that fails every read is not asked for each of them again and again.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/tier.h"

namespace terrace {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(200);
constexpr absl::Duration kLongestPause = absl::Seconds(10);
constexpr absl::Duration kProbeDeadline = absl::Seconds(5);

}  // namespace

void Tier::UpdateServingLocked() {
  serving_.store(!detached_ && !closing_ && !reads_suspended_);
}

void Tier::ReadFailedLocked(Segment& segment) {
  ++read_faults_in_a_row_;
  probed_file_ = segment.file;
  if (read_faults_in_a_row_ < options_.max_read_faults || reads_suspended_) {
    return;
  }
  reads_suspended_ = true;
  ++figures_.read_suspensions;
  probe_pause_ = kFirstPause;
  next_probe_ = parts_.clock->Now() + probe_pause_;
  UpdateServingLocked();
}

void Tier::MaybeProbeReadsLocked(DeferredCalls& deferred) {
  if (!reads_suspended_ || probing_reads_ || closing_ || parts_.clock->Now() < next_probe_) {
    return;
  }
  probing_reads_ = true;
  ++transfers_;  // until it has ended
  deferred.Add([this] { ProbeReads(); });
}

void Tier::ProbeReads() {
  // Where it failed last. Not a job: a medium that hangs would keep the executor's thread.
  std::shared_ptr<File> file;
  {
    absl::MutexLock lock(&mutex_);
    file = probed_file_;
  }
  const auto page = std::make_shared<AlignedBuffer>(kPageBytes);  // and the transfer's completion
  IoRequest request;
  request.kind = IoKind::kRead;
  request.file = file.get();
  request.pieces = {page->span()};
  request.priority = Priority::kHigh;
  request.deadline = parts_.clock->Now() + kProbeDeadline;
  const absl::StatusOr<uint64_t> token = parts_.io->Submit(
      std::move(request),
      [this, file, page](const IoCompletion& completion) { ReadsProbed(completion.status); });
  if (!token.ok()) {
    ReadsProbed(token.status());
  }
}

void Tier::ReadsProbed(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  probing_reads_ = false;
  if (status.ok()) {
    reads_suspended_ = false;
    read_faults_in_a_row_ = 0;
    UpdateServingLocked();
  } else {
    figures_.last_fault = std::string(status.message());
    probe_pause_ = std::min(probe_pause_ * 2, kLongestPause);
    next_probe_ = parts_.clock->Now() + probe_pause_;
  }
  --transfers_;
}

}  // namespace terrace
