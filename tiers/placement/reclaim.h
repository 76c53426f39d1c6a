// What a tier that is a log of segments gives up when it needs room. Pure: numbers in, decision
// out; the daemon's judge and the replay of two tiers run this very code.
//
// The log is first in, first out, with a second chance: the segment that was begun first is
// emptied, and of its blocks those are written again that were of use while the latter half of the
// log was written. On the recorded traces that comes within 1.5 points of hits of LRU by the block,
// for a tenth more writes; keeping nothing costs 2 to 3 points, and a window as long as the log as
// much, because what is written again then fills it.
//
// Where blocks are deleted or cleared, segments that are mostly dead go first, and all that lives
// in them is kept: nothing is lost for want of room while there is some.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace terrace {

struct LogSegment {
  uint64_t epoch = 0;  // the lower, the earlier begun
  uint64_t live_bytes = 0;
  uint64_t used_bytes = 0;
};

// Position in `sealed`, which is not empty (checked).
size_t SegmentToReclaim(absl::Span<const LogSegment> sealed);

struct LogRecord {
  // What was appended to the log since the block was last of use, as a share of the tier's
  // capacity. To be written is to be of use.
  double unused_share = 0;
  double live_share = 1;  // of its segment, when that was chosen
};
bool IsWorthRewriting(const LogRecord& record);

// Of a segment at most so much is written again: four bytes of every five become room, so that a
// log in which everything is of use still writes no more than 1.25 times what is new.
inline constexpr double kMaxRewrittenShare = 0.2;

// As LogRecord has it; 0 of an empty segment.
double LiveShare(const LogSegment& segment);

}  // namespace terrace
