#include "daemon/worker/worker_frame.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "daemon/worker/packet_fields.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr size_t kHeadBytes = kPacketHeadBytes;
constexpr size_t kGreetingBytes = kHeadBytes + 16;
constexpr size_t kRequestBytes = kHeadBytes + 40;
constexpr size_t kReadyBytes = kHeadBytes + 16;
constexpr size_t kReplyBytes = kHeadBytes + 40;
constexpr size_t kEntryBytes = 10;

void WriteHead(FieldWriter& out, WorkerMessage kind) {
  WritePacketHead(out, static_cast<uint16_t>(kind));
}

bool ReadHead(FieldReader& in, WorkerMessage kind) {
  return ReadPacketHead(in, static_cast<uint16_t>(kind));
}

std::optional<FolderEntry> ReadEntry(FieldReader& in) {
  FolderEntry entry;
  const uint8_t kind = in.U8();
  const uint8_t name_bytes = in.U8();
  entry.bytes = in.U64();
  entry.name = std::string(in.Bytes(name_bytes));
  entry.kind = static_cast<EntryKind>(kind);
  const bool is_name = !entry.name.empty() && entry.name.find('/') == std::string::npos &&
                       entry.name.find('\0') == std::string::npos;
  if (!in.ok() || kind > static_cast<uint8_t>(EntryKind::kOther) || !is_name) {
    return std::nullopt;
  }
  return entry;
}

// A packet with as many of the entries as fit; moves `next` behind them.
std::string EncodeReplyPart(uint64_t call, const PoolReply& reply, size_t& next) {
  const std::string_view message = MessageOf(reply.status);
  size_t bytes = kReplyBytes + message.size();
  const size_t first = next;
  while (next < reply.entries.size() &&
         bytes + kEntryBytes + reply.entries[next].name.size() <= kMaxWorkerPacket) {
    bytes += kEntryBytes + reply.entries[next].name.size();
    ++next;
  }
  std::string packet(bytes, '\0');
  FieldWriter out(absl::MakeSpan(packet));
  WriteHead(out, WorkerMessage::kReply);
  out.U64(call);
  out.U8(static_cast<uint8_t>(reply.status.code()));
  out.U8(next < reply.entries.size() ? 1 : 0);
  out.U16(static_cast<uint16_t>(message.size()));
  out.U32(static_cast<uint32_t>(next - first));
  out.U64(reply.bytes);
  out.U64(reply.space.total_bytes);
  out.U64(reply.space.available_bytes);
  out.Bytes(message);
  for (size_t i = first; i < next; ++i) {
    const FolderEntry& entry = reply.entries[i];
    out.U8(static_cast<uint8_t>(entry.kind));
    out.U8(static_cast<uint8_t>(entry.name.size()));
    out.U64(entry.bytes);
    out.Bytes(entry.name);
  }
  return packet;
}

}  // namespace

std::string EncodeGreeting(const WorkerGreeting& greeting) {
  std::string packet(kGreetingBytes + greeting.root.size(), '\0');
  FieldWriter out(absl::MakeSpan(packet));
  WriteHead(out, WorkerMessage::kGreeting);
  out.U64(greeting.memory_bytes);
  out.U32(greeting.max_calls);
  out.U32(static_cast<uint32_t>(greeting.root.size()));
  out.Bytes(greeting.root);
  return packet;
}

std::string EncodeRequest(const WorkerRequest& request) {
  std::string packet(kRequestBytes + request.path.size(), '\0');
  FieldWriter out(absl::MakeSpan(packet));
  WriteHead(out, WorkerMessage::kRequest);
  out.U64(request.call);
  out.U8(static_cast<uint8_t>(request.op));
  out.U8(static_cast<uint8_t>(request.how));
  out.U16(static_cast<uint16_t>(request.path.size()));
  out.U32(0);
  out.U64(request.offset);
  out.U64(request.length);
  out.U64(request.memory_offset);
  out.Bytes(request.path);
  return packet;
}

std::string EncodeReady(const WorkerReady& ready) {
  const std::string_view message = MessageOf(ready.status);
  std::string packet(kReadyBytes + message.size(), '\0');
  FieldWriter out(absl::MakeSpan(packet));
  WriteHead(out, WorkerMessage::kReady);
  out.U64(ready.root_inode);
  out.U8(static_cast<uint8_t>(ready.status.code()));
  out.U8(0);
  out.U16(static_cast<uint16_t>(message.size()));
  out.U32(0);
  out.Bytes(message);
  return packet;
}

std::vector<std::string> EncodeReply(uint64_t call, const PoolReply& reply) {
  std::vector<std::string> packets;
  size_t next = 0;
  do {
    packets.push_back(EncodeReplyPart(call, reply, next));
  } while (next < reply.entries.size());
  return packets;
}

std::optional<WorkerGreeting> DecodeGreeting(absl::Span<const char> packet) {
  FieldReader in(packet);
  WorkerGreeting greeting;
  const bool ours = ReadHead(in, WorkerMessage::kGreeting);
  greeting.memory_bytes = in.U64();
  greeting.max_calls = in.U32();
  const uint32_t root_bytes = in.U32();
  greeting.root = std::string(in.Bytes(root_bytes));
  if (!ours || !in.ok() || in.position() != packet.size() || root_bytes == 0 ||
      root_bytes > kMaxRootBytes) {
    return std::nullopt;
  }
  return greeting;
}

std::optional<WorkerRequest> DecodeRequest(absl::Span<const char> packet) {
  FieldReader in(packet);
  WorkerRequest request;
  const bool ours = ReadHead(in, WorkerMessage::kRequest);
  request.call = in.U64();
  const uint8_t op = in.U8();
  const uint8_t how = in.U8();
  const uint16_t path_bytes = in.U16();
  const bool padded = in.U32() == 0;
  request.offset = in.U64();
  request.length = in.U64();
  request.memory_offset = in.U64();
  request.path = std::string(in.Bytes(path_bytes));
  request.op = static_cast<PoolOp>(op);
  request.how = static_cast<ReadHow>(how);
  if (!ours || !in.ok() || in.position() != packet.size() || !padded || op == 0 || op > kPoolOps ||
      how > static_cast<uint8_t>(ReadHow::kGlance) || path_bytes > kMaxPathBytes) {
    return std::nullopt;
  }
  return request;
}

std::optional<WorkerReady> DecodeReady(absl::Span<const char> packet) {
  FieldReader in(packet);
  WorkerReady ready;
  const bool ours = ReadHead(in, WorkerMessage::kReady);
  ready.root_inode = in.U64();
  const uint8_t code = in.U8();
  const bool first_padded = in.U8() == 0;
  const uint16_t message_bytes = in.U16();
  const bool padded = in.U32() == 0 && first_padded;
  std::optional<absl::Status> status = StatusOf(code, in.Bytes(message_bytes));
  if (!ours || !in.ok() || in.position() != packet.size() || !padded || !status.has_value() ||
      message_bytes > kMaxWorkerMessage) {
    return std::nullopt;
  }
  ready.status = *std::move(status);
  return ready;
}

std::optional<WorkerReply> DecodeReply(absl::Span<const char> packet) {
  FieldReader in(packet);
  WorkerReply reply;
  const bool ours = ReadHead(in, WorkerMessage::kReply);
  reply.call = in.U64();
  const uint8_t code = in.U8();
  const uint8_t more = in.U8();
  const uint16_t message_bytes = in.U16();
  const uint32_t entry_count = in.U32();
  reply.reply.bytes = in.U64();
  reply.reply.space.total_bytes = in.U64();
  reply.reply.space.available_bytes = in.U64();
  std::optional<absl::Status> status = StatusOf(code, in.Bytes(message_bytes));
  if (!ours || !in.ok() || !status.has_value() || more > 1 || message_bytes > kMaxWorkerMessage ||
      entry_count > packet.size() / kEntryBytes) {
    return std::nullopt;
  }
  reply.more = more == 1;
  reply.reply.status = *std::move(status);
  reply.reply.entries.reserve(entry_count);
  for (uint32_t i = 0; i < entry_count; ++i) {
    std::optional<FolderEntry> entry = ReadEntry(in);
    if (!entry.has_value()) {
      return std::nullopt;
    }
    reply.reply.entries.push_back(*std::move(entry));
  }
  if (in.position() != packet.size()) {
    return std::nullopt;
  }
  return reply;
}

}  // namespace terrace
