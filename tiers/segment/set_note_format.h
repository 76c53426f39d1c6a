// A note as it lies on each drive of a set: with the version that tells which drive has the latest.
// Pure.
//
//   note = magic "TRRCSET\n", version u64 little-endian, value
//
// A note without the magic was written by a tier that stood alone: version 0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace terrace {

inline constexpr uint32_t kSetNoteBytes = 16;  // in front of the value

std::string EncodeSetNote(uint64_t version, std::string_view value);
// *value is borrowed from `note`.
void DecodeSetNote(std::string_view note, uint64_t* version, std::string_view* value);

}  // namespace terrace
