// The messages between the core and the worker of a GPU: one packet each, over a pair of
// SOCK_SEQPACKET sockets; heads and statuses as daemon/worker/packet_fields.h has them.
//
// From the core:
//   kGreeting      its first, with the staging memory's descriptor: 16 bytes device, u64 bytes
//   kAddSlab       with the slab's descriptor: u32 slab, u32 0, u64 bytes. Not answered: what goes
//                  wrong shows in the copies that name it
//   kDropSlab      u64 call, u32 slab, u32 0
//   kProgressPage  with the page's descriptor: u64 region. Before kOpenRegion
//   kGeometry      u64 region, and a piece of its geometry. Before kOpenRegion, as many as it takes
//   kOpenRegion    with the allocation's descriptor where it has one: u64 call, u64 region,
//                  u8 kind, u8 has_canary, u16 0, u32 canary_block, u32 planes_per_layer, u32 0,
//                  u64 allocation_bytes, u64 offset, u64 bytes, 64 bytes handle
//   kCloseRegion   u64 call, u64 region
//   kCopy          u64 call, u64 region, u8 direction, u8 more, u8 has_event, u8 has_progress,
//                  u32 progress_slot, 64 bytes event, u32 block_count, u32 0, and the blocks: each
//                  u32 slab, u32 block, u64 offset, u64 bytes. `more`: the call goes on in the next
//   kCancel        u64 call
//   kLook          u64 call
// From the worker:
//   kReady         its first: u8 status, u8 read_only_memory, u16 message_bytes,
//                  u32 driver_version, u32 ordinal, u32 plain_reason_bytes, u32 node,
//                  u32 single_reason_bytes, u64 load_piece_bytes, u64 save_piece_bytes, the
//                  message, both reasons
//   kDone          (of call 0: what it dies of) u64 call, u8 status, u8 0, u16 message_bytes,
//                  u32 0, the message
//   kSeen          u64 call, and GpuWorkerFacts in their order, the reason last with its u32 length
//
// Pure: bytes in, values out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tiers/gpu/cuda_driver.h"
#include "tiers/vocab/region_geometry.h"

namespace terrace {

enum class GpuMessage : uint16_t {
  kGreeting = 32,
  kAddSlab = 33,
  kDropSlab = 34,
  kProgressPage = 35,
  kGeometry = 36,
  kOpenRegion = 37,
  kCloseRegion = 38,
  kCopy = 39,
  kCancel = 40,
  kLook = 41,
  kReady = 48,
  kDone = 49,
  kSeen = 50,
};

inline constexpr size_t kMaxBlocksOfPacket = 2048;
inline constexpr size_t kMaxGeometryPiece = 60000;
// 1,024 planes of 1,024 segments, and a little.
inline constexpr size_t kMaxGeometryBytes = size_t{17} << 20;
inline constexpr uint32_t kStagingSlab = UINT32_MAX;  // in the place of a slab: the staging memory
inline constexpr uint32_t kProgressSlots = 1024;      // of a page: uint32_t counters

struct GpuGreeting {
  cuda::DeviceUuid device{};
  uint64_t staging_bytes = 0;
};
struct GpuSlab {
  uint32_t slab = 0;
  uint64_t bytes = 0;
};
struct GpuDropSlab {
  uint64_t call = 0;
  uint32_t slab = 0;
};
struct GpuGeometryPiece {
  uint64_t region = 0;
  std::string bytes;
};
enum class GpuMemoryKind : uint8_t { kIpc = 1, kShared = 2 };
struct GpuOpenRegion {
  uint64_t call = 0;
  uint64_t region = 0;
  GpuMemoryKind kind = GpuMemoryKind::kIpc;
  cuda::IpcMemHandle handle{};    // kIpc
  uint64_t allocation_bytes = 0;  // of which the region is a part
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint32_t planes_per_layer = 1;
  std::optional<uint32_t> canary_block;
};
struct GpuCloseRegion {
  uint64_t call = 0;
  uint64_t region = 0;
};
struct GpuBlock {
  uint32_t slab = kStagingSlab;
  uint32_t block = 0;   // of the region
  uint64_t offset = 0;  // in the slab, or in the staging memory
  uint64_t bytes = 0;
  friend bool operator==(const GpuBlock&, const GpuBlock&) = default;
};
struct GpuCopy {
  uint64_t call = 0;
  uint64_t region = 0;
  cuda::CopyDirection direction = cuda::CopyDirection::kToDevice;
  std::optional<cuda::IpcEventHandle> behind;
  std::optional<uint32_t> progress_slot;
  std::vector<GpuBlock> blocks;
};
// One packet of a copy; all but the last of a call with `more`.
struct GpuCopyPacket {
  GpuCopy copy;
  bool more = false;
};
inline constexpr uint32_t kNoNode = UINT32_MAX;
struct GpuReady {
  absl::Status status;  // of finding the device and starting its engine
  bool read_only_memory = false;
  uint32_t driver_version = 0;
  uint32_t ordinal = 0;  // as the driver counts its devices
  // Of blocks in pieces, the largest that a kernel gathers; 0: none is.
  uint64_t load_piece_bytes = 0;
  uint64_t save_piece_bytes = 0;
  std::string plain_reason;  // why none is; "": some are
  std::string single_reason;  // why copies are enqueued one by one; "": they are not
  uint32_t node = kNoNode;   // of memory, to which its threads keep
};
// The call that kDone names when the worker says what it dies of.
inline constexpr uint64_t kLastWords = 0;
struct GpuDone {
  uint64_t call = 0;
  absl::Status status;
};
struct GpuWorkerFacts {
  uint64_t bytes_to_device = 0;  // landed
  uint64_t bytes_to_host = 0;
  uint64_t bytes_through_ring = 0;  // of both
  uint64_t bytes_gathered = 0;      // of both
  uint64_t direct_memory_bytes = 0;
  uint64_t ring_memory_bytes = 0;
  uint64_t copies = 0;      // that have not ended
  std::string ring_reason;  // why host memory goes through the ring; "": none does
};
struct GpuSeen {
  uint64_t call = 0;
  GpuWorkerFacts facts;
};

std::string EncodeGeometry(const RegionGeometry& geometry);
// nullopt: none. Sizes are bounded, and nothing else is judged.
std::optional<RegionGeometry> DecodeGeometry(absl::Span<const char> bytes);

std::string Encode(const GpuGreeting& message);
std::string Encode(const GpuSlab& message);
std::string Encode(const GpuDropSlab& message);
std::string Encode(const GpuGeometryPiece& message);
std::string Encode(const GpuOpenRegion& message);
std::string Encode(const GpuCloseRegion& message);
// One packet, or several where the blocks are many.
std::vector<std::string> Encode(const GpuCopy& message);
std::string Encode(const GpuReady& message);
std::string Encode(const GpuDone& message);
std::string Encode(const GpuSeen& message);
// Of kProgressPage (region), kCancel and kLook (call).
std::string EncodeNumber(GpuMessage kind, uint64_t number);

// nullopt: the packet is none of ours.
std::optional<GpuMessage> KindOf(absl::Span<const char> packet);
// nullopt: not such a message.
std::optional<GpuGreeting> DecodeGpuGreeting(absl::Span<const char> packet);
std::optional<GpuSlab> DecodeGpuSlab(absl::Span<const char> packet);
std::optional<GpuDropSlab> DecodeGpuDropSlab(absl::Span<const char> packet);
std::optional<GpuGeometryPiece> DecodeGpuGeometryPiece(absl::Span<const char> packet);
std::optional<GpuOpenRegion> DecodeGpuOpenRegion(absl::Span<const char> packet);
std::optional<GpuCloseRegion> DecodeGpuCloseRegion(absl::Span<const char> packet);
std::optional<GpuCopyPacket> DecodeGpuCopy(absl::Span<const char> packet);
std::optional<GpuReady> DecodeGpuReady(absl::Span<const char> packet);
std::optional<GpuDone> DecodeGpuDone(absl::Span<const char> packet);
std::optional<GpuSeen> DecodeGpuSeen(absl::Span<const char> packet);
std::optional<uint64_t> DecodeGpuNumber(GpuMessage kind, absl::Span<const char> packet);

}  // namespace terrace
