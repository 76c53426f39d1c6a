// The format of a tier directory's superblock. Pure.
//
//   file "terrace.superblock" = copy, copy; they are written in turn, the older one each time
//   copy     = 4096 bytes, little-endian:
//          0    8  magic "TRRCSUP\n"
//          8    2  version, 1
//         10    2  zeros
//         12    4  CRC-32C of the page, these four bytes as zeros
//         16   16  UUID of the tier
//         32    8  epoch: raised by every opening of the tier, durably before it writes
//         40    8  bytes of a segment
//         48       zeros
//
// Of two valid copies the one with the higher epoch holds.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

#include "tiers/segment/record_format.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint16_t kSuperblockVersion = 1;
inline constexpr uint32_t kSuperblockCopies = 2;
// An epoch is the upper part of every sequence number, which has 40 bits below it.
inline constexpr uint64_t kMaxTierEpoch = (uint64_t{1} << 23) - 1;

struct Superblock {
  Digest128 uuid;
  uint64_t epoch = 0;
  uint64_t segment_bytes = 0;
};
void EncodeSuperblock(const Superblock& superblock, absl::Span<char> page);
HeaderFault DecodeSuperblock(absl::Span<const char> page, Superblock* out);

}  // namespace terrace
