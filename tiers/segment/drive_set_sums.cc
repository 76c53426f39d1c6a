// A set of drives: what all of them do or say together.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "tiers/segment/drive_set.h"

namespace terrace {
namespace {

constexpr uint32_t kSegmentShift = 24;  // numbers of segments have the drive above

// Results of the drives, until the last one is there.
struct ScrubSum {
  absl::Mutex mutex;
  uint32_t left ABSL_GUARDED_BY(mutex) = 1;  // the call itself is one
  ScrubResult sum ABSL_GUARDED_BY(mutex);
  std::function<void(const ScrubResult&)> done;
};

void Add(const ScrubResult& more, ScrubResult* sum) {
  sum->complete = sum->complete && more.complete;
  sum->records += more.records;
  sum->bytes += more.bytes;
  sum->corrupt += more.corrupt;
  sum->unreadable += more.unreadable;
}

void End(const std::shared_ptr<ScrubSum>& scrub, const ScrubResult& result) {
  ScrubResult sum;
  {
    absl::MutexLock lock(&scrub->mutex);
    Add(result, &scrub->sum);
    if (--scrub->left > 0) {
      return;
    }
    sum = scrub->sum;
  }
  scrub->done(sum);
}

// Facts add up but for the states, of which the set has the best that a drive has: it serves as
// long as one does.
int Rank(TierState state) {
  switch (state) {
    case TierState::kOnline:
      return 5;
    case TierState::kRecovering:
      return 6;  // some of it is still to be found
    case TierState::kReadOnly:
      return 4;
    case TierState::kFaulty:
      return 3;
    case TierState::kDetached:
      return 2;
    case TierState::kClosed:
      return 1;
  }
  return 0;
}

void AddGauges(const SegmentTierFigures& more, SegmentTierFigures* sum) {
  sum->capacity_bytes += more.capacity_bytes;
  sum->file_bytes += more.file_bytes;
  sum->live_bytes += more.live_bytes;
  sum->records += more.records;
  sum->segments += more.segments;
  sum->free_segments += more.free_segments;
  sum->unproven_segments += more.unproven_segments;
  sum->segments_to_recover += more.segments_to_recover;
  sum->reads_suspended = sum->reads_suspended || more.reads_suspended;
  sum->retired_segments += more.retired_segments;
}

}  // namespace

void AddCounters(const SegmentTierFigures& more, SegmentTierFigures* sum) {
  sum->recovered_by_index += more.recovered_by_index;
  sum->recovered_by_footer += more.recovered_by_footer;
  sum->recovered_by_header += more.recovered_by_header;
  sum->reads += more.reads;
  sum->read_bytes += more.read_bytes;
  sum->read_faults += more.read_faults;
  sum->corrupt_headers += more.corrupt_headers;
  sum->corrupt_payloads += more.corrupt_payloads;
  sum->stale_records += more.stale_records;
  sum->writes += more.writes;
  sum->payload_bytes_written += more.payload_bytes_written;
  sum->bytes_written += more.bytes_written;
  sum->write_faults += more.write_faults;
  sum->sync_faults += more.sync_faults;
  sum->records_dropped_by_sync_faults += more.records_dropped_by_sync_faults;
  sum->reclaimed_segments += more.reclaimed_segments;
  sum->records_rewritten += more.records_rewritten;
  sum->records_reclaimed += more.records_reclaimed;
  sum->rewrites_without_room += more.rewrites_without_room;
  sum->records_over_share += more.records_over_share;
  sum->index_faults += more.index_faults;
  sum->read_suspensions += more.read_suspensions;
  sum->reads_refused += more.reads_refused;
  sum->scrub_passes += more.scrub_passes;
  sum->scrubbed_records += more.scrubbed_records;
  sum->scrubbed_bytes += more.scrubbed_bytes;
  sum->scrub_corrupt += more.scrub_corrupt;
  sum->scrub_unreadable += more.scrub_unreadable;
  sum->notes_restored += more.notes_restored;
  sum->removed_segments += more.removed_segments;
}

void DriveSet::Sync(std::function<void(absl::Status)> done) {
  struct Syncing {
    absl::Mutex mutex;
    uint32_t left ABSL_GUARDED_BY(mutex) = 1;
    absl::Status status ABSL_GUARDED_BY(mutex);
    std::function<void(absl::Status)> done;
  };
  auto syncing = std::make_shared<Syncing>();  // this call and the drives' callbacks
  syncing->done = std::move(done);
  const auto end = [syncing](const absl::Status& status) {
    absl::Status result;
    {
      absl::MutexLock lock(&syncing->mutex);
      syncing->status.Update(status);
      if (--syncing->left > 0) {
        return;
      }
      result = syncing->status;
    }
    syncing->done(result);
  };
  // What an absent drive holds is not held.
  for (const Entered& entered : EnterAll()) {
    {
      absl::MutexLock lock(&syncing->mutex);
      ++syncing->left;
    }
    entered.mounted->tier->Sync([this, entered, end](const absl::Status& status) {
      end(status);
      Leave(entered);
    });
  }
  end(absl::OkStatus());
}

void DriveSet::Scrub(ScrubPace pace, std::function<void(const ScrubResult&)> done) {
  auto scrub = std::make_shared<ScrubSum>();  // this call and the drives' callbacks
  scrub->done = std::move(done);
  ScrubResult nothing;
  nothing.complete = true;
  {
    absl::MutexLock lock(&scrub->mutex);
    scrub->sum.complete = true;
  }
  for (const Entered& entered : EnterAll()) {
    {
      absl::MutexLock lock(&scrub->mutex);
      ++scrub->left;
    }
    entered.mounted->tier->Scrub(pace, [this, entered, scrub](const ScrubResult& result) {
      End(scrub, result);
      Leave(entered);
    });
  }
  End(scrub, nothing);
}

ScrubProgress DriveSet::scrub_progress() const {
  ScrubProgress sum;
  for (const Entered& entered : EnterAll()) {
    const ScrubProgress progress = entered.mounted->tier->scrub_progress();
    sum.running = sum.running || progress.running;
    sum.segments += progress.segments;
    sum.segments_done += progress.segments_done;
    Add(progress.so_far, &sum.so_far);
    Leave(entered);
  }
  return sum;
}

SegmentTierFigures DriveSet::figures() const {
  SegmentTierFigures sum;
  sum.state = TierState::kFaulty;  // of a set without a drive
  int best = 0;
  for (const DriveView& drive : Drives()) {
    AddCounters(drive.figures, &sum);
    const std::string& fault = drive.open ? drive.figures.last_fault : drive.problem;
    if (sum.last_fault.empty() && !fault.empty()) {
      sum.last_fault = absl::StrCat(drive.path, ": ", fault);
    }
    if (!drive.open) {
      continue;
    }
    AddGauges(drive.figures, &sum);
    if (Rank(drive.figures.state) > best) {
      best = Rank(drive.figures.state);
      sum.state = drive.figures.state;
    }
    if (sum.transfers.reason.empty()) {
      sum.transfers = drive.figures.transfers;
    }
  }
  return sum;
}

std::vector<SegmentView> DriveSet::Sealed() const {
  std::vector<SegmentView> all;
  for (const Entered& entered : EnterAll()) {
    for (SegmentView& view : entered.mounted->tier->Sealed()) {
      view.number |= entered.drive << kSegmentShift;
      all.push_back(view);
    }
    Leave(entered);
  }
  return all;
}

}  // namespace terrace
