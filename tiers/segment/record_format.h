// The format of a record: what a segment holds of one block. Pure.
//
//   record   = header page, payload padded with zeros to 4096, metadata pages
//   header   = 4096 bytes, little-endian:
//     offset size
//          0    8  magic "TRRCREC\n"
//          8    2  version, 1
//         10    1  kind
//         11    1  extra pages: pages of metadata behind the payload, 0 to 3
//         12    4  CRC-32C of the page, these four bytes as zeros
//         16   16  UUID of the tier
//         32    8  epoch of the segment
//         40    8  sequence: rises with every record of the tier, through all its lives
//         48    4  number of the segment
//         52    4  page in the segment at which the record begins
//         56    4  payload_bytes
//         60    4  metadata_bytes
//         64   16  XXH3-128 of the payload
//         80   16  XXH3-128 of the metadata
//         96   16  namespace digest
//        112    8  generation
//        120    8  first token
//        128    4  tokens
//        132    2  key_bytes
//        134    2  parent_bytes
//        136    2  salt_bytes
//        138    6  zeros
//        144   64  key, then zeros
//        208   64  parent's key, then zeros
//        272  256  salt, then zeros
//        528 3568  metadata where it fits (extra pages = 0), then zeros
//
// Digests are two u64, hi first. Metadata that does not fit lies behind the payload and not in
// front of it, so that header page and payload are one contiguous transfer into a slot.
//
//   tombstones (payload of kind 2) = count u32, then per key: namespace digest, generation u64,
//                                    key_bytes u16, salt_bytes u16, key, salt
//
// Version 1 is the first. A newer version is a miss and its segment is left alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

inline constexpr uint32_t kPageBytes = 4096;
inline constexpr uint32_t kMaxMetadataBytes = 3 * kPageBytes;
inline constexpr uint32_t kInlineMetadataBytes = 3568;
inline constexpr uint16_t kRecordVersion = 1;

enum class RecordKind : uint8_t { kBlock = 1, kTombstones = 2, kNote = 3 };

// Text is borrowed: from the page that was decoded, or from whoever encodes.
struct RecordHeader {
  RecordKind kind = RecordKind::kBlock;
  Digest128 tier_uuid;
  uint64_t segment_epoch = 0;
  uint64_t sequence = 0;
  uint32_t segment = 0;
  uint32_t page = 0;
  uint32_t payload_bytes = 0;
  Digest128 checksum;
  uint32_t metadata_bytes = 0;
  Digest128 metadata_checksum;
  std::string_view metadata;  // empty when it lies behind the payload
  Digest128 namespace_digest;
  uint64_t generation = 0;
  std::string_view salt;
  std::string_view key;
  std::string_view parent;
  uint64_t first_token = 0;
  uint32_t tokens = 0;
};

constexpr uint32_t PagesOf(uint64_t bytes) {
  return static_cast<uint32_t>((bytes + kPageBytes - 1) / kPageBytes);
}
// Pages of metadata behind the payload.
constexpr uint32_t ExtraPages(uint32_t metadata_bytes) {
  return metadata_bytes <= kInlineMetadataBytes ? 0 : PagesOf(metadata_bytes);
}
constexpr uint32_t RecordPages(uint32_t payload_bytes, uint32_t metadata_bytes) {
  return 1 + PagesOf(payload_bytes) + ExtraPages(metadata_bytes);
}

// Writes the whole page. Lengths are within the limits of tiers/vocab.
void EncodeRecordHeader(const RecordHeader& header, absl::Span<char> page);

enum class HeaderFault : uint8_t {
  kNone = 0,
  kNoRecord = 1,  // another magic: zeros, payload, another format
  kChecksum = 2,
  kNewerVersion = 3,
  kField = 4,  // a field out of range although the checksum matches
};
// Never reads beyond the page; *out is complete only with kNone.
HeaderFault DecodeRecordHeader(absl::Span<const char> page, RecordHeader* out);

// Owned, as a tombstone names it.
struct OwnedIdentity {
  Digest128 namespace_digest;
  uint64_t generation = 0;
  std::string salt;
  std::string key;

  OwnedIdentity() = default;
  explicit OwnedIdentity(const BlockIdentity& identity);
  [[nodiscard]] BlockIdentity view() const { return {namespace_digest, generation, salt, key}; }
};
std::string EncodeTombstones(absl::Span<const OwnedIdentity> identities);
// False: malformed.
bool DecodeTombstones(absl::Span<const char> payload, std::vector<OwnedIdentity>* out);

}  // namespace terrace
