// The messages between the core and the worker of a shared tier: one packet each, over a pair of
// SOCK_SEQPACKET sockets. Little-endian; padding is zero; what breaks a rule does not decode.
//
//   every message  u32 magic, u16 version, u16 kind
//   kGreeting      the core's first, with the bounce memory's descriptor:
//                  u64 memory_bytes, u32 max_calls, u32 root_bytes, the root's path
//   kRequest       u64 call, u8 op, u8 how, u16 path_bytes, u32 0, u64 offset, u64 length,
//                  u64 memory_offset, the path
//   kReady         the worker's first: u64 root_inode, u8 status, u8 0, u16 message_bytes, u32 0,
//                  the message
//   kReply         u64 call, u8 status, u8 more, u16 message_bytes, u32 entry_count, u64 bytes,
//                  u64 total_bytes, u64 available_bytes, the message, and the entries:
//                  each u8 kind, u8 name_bytes, u64 bytes, the name
//
// A listing that is too long for one packet comes in several replies, all but the last with `more`.
// Both ends are of one binary, so that another version is a fault and not something to adapt to.
//
// Pure: bytes in, values out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "daemon/worker/packet_fields.h"
#include "tiers/os/file_system.h"
#include "tiers/shared/pool_files.h"

namespace terrace {

inline constexpr size_t kMaxWorkerPacket = 65536;
inline constexpr size_t kMaxRootBytes = 4095;

enum class WorkerMessage : uint16_t { kGreeting = 1, kRequest = 2, kReady = 3, kReply = 4 };

struct WorkerGreeting {
  std::string root;
  uint64_t memory_bytes = 0;
  uint32_t max_calls = 1;
  friend bool operator==(const WorkerGreeting&, const WorkerGreeting&) = default;
};

struct WorkerRequest {
  uint64_t call = 0;
  PoolOp op = PoolOp::kCheckRoot;
  ReadHow how = ReadHow::kKept;
  std::string path;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t memory_offset = 0;  // where in the bounce memory the buffer begins
  friend bool operator==(const WorkerRequest&, const WorkerRequest&) = default;
};

struct WorkerReady {
  absl::Status status;      // of opening the root
  uint64_t root_inode = 0;  // of the root; the same when a file system is mounted again
};

struct WorkerReply {
  uint64_t call = 0;
  bool more = false;
  PoolReply reply;
};

std::string EncodeGreeting(const WorkerGreeting& greeting);
std::string EncodeRequest(const WorkerRequest& request);
std::string EncodeReady(const WorkerReady& ready);
// One packet, or several where the listing is long.
std::vector<std::string> EncodeReply(uint64_t call, const PoolReply& reply);

// nullopt: not such a message. Paths and sizes are not judged but by their length; operations,
// kinds and status codes that do not exist are not decoded.
std::optional<WorkerGreeting> DecodeGreeting(absl::Span<const char> packet);
std::optional<WorkerRequest> DecodeRequest(absl::Span<const char> packet);
std::optional<WorkerReady> DecodeReady(absl::Span<const char> packet);
std::optional<WorkerReply> DecodeReply(absl::Span<const char> packet);

}  // namespace terrace
