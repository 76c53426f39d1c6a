#include "tiers/segment/record_format.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/types/span.h"

#include "tiers/segment/crc32c.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kMagic = "TRRCREC\n";
constexpr size_t kCrcAt = 12;
constexpr size_t kKeyAt = 144;
constexpr size_t kParentAt = 208;
constexpr size_t kSaltAt = 272;
constexpr size_t kMetadataAt = 528;
static_assert(kMetadataAt + kInlineMetadataBytes == kPageBytes);
static_assert(kSaltAt + kMaxSaltBytes == kMetadataAt);

constexpr size_t kTombstoneFixedBytes = 16 + 8 + 2 + 2;

bool FieldsMakeSense(const RecordHeader& header, uint8_t kind, uint8_t extra_pages) {
  return kind >= static_cast<uint8_t>(RecordKind::kBlock) &&
         kind <= static_cast<uint8_t>(RecordKind::kNote) &&
         header.payload_bytes <= kMaxPayloadBytes && header.metadata_bytes <= kMaxMetadataBytes &&
         extra_pages == ExtraPages(header.metadata_bytes);
}

}  // namespace

void EncodeRecordHeader(const RecordHeader& header, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes && header.key.size() <= kMaxKeyBytes &&
                header.parent.size() <= kMaxKeyBytes && header.salt.size() <= kMaxSaltBytes &&
                header.metadata_bytes <= kMaxMetadataBytes);
  const uint32_t extra_pages = ExtraPages(header.metadata_bytes);
  FieldWriter writer(page);
  writer.Bytes(kMagic);
  writer.U16(kRecordVersion);
  writer.U8(static_cast<uint8_t>(header.kind));
  writer.U8(static_cast<uint8_t>(extra_pages));
  writer.U32(0);
  writer.Digest(header.tier_uuid);
  writer.U64(header.segment_epoch);
  writer.U64(header.sequence);
  writer.U32(header.segment);
  writer.U32(header.page);
  writer.U32(header.payload_bytes);
  writer.U32(header.metadata_bytes);
  writer.Digest(header.checksum);
  writer.Digest(header.metadata_checksum);
  writer.Digest(header.namespace_digest);
  writer.U64(header.generation);
  writer.U64(header.first_token);
  writer.U32(header.tokens);
  writer.U16(static_cast<uint16_t>(header.key.size()));
  writer.U16(static_cast<uint16_t>(header.parent.size()));
  writer.U16(static_cast<uint16_t>(header.salt.size()));
  writer.ZerosUpTo(kKeyAt);
  writer.Bytes(header.key);
  writer.ZerosUpTo(kParentAt);
  writer.Bytes(header.parent);
  writer.ZerosUpTo(kSaltAt);
  writer.Bytes(header.salt);
  writer.ZerosUpTo(kMetadataAt);
  if (extra_pages == 0) {
    TERRACE_CHECK(header.metadata.size() == header.metadata_bytes);
    writer.Bytes(header.metadata);
  }
  writer.ZerosUpTo(kPageBytes);
  FieldWriter crc(page.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(page, kCrcAt));
}

HeaderFault DecodeRecordHeader(absl::Span<const char> page, RecordHeader* out) {
  if (page.size() < kPageBytes) {
    return HeaderFault::kNoRecord;
  }
  page = page.first(kPageBytes);
  FieldReader reader(page);
  if (reader.Bytes(kMagic.size()) != kMagic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  const uint8_t kind = reader.U8();
  const uint8_t extra_pages = reader.U8();
  if (reader.U32() != PageCrc32c(page, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  if (version != kRecordVersion) {
    return version > kRecordVersion ? HeaderFault::kNewerVersion : HeaderFault::kField;
  }
  RecordHeader header;
  header.tier_uuid = reader.Digest();
  header.segment_epoch = reader.U64();
  header.sequence = reader.U64();
  header.segment = reader.U32();
  header.page = reader.U32();
  header.payload_bytes = reader.U32();
  header.metadata_bytes = reader.U32();
  header.checksum = reader.Digest();
  header.metadata_checksum = reader.Digest();
  header.namespace_digest = reader.Digest();
  header.generation = reader.U64();
  header.first_token = reader.U64();
  header.tokens = reader.U32();
  const uint16_t key_bytes = reader.U16();
  const uint16_t parent_bytes = reader.U16();
  const uint16_t salt_bytes = reader.U16();
  bool zeros = reader.ZerosUpTo(kKeyAt);
  if (!FieldsMakeSense(header, kind, extra_pages) || key_bytes > kMaxKeyBytes ||
      parent_bytes > kMaxKeyBytes || salt_bytes > kMaxSaltBytes) {
    return HeaderFault::kField;
  }
  header.kind = static_cast<RecordKind>(kind);
  header.key = reader.Bytes(key_bytes);
  zeros = reader.ZerosUpTo(kParentAt) && zeros;
  header.parent = reader.Bytes(parent_bytes);
  zeros = reader.ZerosUpTo(kSaltAt) && zeros;
  header.salt = reader.Bytes(salt_bytes);
  zeros = reader.ZerosUpTo(kMetadataAt) && zeros;
  header.metadata = reader.Bytes(extra_pages == 0 ? header.metadata_bytes : 0);
  zeros = reader.ZerosUpTo(kPageBytes) && zeros;
  if (!zeros || !reader.ok()) {
    return HeaderFault::kField;
  }
  *out = header;
  return HeaderFault::kNone;
}

OwnedIdentity::OwnedIdentity(const BlockIdentity& identity)
    : namespace_digest(identity.namespace_digest),
      generation(identity.generation),
      salt(identity.salt),
      key(identity.key) {}

std::string EncodeTombstones(absl::Span<const OwnedIdentity> identities) {
  size_t bytes = 4;
  for (const OwnedIdentity& identity : identities) {
    bytes += kTombstoneFixedBytes + identity.key.size() + identity.salt.size();
  }
  std::string out(bytes, '\0');
  FieldWriter writer(absl::MakeSpan(out));
  writer.U32(static_cast<uint32_t>(identities.size()));
  for (const OwnedIdentity& identity : identities) {
    writer.Digest(identity.namespace_digest);
    writer.U64(identity.generation);
    writer.U16(static_cast<uint16_t>(identity.key.size()));
    writer.U16(static_cast<uint16_t>(identity.salt.size()));
    writer.Bytes(identity.key);
    writer.Bytes(identity.salt);
  }
  return out;
}

bool DecodeTombstones(absl::Span<const char> payload, std::vector<OwnedIdentity>* out) {
  FieldReader reader(payload);
  const uint32_t count = reader.U32();
  if (count > payload.size() / kTombstoneFixedBytes) {
    return false;
  }
  std::vector<OwnedIdentity> identities(count);
  for (OwnedIdentity& identity : identities) {
    identity.namespace_digest = reader.Digest();
    identity.generation = reader.U64();
    const uint16_t key_bytes = reader.U16();
    const uint16_t salt_bytes = reader.U16();
    if (key_bytes > kMaxKeyBytes || salt_bytes > kMaxSaltBytes) {
      return false;
    }
    identity.key = reader.Bytes(key_bytes);
    identity.salt = reader.Bytes(salt_bytes);
  }
  if (!reader.ok() || reader.position() != payload.size()) {
    return false;
  }
  *out = std::move(identities);
  return true;
}

}  // namespace terrace
