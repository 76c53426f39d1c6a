// Reading what nodes report, and segments of theirs. Blocks in PoolFiles::Call.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/segment/segment_scan.h"
#include "tiers/shared/pool_files.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_protection.h"
#include "tiers/vocab/clock.h"

namespace terrace {

// Immutable; borrows what it names.
struct PoolAccess {
  PoolFiles* files = nullptr;
  const Clock* clock = nullptr;
  Digest128 pool;
  const PoolProtection* protection = nullptr;  // of this pool; nullptr before it is known
  absl::Duration call_deadline = absl::Seconds(10);

  [[nodiscard]] PoolCall CallOf(PoolOp op, std::string path) const;
};

// The begin of a file as it is now, by one glance (ReadHow::kGlance). Errors as of RootedFiles;
// RESOURCE_EXHAUSTED: no buffer now.
inline constexpr uint64_t kGlanceBytes = uint64_t{512} << 10;  // more than heads mostly have
absl::StatusOr<std::string> GlanceAt(const PoolAccess& access,
                                     const std::string& path,
                                     uint64_t room);

// As of RootedFiles; RESOURCE_EXHAUSTED: no buffer now; DATA_LOSS: what is there is no report of
// this life and this pool, or is damaged, forged, or was replaced while it was read.
absl::StatusOr<PoolReport> ReadHead(const PoolAccess& access, const NodeLife& life);
absl::StatusOr<PoolReport> ReadManifest(const PoolAccess& access,
                                        const NodeLife& life,
                                        uint32_t number);

// The records of a segment from `first_page` on, or all where there is a footer. As ScanSegment.
absl::StatusOr<ScanResult> ScanPoolSegment(const PoolAccess& access,
                                           const SegmentName& name,
                                           uint32_t file_pages,
                                           uint32_t first_page);

// Writes a report where it belongs, by `op`: kCreate or kReplace.
absl::Status WriteReport(const PoolAccess& access,
                         PoolOp op,
                         const std::string& path,
                         const PoolReport& report);

// Writes a small file by `op`: kCreate or kReplace.
absl::Status WriteSmallFile(const PoolAccess& access,
                            PoolOp op,
                            const std::string& path,
                            const std::string& content);

// At most 64 KiB of it.
absl::StatusOr<std::string> ReadSmallFile(const PoolAccess& access, const std::string& path);

// OK also where it is there already.
absl::Status MakePoolFolder(const PoolAccess& access, const std::string& path);

}  // namespace terrace
