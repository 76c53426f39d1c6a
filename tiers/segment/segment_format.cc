#include "tiers/segment/segment_format.h"

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/types/span.h"

#include "tiers/segment/crc32c.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kHeadMagic = "TRRCSEG\n";
constexpr std::string_view kTrailerMagic = "TRRCEND\n";
constexpr size_t kCrcAt = 12;

// What head and trailer begin with.
struct Opening {
  Digest128 tier_uuid;
  uint32_t number = 0;
  SegmentRole role = SegmentRole::kBlocks;
  uint64_t epoch = 0;
};

void Write(FieldWriter& writer, std::string_view magic, const Opening& opening) {
  writer.Bytes(magic);
  writer.U16(kSegmentVersion);
  writer.U16(0);
  writer.U32(0);
  writer.Digest(opening.tier_uuid);
  writer.U32(opening.number);
  writer.U32(static_cast<uint32_t>(opening.role));  // the role's byte and zeros
  writer.U64(opening.epoch);
}

void Finish(FieldWriter& writer, absl::Span<char> page) {
  writer.ZerosUpTo(kPageBytes);
  FieldWriter crc(page.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(page, kCrcAt));
}

HeaderFault Read(FieldReader& reader,
                 absl::Span<const char> page,
                 std::string_view magic,
                 Opening* out) {
  if (page.size() != kPageBytes || reader.Bytes(magic.size()) != magic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  const bool zeros = reader.U16() == 0;
  if (reader.U32() != PageCrc32c(page, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  if (version > kSegmentVersion) {
    return HeaderFault::kNewerVersion;
  }
  out->tier_uuid = reader.Digest();
  out->number = reader.U32();
  const uint32_t role = reader.U32();
  out->role = static_cast<SegmentRole>(role);
  out->epoch = reader.U64();
  return version == kSegmentVersion && zeros && role <= static_cast<uint32_t>(SegmentRole::kOwn)
             ? HeaderFault::kNone
             : HeaderFault::kField;
}

}  // namespace

void EncodeSegmentHead(const SegmentHead& head, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes);
  FieldWriter writer(page);
  Write(writer, kHeadMagic, {head.tier_uuid, head.number, head.role, head.epoch});
  writer.U64(head.segment_bytes);
  Finish(writer, page);
}

HeaderFault DecodeSegmentHead(absl::Span<const char> page, SegmentHead* out) {
  FieldReader reader(page);
  Opening opening;
  if (const HeaderFault fault = Read(reader, page, kHeadMagic, &opening);
      fault != HeaderFault::kNone) {
    return fault;
  }
  const uint64_t segment_bytes = reader.U64();
  if (!reader.ZerosUpTo(kPageBytes)) {
    return HeaderFault::kField;
  }
  *out = {opening.tier_uuid, opening.number, opening.role, opening.epoch, segment_bytes};
  return HeaderFault::kNone;
}

void EncodeTrailer(const SegmentTrailer& trailer, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes);
  FieldWriter writer(page);
  Write(writer, kTrailerMagic, {trailer.tier_uuid, trailer.number, trailer.role, trailer.epoch});
  writer.U32(trailer.entries);
  writer.U32(trailer.entries_page);
  writer.U32(trailer.end_page);
  writer.U32(0);
  writer.Digest(trailer.entries_checksum);
  Finish(writer, page);
}

HeaderFault DecodeTrailer(absl::Span<const char> page, SegmentTrailer* out) {
  FieldReader reader(page);
  Opening opening;
  if (const HeaderFault fault = Read(reader, page, kTrailerMagic, &opening);
      fault != HeaderFault::kNone) {
    return fault;
  }
  SegmentTrailer trailer;
  trailer.tier_uuid = opening.tier_uuid;
  trailer.number = opening.number;
  trailer.role = opening.role;
  trailer.epoch = opening.epoch;
  trailer.entries = reader.U32();
  trailer.entries_page = reader.U32();
  trailer.end_page = reader.U32();
  const bool zeros = reader.U32() == 0;
  trailer.entries_checksum = reader.Digest();
  if (!zeros || !reader.ZerosUpTo(kPageBytes) || trailer.end_page > trailer.entries_page) {
    return HeaderFault::kField;
  }
  *out = trailer;
  return HeaderFault::kNone;
}

void EncodeEntries(absl::Span<const IndexedRecord> entries, absl::Span<char> pages) {
  FieldWriter writer(pages);
  for (const IndexedRecord& entry : entries) {
    writer.Digest(entry.fingerprint);
    writer.Digest(entry.checksum);
    writer.U64(entry.sequence);
    writer.U32(entry.page);
    writer.U32(entry.payload_bytes);
    writer.U8(entry.kind);
    writer.U8(entry.extra_pages);
    writer.ZerosUpTo(writer.position() + 6);
  }
  writer.ZerosUpTo(pages.size());
}

bool DecodeEntries(absl::Span<const char> pages,
                   const SegmentTrailer& trailer,
                   std::vector<IndexedRecord>* out) {
  FieldReader reader(pages);
  std::vector<IndexedRecord> entries(trailer.entries);
  uint64_t next_page = 1;
  for (IndexedRecord& entry : entries) {
    entry.fingerprint = reader.Digest();
    entry.checksum = reader.Digest();
    entry.sequence = reader.U64();
    entry.page = reader.U32();
    entry.payload_bytes = reader.U32();
    entry.kind = reader.U8();
    entry.extra_pages = reader.U8();
    entry.segment = trailer.number;
    const bool zeros = reader.ZerosUpTo(reader.position() + 6);
    if (!zeros || entry.page < next_page || entry.payload_bytes > kMaxPayloadBytes ||
        entry.extra_pages > PagesOf(kMaxMetadataBytes)) {
      return false;
    }
    next_page = uint64_t{entry.page} + 1 + PagesOf(entry.payload_bytes) + entry.extra_pages;
  }
  if (!reader.ZerosUpTo(pages.size()) || next_page > trailer.end_page) {
    return false;
  }
  *out = std::move(entries);
  return true;
}

}  // namespace terrace
