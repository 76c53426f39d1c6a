// Finds the records of one segment again: from its footer, else from header to header. Blocks.
//
// Headers are followed only from where a record is known to begin: a page of payload that looks
// like a header proves nothing, because clients choose what is in it. So behind a damaged header of
// a segment without a footer nothing is found.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"

#include "tiers/os/file_system.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

struct ScanRequest {
  File* file = nullptr;
  Digest128 tier_uuid;
  uint32_t number = 0;
  uint64_t epoch = 0;
  uint64_t segment_bytes = 0;
  uint32_t first_page = 1;  // begin of a record, or the end of what is known already
};

struct ScanResult {
  std::vector<IndexedRecord> records;  // all that a footer lists, else from first_page on
  uint32_t end_page = 1;
  bool by_footer = false;
};
// Errors are those of reading; damage is none, it ends the search.
absl::Status ScanSegment(const ScanRequest& request, ScanResult* out);

}  // namespace terrace
