// What a PoolWriter says of its life: heads and manifests. Blocks in PoolFiles::Call, never with
// the lock held.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "tiers/shared/pool_writer.h"

namespace terrace {
namespace {

// Manifests of this life that stay: a reader may have the head before the last.
constexpr uint32_t kManifestsKept = 2;

}  // namespace

ReportedSegment PoolWriter::ReportOf(const Segment& segment) const {
  ReportedSegment reported;
  reported.name = segment.name;
  reported.state = segment.state;
  reported.file_pages = segment.file_pages;
  reported.end_page = segment.synced_page;
  reported.listed_from_page = segment.synced_page;
  reported.records = segment.synced_records;
  return reported;
}

PoolReport PoolWriter::ManifestLocked() const {
  PoolReport report;
  report.kind = ReportKind::kManifest;
  report.pool = parts_.access.pool;
  report.life = life_;
  report.serial = serial_ + 1;
  report.manifest = last_manifest_ + 1;
  for (const auto& [name, segment] : segments_) {
    if (segment->state != ReportedState::kGone && report.segments.size() < kMaxReportedSegments) {
      report.segments.push_back(ReportOf(*segment));
    }
  }
  report.kills = kills_;
  for (const auto& [digest, generation] : generations_) {
    report.generations.push_back({digest, generation});
  }
  return report;
}

PoolReport PoolWriter::HeadLocked() const {
  PoolReport report;
  report.kind = ReportKind::kHead;
  report.pool = parts_.access.pool;
  report.life = life_;
  report.serial = serial_ + 1;
  report.manifest = manifest_;
  uint32_t records = 0;
  // Backwards, so that where not all records fit it is the latest that do.
  for (auto at = segments_.rbegin(); at != segments_.rend(); ++at) {
    const Segment& segment = *at->second;
    if (!segment.changed) {
      continue;
    }
    ReportedSegment reported = ReportOf(segment);
    const auto position = static_cast<uint32_t>(report.segments.size());
    const size_t count = std::min<size_t>(segment.records.size(), kMaxReportedRecords - records);
    const size_t first = segment.records.size() - count;
    if (count > 0 && segment.state != ReportedState::kGone) {
      reported.listed_from_page = first == 0 ? 1 : segment.records[first].page;
      for (size_t i = first; i < segment.records.size(); ++i) {
        report.records.push_back({position, segment.records[i]});
        report.records.back().record.segment = 0;
      }
      records += static_cast<uint32_t>(count);
    }
    report.segments.push_back(reported);
  }
  report.kills.assign(kills_.begin() + static_cast<int64_t>(kills_in_manifest_), kills_.end());
  for (const Digest128& digest : generations_changed_) {
    report.generations.push_back({digest, generations_.at(digest)});
  }
  report.heats = heats_;
  return report;
}

absl::Status PoolWriter::PublishReports() {
  bool wanted = false;
  bool manifest = false;
  {
    absl::MutexLock lock(&mutex_);
    wanted = WantsReportLocked() || dirty_;
    const auto changed = static_cast<uint32_t>(
        std::count_if(segments_.begin(), segments_.end(),
                      [](const auto& entry) { return entry.second->changed; }));
    manifest = changed > options_.segments_a_head ||
               kills_.size() - kills_in_manifest_ > kMaxKills / 16 ||
               generations_changed_.size() > kMaxGenerations / 16;
  }
  if (!wanted) {
    return absl::OkStatus();
  }
  if (manifest) {
    if (absl::Status status = WriteManifest(); !status.ok()) {
      return status;
    }
  }
  return WriteHead();
}

absl::Status PoolWriter::WriteManifest() {
  PoolReport report;
  {
    absl::MutexLock lock(&mutex_);
    report = ManifestLocked();
  }
  const PoolAccess& access = parts_.access;
  const absl::Status status =
      WriteReport(access, PoolOp::kCreate, ManifestPath(report.life, report.manifest), report);
  {
    absl::MutexLock lock(&mutex_);
    last_manifest_ = report.manifest;
    if (!status.ok()) {
      return status;
    }
    manifest_ = report.manifest;
    ++figures_.manifests;
    ++serial_;
    dirty_ = true;
    kills_in_manifest_ = report.kills.size();
    generations_changed_.clear();
    for (auto at = segments_.begin(); at != segments_.end();) {
      Segment& segment = *at->second;
      if (segment.removed) {
        at = segments_.erase(at);
        continue;
      }
      // What was synced since, or is still open, goes on being listed with its records.
      if (segment.state == ReportedState::kSealed || segment.state == ReportedState::kCut) {
        segment.changed = !segment.synced.empty();
        if (!segment.changed) {
          segment.records = {};
        }
      }
      ++at;
    }
  }
  if (report.manifest > kManifestsKept) {
    const absl::Status removed =
        access.files
            ->Call(access.CallOf(PoolOp::kRemove,
                                 ManifestPath(report.life, report.manifest - kManifestsKept)))
            .status;
    if (IsMountFault(removed)) {
      return removed;
    }
  }
  return absl::OkStatus();
}

absl::Status PoolWriter::WriteHead() {
  PoolReport report;
  std::vector<std::function<void(bool)>> told;
  {
    absl::MutexLock lock(&mutex_);
    report = HeadLocked();
    report.ended = closing_ && queue_.empty() && batches_in_flight_ == 0;
    told.swap(told_by_head_);
    dirty_ = false;
    news_since_ = absl::InfiniteDuration();
  }
  const absl::Status status =
      WriteReport(parts_.access, PoolOp::kReplace, HeadPath(report.life), report);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  ++serial_;  // in any case: the head may be there although nobody said so
  if (!status.ok()) {
    told_by_head_.insert(told_by_head_.begin(), told.begin(), told.end());
    dirty_ = true;
    return status;
  }
  ++figures_.heads;
  last_head_ = parts_.access.clock->Now();
  for (std::function<void(bool)>& one : told) {
    deferred.Add([one = std::move(one)] { one(true); });
  }
  for (const ReportedSegment& reported : report.segments) {
    const auto found = segments_.find(reported.name);
    if (found == segments_.end()) {
      continue;
    }
    Segment& segment = *found->second;
    if (reported.state == ReportedState::kGone) {
      if (segment.gone_at == absl::InfiniteDuration() && !segment.removed) {
        segment.gone_at = last_head_;
        segment.records = {};
        deferred.Add([this, name = segment.name, node = life_.node] {
          parts_.catalogue->Drop(node, {name});
        });
      }
      continue;
    }
    parts_.catalogue->Add(segment.name, segment.records, reported.end_page,
                          reported.state != ReportedState::kOpen);
    for (std::unique_ptr<Pending>& pending : segment.synced) {
      if (pending->page < reported.end_page) {
        EndPendingLocked(std::move(pending), WriteOutcome::kWritten, deferred);
      }
    }
    std::erase(segment.synced, nullptr);
  }
  return absl::OkStatus();
}

}  // namespace terrace
