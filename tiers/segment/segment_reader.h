// Looks into a tier's files from outside, for operators: read-only, without the tier's lock.
//
// What it promises: it never writes, locks or makes anything, and garbage is told apart from what
// is a segment's. What it does not: that a file which a running tier writes to meanwhile is seen at
// one moment; then records may look damaged that are not.
//
// Thread-compatible; everything blocks.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/os/file_system.h"
#include "tiers/segment/record_check.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/superblock_format.h"

namespace terrace {

struct SuperblockView {
  std::array<HeaderFault, kSuperblockCopies> copies{};  // kNone: sound
  Superblock superblock;                                // the one that holds
};

enum class SegmentUse : uint8_t {
  kUsed = 1,
  kBlank = 2,        // made and never used
  kHeadDamaged = 3,  // its footer says what it is
};
enum class FooterState : uint8_t {
  kSound = 1,
  kNone = 2,     // never sealed: it is open, or its writer died
  kEarlier = 3,  // left from an earlier use of the file, which means none
  kDamaged = 4,
};

struct FoundRecord {
  IndexedRecord listed;  // where it lies, and what footer or header say of it
  // kNone without verification says something of the header alone.
  RecordFault fault = RecordFault::kNone;
  bool unreadable = false;  // the medium failed; `fault` says nothing
  RecordHeader header;  // complete with kNone, kPayload and kMetadata; text borrowed for the call
};

struct SegmentSummary {
  std::string name;
  uint64_t file_bytes = 0;
  SegmentUse use = SegmentUse::kUsed;
  SegmentHead head;  // of kHeadDamaged as the footer has it
  FooterState footer = FooterState::kNone;
  uint32_t end_page = 1;  // behind the last record
  uint64_t records = 0;   // of all kinds
  uint64_t tombstone_records = 0;
  uint64_t notes = 0;
  uint64_t payload_bytes = 0;
  uint64_t damaged = 0;  // records with a fault, or unreadable
};

class SegmentReader {
 public:
  // NOT_FOUND; INVALID_ARGUMENT: no folder.
  static absl::StatusOr<std::unique_ptr<SegmentReader>> Open(FileSystem& files,
                                                             const std::string& folder);

  // NOT_FOUND: there is none. DATA_LOSS: neither copy can be read.
  absl::StatusOr<SuperblockView> ReadSuperblock();
  // Names of the form that the tier gives its segments, in order.
  absl::StatusOr<std::vector<std::string>> SegmentNames();

  enum class Depth : uint8_t { kHeaders, kPayloads };
  // Runs `each` for every record, in the order of the file; false ends early. INVALID_ARGUMENT: the
  // file is not a segment, and why.
  absl::StatusOr<SegmentSummary> ReadSegment(const std::string& name,
                                             Depth depth,
                                             const std::function<bool(const FoundRecord&)>& each);

 private:
  explicit SegmentReader(std::unique_ptr<Folder> folder) : folder_(std::move(folder)) {}

  absl::StatusOr<std::unique_ptr<File>> OpenFile(const std::string& name);

  const std::unique_ptr<Folder> folder_;
};

}  // namespace terrace
