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
#include "absl/types/span.h"

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
  bool sealed = false;      // its records are (sealed_record_format.h); others end the search
};

struct ScanResult {
  std::vector<IndexedRecord> records;  // all that a footer lists, else from first_page on
  uint32_t end_page = 1;
  bool by_footer = false;
};
// Errors are those of reading; damage is none, it ends the search.
absl::Status ScanSegment(const ScanRequest& request, ScanResult* out);

// Pages of a segment, asked for from the front to the back. Where what is asked for lies close
// together, one transfer brings a whole window of it. Blocks; confined to one thread.
class PagesInOrder {
 public:
  PagesInOrder(File& file, uint32_t segment_pages, uint32_t window_pages)
      : file_(file), pages_(segment_pages), window_pages_(window_pages) {}
  // *out is valid until the next call. OUT_OF_RANGE: the file ends before; else errors of reading.
  absl::Status Read(uint32_t at, uint32_t count, absl::Span<const char>* out);

 private:
  absl::Status Fetch(uint32_t at, uint32_t count);

  File& file_;
  const uint32_t pages_;
  const uint32_t window_pages_;
  AlignedBuffer window_;
  uint32_t first_ = 0;  // in the window
  uint32_t count_ = 0;
  bool asked_ = false;
  uint32_t last_ = 0;  // that was asked for
};

}  // namespace terrace
