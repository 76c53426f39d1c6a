// Hides how recency is kept: the "lru" policy of eviction_policy.h, exact, suffix first.
//
// Recency is an append-only log of (block, stamp). A touch appends and overwrites the stamp in the
// block's record; older entries of the block thereby become stale and are skipped or compacted
// later. So a touch is a sequential write and one record, where a linked list costs three cache
// misses, and a chain of 1,024 blocks is touched in microseconds.
//
// A locked block that reaches the head of the log is parked: it leaves the log and costs nothing
// more. Unlocked again, it waits in a heap ordered by stamp. Everything that was parked is older
// than everything in the log, so the heap goes first.
//
// Memory a resident block: 12 bytes of record and at most 2.5 log entries of 8 bytes, 32 bytes in
// all, and a page of 1,024 records (12 KiB) for every range of ids that is in use at all. The log
// is compacted a chunk at a time, in proportion to what is appended: no call does more than a few
// times its own work.
#pragma once

#include <memory>

#include "tiers/placement/eviction_policy.h"

namespace terrace {

// `recency` must outlive the policy.
std::unique_ptr<EvictionPolicy> MakeLruPolicy(RecencySource& recency);

}  // namespace terrace
