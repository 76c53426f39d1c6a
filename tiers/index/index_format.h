// Keys and values of the durable index. Pure.
//
//   "v"                             -> u32 version (1), UUID of the tier: u64 hi, u64 lo
//   "p" segment                     -> u64 epoch, u32 complete_pages, u8 sealed
//   "r" segment page                -> fingerprint, checksum (u64 hi, u64 lo each), u64 sequence,
//                                      u32 payload_bytes, u8 kind, u8 extra_pages
//
// Numbers in keys are u32, big-endian, so that they sort; in values little-endian. Every value ends
// in a CRC-32 (zlib's) of key and value, because what reads it may have been handed the wrong one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint32_t kIndexVersion = 1;

std::string VersionKey();
std::string EncodeVersion(const Digest128& tier_uuid);
// False: damaged, or another version.
bool DecodeVersion(std::string_view value, Digest128* tier_uuid);

std::string PositionKey(uint32_t segment);
// The least key behind all positions.
std::string PositionsEnd();
std::string EncodePosition(const SegmentPosition& position);
bool DecodePosition(std::string_view key, std::string_view value, SegmentPosition* out);

std::string RecordKey(uint32_t segment, uint32_t page);
// The least key behind all records of the segment.
std::string RecordsEnd(uint32_t segment);
std::string EncodeRecord(const IndexedRecord& record);
bool DecodeRecord(std::string_view key, std::string_view value, IndexedRecord* out);

}  // namespace terrace
