#include "tiers/segment/sealed_record_format.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/segment/crc32c.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kMagic = "TRRCSLD\n";
constexpr size_t kCrcAt = 12;
constexpr size_t kParentAt = 16;
constexpr size_t kMetadataTagAt = 80;
constexpr size_t kTextMetadataAt = 96;
static_assert(kTextMetadataAt + kInlineMetadataBytes <= kSealedTextBytes);

void Write(const SealedHeader& header, FieldWriter* writer) {
  writer->Bytes(kMagic);
  writer->U16(kSealedRecordVersion);
  writer->U8(0);
  writer->U8(static_cast<uint8_t>(ExtraPages(header.metadata_bytes)));
  writer->U32(0);
  writer->Digest(header.tier_uuid);
  writer->U64(header.segment_epoch);
  writer->U64(header.sequence);
  writer->U32(header.segment);
  writer->U32(header.page);
  writer->U32(header.payload_bytes);
  writer->U32(header.metadata_bytes);
  writer->Digest(header.stored_checksum);
  writer->Digest(header.fingerprint);
  writer->Digest(header.listed_checksum);
  writer->Bytes({header.salt.data(), header.salt.size()});
  writer->Bytes({header.tag.data(), header.tag.size()});
}

}  // namespace

void EncodeSealedHeader(const SealedHeader& header, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes && header.metadata_bytes <= kMaxMetadataBytes);
  FieldWriter writer(page.first(kSealedTextAt));
  Write(header, &writer);
  TERRACE_CHECK(writer.position() == kSealedTextAt);
  FieldWriter crc(page.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(page, kCrcAt));
}

HeaderFault DecodeSealedHeader(absl::Span<const char> page, SealedHeader* out) {
  if (page.size() < kPageBytes) {
    return HeaderFault::kNoRecord;
  }
  page = page.first(kPageBytes);
  FieldReader reader(page);
  if (reader.Bytes(kMagic.size()) != kMagic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  const uint8_t zero = reader.U8();
  const uint8_t extra_pages = reader.U8();
  if (reader.U32() != PageCrc32c(page, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  if (version != kSealedRecordVersion) {
    return version > kSealedRecordVersion ? HeaderFault::kNewerVersion : HeaderFault::kField;
  }
  SealedHeader header;
  header.tier_uuid = reader.Digest();
  header.segment_epoch = reader.U64();
  header.sequence = reader.U64();
  header.segment = reader.U32();
  header.page = reader.U32();
  header.payload_bytes = reader.U32();
  header.metadata_bytes = reader.U32();
  header.stored_checksum = reader.Digest();
  header.fingerprint = reader.Digest();
  header.listed_checksum = reader.Digest();
  const std::string_view salt = reader.Bytes(header.salt.size());
  std::copy(salt.begin(), salt.end(), header.salt.begin());
  const std::string_view tag = reader.Bytes(header.tag.size());
  std::copy(tag.begin(), tag.end(), header.tag.begin());
  if (zero != 0 || header.payload_bytes == 0 || header.payload_bytes > kMaxPayloadBytes ||
      header.metadata_bytes > kMaxMetadataBytes ||
      extra_pages != ExtraPages(header.metadata_bytes)) {
    return HeaderFault::kField;
  }
  *out = header;
  return HeaderFault::kNone;
}

std::array<char, kSealedTextAt> CoveredHeader(const SealedHeader& header) {
  SealedHeader covered = header;
  covered.stored_checksum = {};
  covered.tag = {};
  std::array<char, kSealedTextAt> bytes{};
  FieldWriter writer(absl::MakeSpan(bytes));
  Write(covered, &writer);
  return bytes;
}

void EncodeSealedText(const SealedText& text, absl::Span<char> out) {
  TERRACE_CHECK(out.size() == kSealedTextBytes && text.parent.size() <= kMaxKeyBytes &&
                text.metadata.size() <= kInlineMetadataBytes);
  FieldWriter writer(out);
  writer.U64(text.first_token);
  writer.U32(text.tokens);
  writer.U16(static_cast<uint16_t>(text.parent.size()));
  writer.ZerosUpTo(kParentAt);
  writer.Bytes(text.parent);
  writer.ZerosUpTo(kMetadataTagAt);
  writer.Bytes({text.metadata_tag.data(), text.metadata_tag.size()});
  writer.ZerosUpTo(kTextMetadataAt);
  writer.Bytes(text.metadata);
  writer.ZerosUpTo(kSealedTextBytes);
}

}  // namespace terrace
