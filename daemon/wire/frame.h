// The frame header of a session socket, as the comment at the head of proto/terrace/v1/session.proto lays it down.
// Pure: bytes in, numbers out. Immutable values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace terrace {

inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr uint32_t kMaxFrameDescriptors = 8;

enum class FrameKind : uint8_t { kRequest = 1, kReply = 2, kPush = 3 };

struct FrameHeader {
  uint32_t payload_bytes = 0;
  uint16_t method = 0;  // v1::Method
  FrameKind kind = FrameKind::kRequest;
  uint8_t descriptor_count = 0;
  uint64_t call_id = 0;
  uint32_t deadline_ms = 0;
  uint32_t status = 0;  // canonical code, 0 in requests and pushes

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Little-endian, kFrameHeaderBytes long.
void EncodeFrameHeader(const FrameHeader& header, absl::Span<char> out);
// Any 24 bytes decode; CheckRequestHeader says whether they make sense. `kind` may hold a value that is no FrameKind.
FrameHeader DecodeFrameHeader(absl::Span<const char> bytes);

// Name of the field of a client's frame that breaks a rule; nullptr when none does.
const char* BrokenRequestField(const FrameHeader& header, uint32_t max_payload_bytes);

}  // namespace terrace
