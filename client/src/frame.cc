#include "client/src/frame.h"

#include <type_traits>

namespace terrace::client {
namespace {

template <typename Number>
void Store(char* out, Number value) {
  for (size_t i = 0; i < sizeof(Number); ++i) {
    out[i] = static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  }
}

template <typename Number>
Number Load(const char* in) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) {
    value |= uint64_t{static_cast<uint8_t>(in[i])} << (8 * i);
  }
  return static_cast<Number>(value);
}

}  // namespace

void EncodeFrameHeader(const FrameHeader& header, char* out) {
  Store(out, header.payload_bytes);
  Store(out + 4, header.method);
  Store(out + 6, header.kind);
  Store(out + 7, header.descriptor_count);
  Store(out + 8, header.call_id);
  Store(out + 16, header.deadline_ms);
  Store(out + 20, header.status);
}

FrameHeader DecodeFrameHeader(const char* in) {
  FrameHeader header;
  header.payload_bytes = Load<uint32_t>(in);
  header.method = Load<uint16_t>(in + 4);
  header.kind = Load<uint8_t>(in + 6);
  header.descriptor_count = Load<uint8_t>(in + 7);
  header.call_id = Load<uint64_t>(in + 8);
  header.deadline_ms = Load<uint32_t>(in + 16);
  header.status = Load<uint32_t>(in + 20);
  return header;
}

bool ReceivableHeader(const FrameHeader& header) {
  if (header.payload_bytes > kMaxMessageBytes || header.descriptor_count > kMaxFrameDescriptors) {
    return false;
  }
  if (header.kind == static_cast<uint8_t>(FrameKind::kReply)) {
    return header.call_id != 0;
  }
  return header.kind == static_cast<uint8_t>(FrameKind::kPush) && header.call_id == 0 &&
         header.status == 0;
}

}  // namespace terrace::client
