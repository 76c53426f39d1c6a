// A log of segments as numbers: which blocks a local tier would hold, for the replay of two tiers.
// It decides what to give up by tiers/placement/reclaim.h, as the daemon's tier does, and differs
// from it in that everything is written at once and nothing fails.
//
// Thread-compatible.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "tiers/placement/local_contents.h"

namespace terrace {

class SegmentLog final : public LocalContents {
 public:
  struct Options {
    uint32_t segments = 0;         // of the capacity, those that are kept free included
    uint32_t segment_records = 0;  // that fit in one
    uint32_t kept_free = 3;        // emptied ahead, or open and empty
  };
  // segments: more than kept_free + 1; segment_records: from 1 (checked).
  explicit SegmentLog(const Options& options);

  [[nodiscard]] bool Holds(uint64_t name) const override { return records_.contains(name); }
  bool NoteUse(uint64_t name) override;
  void NoteReads(absl::Span<const uint64_t> names) override;
  // May reclaim a segment.
  void Append(uint64_t name) override;

  // What lies here was of use at the last a capacity ago.
  void ForgetUse() override;

  [[nodiscard]] const Counts& counts() const override { return counts_; }

 private:
  struct Record {
    uint64_t segment = 0;
    uint64_t used_at = 0;
  };
  struct Segment {
    std::vector<uint64_t> names;
    uint64_t live = 0;
  };

  void Place(uint64_t name, Record record, uint64_t* open);
  void Reclaim();

  const Options options_;
  std::map<uint64_t, Segment> segments_;  // by the order in which they were begun
  uint64_t last_ = 0;
  uint64_t open_ = 0;        // for new blocks
  uint64_t open_again_ = 0;  // for those that are written again
  uint64_t position_ = 0;    // records that were ever placed, and a capacity
  absl::flat_hash_map<uint64_t, Record> records_;
  Counts counts_;
};

}  // namespace terrace
