#include "daemon/wire/frame.h"

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

template <typename T>
void Store(T value, char* out) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out[i] = static_cast<char>(static_cast<uint8_t>(value >> (8 * i)));
  }
}

template <typename T>
T Load(const char* in) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | (static_cast<T>(static_cast<uint8_t>(in[i])) << (8 * i)));
  }
  return value;
}

}  // namespace

void EncodeFrameHeader(const FrameHeader& header, absl::Span<char> out) {
  TERRACE_CHECK(out.size() >= kFrameHeaderBytes);
  Store<uint32_t>(header.payload_bytes, out.data());
  Store<uint16_t>(header.method, out.data() + 4);
  out[6] = static_cast<char>(header.kind);
  out[7] = static_cast<char>(header.descriptor_count);
  Store<uint64_t>(header.call_id, out.data() + 8);
  Store<uint32_t>(header.deadline_ms, out.data() + 16);
  Store<uint32_t>(header.status, out.data() + 20);
}

FrameHeader DecodeFrameHeader(absl::Span<const char> bytes) {
  TERRACE_CHECK(bytes.size() >= kFrameHeaderBytes);
  FrameHeader header;
  header.payload_bytes = Load<uint32_t>(bytes.data());
  header.method = Load<uint16_t>(bytes.data() + 4);
  header.kind = static_cast<FrameKind>(static_cast<uint8_t>(bytes[6]));
  header.descriptor_count = static_cast<uint8_t>(bytes[7]);
  header.call_id = Load<uint64_t>(bytes.data() + 8);
  header.deadline_ms = Load<uint32_t>(bytes.data() + 16);
  header.status = Load<uint32_t>(bytes.data() + 20);
  return header;
}

const char* BrokenRequestField(const FrameHeader& header, uint32_t max_payload_bytes) {
  if (header.payload_bytes > max_payload_bytes) {
    return "payload_bytes";
  }
  if (header.kind != FrameKind::kRequest) {
    return "kind";
  }
  if (header.descriptor_count > kMaxFrameDescriptors) {
    return "descriptor_count";
  }
  if (header.call_id == 0) {
    return "call_id";
  }
  if (header.status != 0) {
    return "status";
  }
  return nullptr;
}

}  // namespace terrace
