// A block index in memory, which outlives the tier that uses it and fails when a test says so.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tiers/vocab/block_index.h"

namespace terrace::doubles {

// Thread-safe.
class MemoryBlockIndex final : public BlockIndex {
 public:
  absl::Status Apply(const Batch& batch) override {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) {
      return failure_;
    }
    if (dead_ && dead_()) {
      return absl::UnavailableError("the process is dead");
    }
    ++batches_;
    for (const uint32_t segment : batch.forgotten_segments) {
      positions_.erase(segment);
      records_.erase(records_.lower_bound({segment, 0}),
                     records_.upper_bound({segment, 0xffffffffU}));
    }
    for (const IndexedRecord& record : batch.records) {
      records_[{record.segment, record.page}] = record;
    }
    for (const SegmentPosition& position : batch.positions) {
      positions_[position.segment] = position;
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<SegmentPosition>> Positions() override {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) {
      return failure_;
    }
    std::vector<SegmentPosition> positions;
    for (const auto& [segment, position] : positions_) {
      positions.push_back(position);
    }
    return positions;
  }
  absl::Status Load(uint32_t segment,
                    const std::function<void(const IndexedRecord&)>& visit) override {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) {
      return failure_;
    }
    for (auto at = records_.lower_bound({segment, 0});
         at != records_.end() && at->first.first == segment; ++at) {
      visit(at->second);
    }
    return load_failure_;
  }
  absl::Status Sync() override { return absl::OkStatus(); }

  // All calls fail with it; OK: none.
  void FailWith(absl::Status failure) {
    absl::MutexLock lock(&mutex_);
    failure_ = std::move(failure);
  }
  // Nothing is applied while it says so: a process that is dead changes no index.
  void DieWhen(std::function<bool()> dead) {
    absl::MutexLock lock(&mutex_);
    dead_ = std::move(dead);
  }
  // Load visits what it has and then fails.
  void FailLoadsWith(absl::Status failure) {
    absl::MutexLock lock(&mutex_);
    load_failure_ = std::move(failure);
  }
  // Lets a test lie: the index is never trusted.
  void ChangeRecords(const std::function<void(IndexedRecord&)>& change) {
    absl::MutexLock lock(&mutex_);
    for (auto& [place, record] : records_) {
      change(record);
    }
  }
  void ChangePositions(const std::function<void(SegmentPosition&)>& change) {
    absl::MutexLock lock(&mutex_);
    for (auto& [segment, position] : positions_) {
      change(position);
    }
  }
  [[nodiscard]] size_t records() const {
    absl::MutexLock lock(&mutex_);
    return records_.size();
  }
  [[nodiscard]] uint64_t batches() const {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::map<uint32_t, SegmentPosition> positions_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<uint32_t, uint32_t>, IndexedRecord> records_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::function<bool()> dead_ ABSL_GUARDED_BY(mutex_);
  absl::Status load_failure_ ABSL_GUARDED_BY(mutex_);
  uint64_t batches_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::doubles
