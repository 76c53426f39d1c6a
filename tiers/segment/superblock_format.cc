#include "tiers/segment/superblock_format.h"

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/segment/crc32c.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kMagic = "TRRCSUP\n";
constexpr size_t kCrcAt = 12;

}  // namespace

void EncodeSuperblock(const Superblock& superblock, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes);
  FieldWriter writer(page);
  writer.Bytes(kMagic);
  writer.U16(kSuperblockVersion);
  writer.U16(0);
  writer.U32(0);
  writer.Digest(superblock.uuid);
  writer.U64(superblock.epoch);
  writer.U64(superblock.segment_bytes);
  writer.ZerosUpTo(kPageBytes);
  FieldWriter crc(page.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(page, kCrcAt));
}

HeaderFault DecodeSuperblock(absl::Span<const char> page, Superblock* out) {
  FieldReader reader(page);
  if (page.size() != kPageBytes || reader.Bytes(kMagic.size()) != kMagic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  const bool zeros = reader.U16() == 0;
  if (reader.U32() != PageCrc32c(page, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  if (version > kSuperblockVersion) {
    return HeaderFault::kNewerVersion;
  }
  Superblock superblock;
  superblock.uuid = reader.Digest();
  superblock.epoch = reader.U64();
  superblock.segment_bytes = reader.U64();
  if (!zeros || version != kSuperblockVersion || !reader.ZerosUpTo(kPageBytes) ||
      superblock.uuid.IsZero() || superblock.epoch > kMaxTierEpoch ||
      superblock.segment_bytes % kPageBytes != 0 ||
      superblock.segment_bytes < uint64_t{8} * kPageBytes) {
    return HeaderFault::kField;
  }
  *out = superblock;
  return HeaderFault::kNone;
}

}  // namespace terrace
