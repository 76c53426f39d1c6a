// The frame header of session.proto: 24 bytes, little-endian, before every message.
#pragma once

#include <cstddef>
#include <cstdint>

namespace terrace::client {

inline constexpr size_t kFrameHeaderBytes = 24;
inline constexpr uint32_t kMaxMessageBytes = uint32_t{4} << 20;
inline constexpr uint32_t kMaxFrameDescriptors = 8;

// Method of session.proto, as far as the library speaks it.
enum class Method : uint16_t {
  kHello = 1,
  kOpenNamespace = 2,
  kClearNamespace = 3,
  kRegisterRegion = 4,
  kUnregisterRegion = 5,
  kProbe = 6,
  kPrefetch = 7,
  kTicket = 8,
  kGet = 9,
  kRelease = 10,
  kPut = 11,
  kDelete = 13,
  kPin = 14,
  kUnpin = 15,
  kCancel = 16,
  kWatch = 17,
  kMapSlab = 18,
  kPing = 19,
  kDrainNotice = 32,
  kBackPressureNotice = 33,
  kSlabRetiredNotice = 34,
  kGpuWorkerNotice = 35,
};

enum class FrameKind : uint8_t { kRequest = 1, kReply = 2, kPush = 3 };

struct FrameHeader {
  uint32_t payload_bytes = 0;
  uint16_t method = 0;
  uint8_t kind = 0;
  uint8_t descriptor_count = 0;
  uint64_t call_id = 0;
  uint32_t deadline_ms = 0;
  uint32_t status = 0;
};

// Writes kFrameHeaderBytes to `out`.
void EncodeFrameHeader(const FrameHeader& header, char* out);
// Reads kFrameHeaderBytes; checks nothing.
FrameHeader DecodeFrameHeader(const char* in);
// Whether a client may receive a frame with this header: a reply to a call or a push, within the
// limits.
bool ReceivableHeader(const FrameHeader& header);

}  // namespace terrace::client
