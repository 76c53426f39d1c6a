#include "daemon/gpu/gpu_frame.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "daemon/worker/packet_fields.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr size_t kHead = kPacketHeadBytes;
constexpr size_t kBlockBytes = 24;
constexpr size_t kCopyBytes = kHead + 32 + cuda::kIpcHandleBytes;
constexpr uint32_t kMaxPlanes = 1024;
constexpr uint32_t kMaxSegments = 1024;

// A packet being written.
class Packet {
 public:
  Packet(GpuMessage kind, size_t bytes) : bytes_(bytes, '\0'), out_(absl::MakeSpan(bytes_)) {
    WritePacketHead(out_, static_cast<uint16_t>(kind));
  }
  FieldWriter* operator->() { return &out_; }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
  FieldWriter out_;
};

// A packet being read; reads to the end, and not beyond it.
class Reading {
 public:
  Reading(GpuMessage kind, absl::Span<const char> packet)
      : size_(packet.size()),
        in_(packet),
        ours_(ReadPacketHead(in_, static_cast<uint16_t>(kind))) {}
  FieldReader* operator->() { return &in_; }
  // Whether it was such a packet, as a whole.
  [[nodiscard]] bool Whole() const { return ours_ && in_.ok() && in_.position() == size_; }

 private:
  size_t size_;
  FieldReader in_;
  bool ours_;
};

template <typename Handle>
std::string_view BytesOf(const Handle& handle) {
  return {handle.reserved, sizeof(handle.reserved)};
}

template <typename Handle>
Handle HandleFrom(std::string_view bytes) {
  Handle handle{};
  if (bytes.size() == sizeof(handle.reserved)) {
    std::memcpy(handle.reserved, bytes.data(), bytes.size());
  }
  return handle;
}

std::string EncodeCopyPacket(const GpuCopy& copy, absl::Span<const GpuBlock> blocks, bool more) {
  Packet out(GpuMessage::kCopy, kCopyBytes + blocks.size() * kBlockBytes);
  out->U64(copy.call);
  out->U64(copy.region);
  out->U8(static_cast<uint8_t>(copy.direction));
  out->U8(more ? 1 : 0);
  out->U8(copy.behind.has_value() ? 1 : 0);
  out->U8(copy.progress_slot.has_value() ? 1 : 0);
  out->U32(copy.progress_slot.value_or(0));
  out->Bytes(BytesOf(copy.behind.value_or(cuda::IpcEventHandle{})));
  out->U32(static_cast<uint32_t>(blocks.size()));
  out->U32(0);
  for (const GpuBlock& block : blocks) {
    out->U32(block.slab);
    out->U32(block.block);
    out->U64(block.offset);
    out->U64(block.bytes);
  }
  return out.Take();
}

}  // namespace

std::string EncodeGeometry(const RegionGeometry& geometry) {
  size_t bytes = 8;
  for (const RegionPlane& plane : geometry.planes) {
    bytes += 20 + 16 * plane.segments.size();
  }
  std::string encoded(bytes, '\0');
  FieldWriter out(absl::MakeSpan(encoded));
  out.U32(geometry.block_count);
  out.U32(static_cast<uint32_t>(geometry.planes.size()));
  for (const RegionPlane& plane : geometry.planes) {
    out.U64(plane.offset);
    out.U64(plane.block_stride);
    out.U32(static_cast<uint32_t>(plane.segments.size()));
    for (const RegionSegment& segment : plane.segments) {
      out.U64(segment.offset);
      out.U64(segment.bytes);
    }
  }
  return encoded;
}

std::optional<RegionGeometry> DecodeGeometry(absl::Span<const char> bytes) {
  FieldReader in(bytes);
  RegionGeometry geometry;
  geometry.block_count = in.U32();
  const uint32_t planes = in.U32();
  if (planes > kMaxPlanes) {
    return std::nullopt;
  }
  for (uint32_t p = 0; p < planes && in.ok(); ++p) {
    RegionPlane& plane = geometry.planes.emplace_back();
    plane.offset = in.U64();
    plane.block_stride = in.U64();
    const uint32_t segments = in.U32();
    if (segments > kMaxSegments) {
      return std::nullopt;
    }
    for (uint32_t s = 0; s < segments && in.ok(); ++s) {
      RegionSegment& segment = plane.segments.emplace_back();
      segment.offset = in.U64();
      segment.bytes = in.U64();
    }
  }
  return in.ok() && in.position() == bytes.size() ? std::optional(std::move(geometry))
                                                  : std::nullopt;
}

std::string Encode(const GpuGreeting& message) {
  Packet out(GpuMessage::kGreeting, kHead + sizeof(message.device.bytes) + 8);
  out->Bytes({message.device.bytes, sizeof(message.device.bytes)});
  out->U64(message.staging_bytes);
  return out.Take();
}

std::string Encode(const GpuSlab& message) {
  Packet out(GpuMessage::kAddSlab, kHead + 16);
  out->U32(message.slab);
  out->U32(0);
  out->U64(message.bytes);
  return out.Take();
}

std::string Encode(const GpuDropSlab& message) {
  Packet out(GpuMessage::kDropSlab, kHead + 16);
  out->U64(message.call);
  out->U32(message.slab);
  out->U32(0);
  return out.Take();
}

std::string Encode(const GpuGeometryPiece& message) {
  Packet out(GpuMessage::kGeometry, kHead + 8 + message.bytes.size());
  out->U64(message.region);
  out->Bytes(message.bytes);
  return out.Take();
}

std::string Encode(const GpuOpenRegion& message) {
  Packet out(GpuMessage::kOpenRegion, kHead + 56 + cuda::kIpcHandleBytes);
  out->U64(message.call);
  out->U64(message.region);
  out->U8(static_cast<uint8_t>(message.kind));
  out->U8(message.canary_block.has_value() ? 1 : 0);
  out->U16(0);
  out->U32(message.canary_block.value_or(0));
  out->U32(message.planes_per_layer);
  out->U32(0);
  out->U64(message.allocation_bytes);
  out->U64(message.offset);
  out->U64(message.bytes);
  out->Bytes(BytesOf(message.handle));
  return out.Take();
}

std::string Encode(const GpuCloseRegion& message) {
  Packet out(GpuMessage::kCloseRegion, kHead + 16);
  out->U64(message.call);
  out->U64(message.region);
  return out.Take();
}

std::vector<std::string> Encode(const GpuCopy& message) {
  std::vector<std::string> packets;
  absl::Span<const GpuBlock> left(message.blocks);
  do {
    const absl::Span<const GpuBlock> now = left.first(std::min(left.size(), kMaxBlocksOfPacket));
    left.remove_prefix(now.size());
    packets.push_back(EncodeCopyPacket(message, now, !left.empty()));
  } while (!left.empty());
  return packets;
}

std::string Encode(const GpuReady& message) {
  const std::string_view text = MessageOf(message.status);
  const std::string_view plain =
      std::string_view(message.plain_reason).substr(0, kMaxWorkerMessage);
  const std::string_view single =
      std::string_view(message.single_reason).substr(0, kMaxWorkerMessage);
  Packet out(GpuMessage::kReady, kHead + 40 + text.size() + plain.size() + single.size());
  out->U8(static_cast<uint8_t>(message.status.code()));
  out->U8(message.read_only_memory ? 1 : 0);
  out->U16(static_cast<uint16_t>(text.size()));
  out->U32(message.driver_version);
  out->U32(message.ordinal);
  out->U32(static_cast<uint32_t>(plain.size()));
  out->U32(message.node);
  out->U32(static_cast<uint32_t>(single.size()));
  out->U64(message.load_piece_bytes);
  out->U64(message.save_piece_bytes);
  out->Bytes(text);
  out->Bytes(plain);
  out->Bytes(single);
  return out.Take();
}

std::string Encode(const GpuDone& message) {
  const std::string_view text = MessageOf(message.status);
  Packet out(GpuMessage::kDone, kHead + 16 + text.size());
  out->U64(message.call);
  out->U8(static_cast<uint8_t>(message.status.code()));
  out->U8(0);
  out->U16(static_cast<uint16_t>(text.size()));
  out->U32(0);
  out->Bytes(text);
  return out.Take();
}

std::string Encode(const GpuSeen& message) {
  const GpuWorkerFacts& facts = message.facts;
  const std::string_view reason = std::string_view(facts.ring_reason).substr(0, kMaxWorkerMessage);
  Packet out(GpuMessage::kSeen, kHead + 68 + reason.size());
  out->U64(message.call);
  for (const uint64_t number :
       {facts.bytes_to_device, facts.bytes_to_host, facts.bytes_through_ring, facts.bytes_gathered,
        facts.direct_memory_bytes, facts.ring_memory_bytes, facts.copies}) {
    out->U64(number);
  }
  out->U32(static_cast<uint32_t>(reason.size()));
  out->Bytes(reason);
  return out.Take();
}

std::string EncodeNumber(GpuMessage kind, uint64_t number) {
  Packet out(kind, kHead + 8);
  out->U64(number);
  return out.Take();
}

std::optional<GpuMessage> KindOf(absl::Span<const char> packet) {
  for (const GpuMessage kind :
       {GpuMessage::kGreeting, GpuMessage::kAddSlab, GpuMessage::kDropSlab,
        GpuMessage::kProgressPage, GpuMessage::kGeometry, GpuMessage::kOpenRegion,
        GpuMessage::kCloseRegion, GpuMessage::kCopy, GpuMessage::kCancel, GpuMessage::kLook,
        GpuMessage::kReady, GpuMessage::kDone, GpuMessage::kSeen}) {
    FieldReader in(packet);
    if (ReadPacketHead(in, static_cast<uint16_t>(kind))) {
      return kind;
    }
  }
  return std::nullopt;
}

std::optional<GpuGreeting> DecodeGpuGreeting(absl::Span<const char> packet) {
  Reading in(GpuMessage::kGreeting, packet);
  GpuGreeting message;
  const std::string_view device = in->Bytes(sizeof(message.device.bytes));
  message.staging_bytes = in->U64();
  if (!in.Whole()) {
    return std::nullopt;
  }
  std::memcpy(message.device.bytes, device.data(), device.size());
  return message;
}

std::optional<GpuSlab> DecodeGpuSlab(absl::Span<const char> packet) {
  Reading in(GpuMessage::kAddSlab, packet);
  GpuSlab message;
  message.slab = in->U32();
  const bool padded = in->U32() == 0;
  message.bytes = in->U64();
  return in.Whole() && padded ? std::optional(message) : std::nullopt;
}

std::optional<GpuDropSlab> DecodeGpuDropSlab(absl::Span<const char> packet) {
  Reading in(GpuMessage::kDropSlab, packet);
  GpuDropSlab message;
  message.call = in->U64();
  message.slab = in->U32();
  const bool padded = in->U32() == 0;
  return in.Whole() && padded ? std::optional(message) : std::nullopt;
}

std::optional<GpuGeometryPiece> DecodeGpuGeometryPiece(absl::Span<const char> packet) {
  Reading in(GpuMessage::kGeometry, packet);
  GpuGeometryPiece message;
  message.region = in->U64();
  message.bytes = std::string(in->Bytes(packet.size() - std::min(packet.size(), kHead + 8)));
  return in.Whole() ? std::optional(std::move(message)) : std::nullopt;
}

std::optional<GpuOpenRegion> DecodeGpuOpenRegion(absl::Span<const char> packet) {
  Reading in(GpuMessage::kOpenRegion, packet);
  GpuOpenRegion message;
  message.call = in->U64();
  message.region = in->U64();
  const uint8_t kind = in->U8();
  const uint8_t has_canary = in->U8();
  bool padded = in->U16() == 0;
  const uint32_t canary = in->U32();
  message.planes_per_layer = in->U32();
  padded = in->U32() == 0 && padded;
  message.allocation_bytes = in->U64();
  message.offset = in->U64();
  message.bytes = in->U64();
  message.handle = HandleFrom<cuda::IpcMemHandle>(in->Bytes(cuda::kIpcHandleBytes));
  message.kind = static_cast<GpuMemoryKind>(kind);
  if (has_canary == 1) {
    message.canary_block = canary;
  }
  const bool known = message.kind == GpuMemoryKind::kIpc || message.kind == GpuMemoryKind::kShared;
  return in.Whole() && padded && known && has_canary <= 1 ? std::optional(message) : std::nullopt;
}

std::optional<GpuCloseRegion> DecodeGpuCloseRegion(absl::Span<const char> packet) {
  Reading in(GpuMessage::kCloseRegion, packet);
  GpuCloseRegion message;
  message.call = in->U64();
  message.region = in->U64();
  return in.Whole() ? std::optional(message) : std::nullopt;
}

std::optional<GpuCopyPacket> DecodeGpuCopy(absl::Span<const char> packet) {
  Reading in(GpuMessage::kCopy, packet);
  GpuCopyPacket message;
  message.copy.call = in->U64();
  message.copy.region = in->U64();
  const uint8_t direction = in->U8();
  const uint8_t more = in->U8();
  const uint8_t has_event = in->U8();
  const uint8_t has_progress = in->U8();
  const uint32_t slot = in->U32();
  const auto event = HandleFrom<cuda::IpcEventHandle>(in->Bytes(cuda::kIpcHandleBytes));
  const uint32_t count = in->U32();
  const bool padded = in->U32() == 0;
  if (count > kMaxBlocksOfPacket) {
    return std::nullopt;
  }
  message.copy.blocks.resize(count);
  for (GpuBlock& block : message.copy.blocks) {
    block.slab = in->U32();
    block.block = in->U32();
    block.offset = in->U64();
    block.bytes = in->U64();
  }
  message.copy.direction = static_cast<cuda::CopyDirection>(direction);
  message.more = more == 1;
  if (has_event == 1) {
    message.copy.behind = event;
  }
  if (has_progress == 1) {
    message.copy.progress_slot = slot;
  }
  const bool known = direction <= static_cast<uint8_t>(cuda::CopyDirection::kToHost) && more <= 1 &&
                     has_event <= 1 && has_progress <= 1 && slot < kProgressSlots;
  return in.Whole() && padded && known ? std::optional(std::move(message)) : std::nullopt;
}

std::optional<GpuReady> DecodeGpuReady(absl::Span<const char> packet) {
  Reading in(GpuMessage::kReady, packet);
  GpuReady message;
  const uint8_t code = in->U8();
  const uint8_t read_only = in->U8();
  const uint16_t text_bytes = in->U16();
  message.driver_version = in->U32();
  message.ordinal = in->U32();
  const uint32_t plain_bytes = in->U32();
  message.node = in->U32();
  const uint32_t single_bytes = in->U32();
  message.load_piece_bytes = in->U64();
  message.save_piece_bytes = in->U64();
  std::optional<absl::Status> status = StatusOf(code, in->Bytes(text_bytes));
  message.plain_reason = std::string(in->Bytes(plain_bytes));
  message.single_reason = std::string(in->Bytes(single_bytes));
  if (!in.Whole() || read_only > 1 || !status.has_value()) {
    return std::nullopt;
  }
  message.read_only_memory = read_only == 1;
  message.status = *std::move(status);
  return message;
}

std::optional<GpuDone> DecodeGpuDone(absl::Span<const char> packet) {
  Reading in(GpuMessage::kDone, packet);
  GpuDone message;
  message.call = in->U64();
  const uint8_t code = in->U8();
  bool padded = in->U8() == 0;
  const uint16_t text_bytes = in->U16();
  padded = in->U32() == 0 && padded;
  std::optional<absl::Status> status = StatusOf(code, in->Bytes(text_bytes));
  if (!in.Whole() || !padded || !status.has_value()) {
    return std::nullopt;
  }
  message.status = *std::move(status);
  return message;
}

std::optional<GpuSeen> DecodeGpuSeen(absl::Span<const char> packet) {
  Reading in(GpuMessage::kSeen, packet);
  GpuSeen message;
  message.call = in->U64();
  GpuWorkerFacts& facts = message.facts;
  for (uint64_t* number : {&facts.bytes_to_device, &facts.bytes_to_host, &facts.bytes_through_ring,
                           &facts.bytes_gathered, &facts.direct_memory_bytes,
                           &facts.ring_memory_bytes, &facts.copies}) {
    *number = in->U64();
  }
  const uint32_t reason_bytes = in->U32();
  facts.ring_reason = std::string(in->Bytes(reason_bytes));
  return in.Whole() ? std::optional(std::move(message)) : std::nullopt;
}

std::optional<uint64_t> DecodeGpuNumber(GpuMessage kind, absl::Span<const char> packet) {
  Reading in(kind, packet);
  const uint64_t number = in->U64();
  return in.Whole() ? std::optional(number) : std::nullopt;
}

}  // namespace terrace
