// Several directories, one a drive, as one tier.
//
// What it promises beside what a tier promises: a drive that fails or disappears takes nothing down
// with it. Its blocks are misses, the others go on, and it is taken back by itself when it is there
// again: a drive whose path leads elsewhere, or that has been faulty for reopen_after without one
// read that succeeds, is closed and opened anew every reopen_interval until that works. It is then
// held to be the tier that it was, by its UUID; what was deleted meanwhile is deleted on it before
// it serves.
//
// A new block goes to one drive: of those that can be written to and are not behind with their
// writes, to the one that is least full. If that drive fails it, the others are tried in turn.
// Notes lie on every drive, with a version each, and the latest counts.
//
// What it does not promise: that an empty directory under a path whose drive is not mounted is told
// from a new drive at the first opening; give expected_uuid for that. That a note is found which
// was put while a drive was away, where after the next start that drive alone is there.
//
// Threads: as SegmentTier. Locations have the drive in their upper 8 bits, numbers of segments in
// the upper 8 of 32.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/segment/segment_tier.h"

namespace terrace {

inline constexpr uint32_t kMaxDrives = 64;

// What differs from drive to drive.
struct Drive {
  SegmentTierOptions options;   // `name` is the set's
  AsyncIo* io = nullptr;        // borrowed, as all parts; a ring of its own for each drive is best
  BlockIndex* index = nullptr;  // nullable
  // As of SegmentTierParts; called at every opening, for the same tier at all but the first.
  std::function<BlockIndex*(const Digest128& tier_uuid)> open_index;
  // Nullable: that of the parts. A drive that hangs keeps its threads from the others.
  Executor* maintenance = nullptr;
};

struct TierSetOptions {
  std::string name = "g3";
  std::vector<Drive> drives;  // 1 to kMaxDrives
  absl::Duration reopen_interval = absl::Seconds(5);
  absl::Duration reopen_after = absl::Seconds(10);
  // A drive with so many bytes more on their way to it than the least busy one is passed over.
  uint64_t write_slack_bytes = uint64_t{16} << 20;
  // Whether a set is made when no drive can be opened for now: one that misses until one can.
  bool opens_without_drives = false;
};

// Opens every drive. Blocks. Of SegmentTierParts `io`, `index` and `open_index` are each drive's
// own. The judge is asked by one drive at a time. Errors as of OpenSegmentTier: INVALID_ARGUMENT of
// any drive; when none can be opened, FAILED_PRECONDITION of any, and else that of the first one,
// unless the set may do without.
absl::StatusOr<std::unique_ptr<SegmentTier>> OpenTierSet(const TierSetOptions& options,
                                                         const SegmentTierParts& parts);

}  // namespace terrace
