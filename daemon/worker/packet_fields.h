// What the packets of all workers begin with, and how they carry a status. Little-endian; both ends
// are of one binary, so that another version is a fault and not something to adapt to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "tiers/vocab/little_endian.h"

namespace terrace {

inline constexpr size_t kPacketHeadBytes = 8;     // u32 magic, u16 version, u16 kind
inline constexpr size_t kMaxWorkerMessage = 512;  // of a status; longer ones are cut

inline constexpr uint32_t kPacketMagic = 0x4B575254;  // "TRWK"
inline constexpr uint16_t kPacketVersion = 1;

inline void WritePacketHead(FieldWriter& out, uint16_t kind) {
  out.U32(kPacketMagic);
  out.U16(kPacketVersion);
  out.U16(kind);
}

// Whether it is a head of that kind.
inline bool ReadPacketHead(FieldReader& in, uint16_t kind) {
  const uint32_t magic = in.U32();
  const uint16_t version = in.U16();
  return in.U16() == kind && magic == kPacketMagic && version == kPacketVersion;
}

inline std::string_view MessageOf(const absl::Status& status) {
  const absl::string_view message = status.message();
  return {message.data(), std::min(message.size(), kMaxWorkerMessage)};
}

// nullopt: no such code.
inline std::optional<absl::Status> StatusOf(uint8_t code, std::string_view message) {
  if (code > static_cast<uint8_t>(absl::StatusCode::kUnauthenticated)) {
    return std::nullopt;
  }
  return absl::Status(static_cast<absl::StatusCode>(code),
                      absl::string_view(message.data(), message.size()));
}

}  // namespace terrace
