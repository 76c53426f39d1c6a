// The door to the durable copy of a segment tier's index: which records lie in which segment, and
// up to where that is known. Implemented by tiers/index over RocksDB and, in tests, in memory.
//
// Never trusted: an entry only says where to look, and whoever reads a record checks it in full.
// What the index lost, or never heard of, is found again from the segments; what it knows too much
// is a miss.
//
// Thread-safe. Every call may block; none may be made by a thread that serves clients.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

// A record in a segment, as footers list it (tiers/segment/segment_format.h).
struct IndexedRecord {
  Digest128 fingerprint;
  Digest128 checksum;
  uint64_t sequence = 0;
  uint32_t segment = 0;
  uint32_t page = 0;  // of 4096 bytes, at which the record begins
  uint32_t payload_bytes = 0;
  uint8_t kind = 0;
  uint8_t extra_pages = 0;
  friend bool operator==(const IndexedRecord&, const IndexedRecord&) = default;
};

// The index holds every record of this use of the segment that begins before `complete_pages`.
struct SegmentPosition {
  uint32_t segment = 0;
  uint64_t epoch = 0;
  uint32_t complete_pages = 0;
  bool sealed = false;  // there are no more
  friend bool operator==(const SegmentPosition&, const SegmentPosition&) = default;
};

class BlockIndex {
 public:
  virtual ~BlockIndex() = default;

  struct Batch {
    std::vector<uint32_t> forgotten_segments;  // all of their entries go, first
    std::vector<IndexedRecord> records;
    std::vector<SegmentPosition> positions;
  };
  // All of it or nothing. After an error nothing more is known to be kept: DATA_LOSS, UNAVAILABLE.
  virtual absl::Status Apply(const Batch& batch) = 0;

  // In order of segment. DATA_LOSS: what is kept cannot be read.
  virtual absl::StatusOr<std::vector<SegmentPosition>> Positions() = 0;
  // Calls `visit` in order of page. DATA_LOSS: as above; what was visited before may be
  // incomplete.
  virtual absl::Status Load(uint32_t segment,
                            const std::function<void(const IndexedRecord&)>& visit) = 0;
  // What was applied survives a power loss.
  virtual absl::Status Sync() = 0;
};

}  // namespace terrace
