#include "client/src/arguments.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

namespace terrace::client {
namespace {

constexpr size_t kMaxTextBytes = 256;
constexpr size_t kMaxSocketPathBytes = 107;  // sun_path, less its zero
constexpr uint64_t kMaxBlockBytes = uint64_t{64} << 20;
constexpr uint32_t kMaxPlanes = 1024;
constexpr uint32_t kMaxSegments = 1024;
constexpr uint32_t kMostHeartbeatMs = 60'000;
constexpr uint64_t kMaxStagingBytes = uint64_t{1} << 46;

Verdict NoSize(const char* type) {
  return Verdict::Invalid(std::string("struct_bytes: must be sizeof(") + type + ")");
}

std::string_view TextOf(const char* text) {
  return text == nullptr ? std::string_view() : std::string_view(text);
}

Verdict CheckText(const char* name, const char* text, bool required) {
  const std::string_view value = TextOf(text);
  if (value.size() > kMaxTextBytes) {
    return Verdict::Invalid(std::string(name) + ": longer than 256 bytes");
  }
  if (required && value.empty()) {
    return Verdict::Invalid(std::string(name) + ": required");
  }
  return {};
}

Verdict CheckTexts(const terrace_namespace_record& record) {
  struct Text {
    const char* name;
    const char* value;
    bool required;
  };
  const Text texts[] = {
      {"model", record.model, true},
      {"weights_revision", record.weights_revision, true},
      {"kv_dtype", record.kv_dtype, true},
      {"quantization", record.quantization, false},
      {"layout", record.layout, true},
      {"engine_format", record.engine_format, false},
      {"hash_algorithm", record.hash_algorithm, true},
      {"hash_seed", record.hash_seed, false},
      {"group_kind", record.group_kind, false},
      {"parallel", record.parallel, false},
  };
  for (const Text& text : texts) {
    Verdict verdict = CheckText(text.name, text.value, text.required);
    if (!verdict.ok()) {
      return verdict;
    }
  }
  return {};
}

Verdict CheckLabels(const terrace_namespace_record& record) {
  if (record.label_count > 16 || (record.label_count > 0 && record.labels == nullptr)) {
    return Verdict::Invalid("labels: at most 16, none of them null");
  }
  for (uint32_t i = 0; i < record.label_count; ++i) {
    const terrace_label& label = record.labels[i];
    if (label.key == nullptr || label.value == nullptr) {
      return Verdict::Invalid("labels: at most 16, none of them null");
    }
    if (TextOf(label.key).size() > kMaxTextBytes || TextOf(label.value).size() > kMaxTextBytes) {
      return Verdict::Invalid("labels: longer than 256 bytes");
    }
    for (uint32_t k = 0; k < i; ++k) {
      if (TextOf(record.labels[k].key) == TextOf(label.key)) {
        return Verdict::Invalid("labels: the same key twice");
      }
    }
  }
  return {};
}

Verdict CheckKeys(const terrace_part& part) {
  if (part.key_bytes < 16 || part.key_bytes > 64) {
    return Verdict::Invalid("parts.key_bytes: must be 16 to 64");
  }
  if (part.key_count > kMaxKeys) {
    return Verdict::Invalid("parts: more than 16384 keys");
  }
  if (part.key_count > 0 && part.keys == nullptr) {
    return Verdict::Invalid("parts.keys: null");
  }
  return {};
}

Verdict CheckPart(const terrace_part& part, Blocks blocks) {
  Verdict verdict = CheckKeys(part);
  if (!verdict.ok()) {
    return verdict;
  }
  if (part.salt_bytes > 256 || (part.salt_bytes > 0 && part.salt == nullptr)) {
    return Verdict::Invalid("parts.salt: at most 256 bytes, not null");
  }
  if (NumberIn(part.rule) > TERRACE_RULE_INDEPENDENT) {
    return Verdict::Invalid("parts.rule: must be 0 to 4");
  }
  if ((part.rule == TERRACE_RULE_WINDOW) != (part.window_tokens > 0)) {
    return Verdict::Invalid("parts.window_tokens: above 0 with TERRACE_RULE_WINDOW, else 0");
  }
  for (uint32_t i = 1; part.end_tokens != nullptr && i < part.key_count; ++i) {
    if (part.end_tokens[i] <= part.end_tokens[i - 1]) {
      return Verdict::Invalid("parts.end_tokens: must rise");
    }
  }
  if (blocks == Blocks::kInRegion) {
    if (part.region == 0) {
      return Verdict::Invalid("parts.region: required");
    }
    if (part.key_count > 0 && part.block_indexes == nullptr) {
      return Verdict::Invalid("parts.block_indexes: null");
    }
  }
  return {};
}

bool NameOk(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

// Bounds only, so that nothing here can overflow; the daemon checks overlap.
Verdict CheckPlanes(const terrace_region_spec& spec) {
  if (spec.plane_count == 0 || spec.plane_count > kMaxPlanes) {
    return Verdict::Invalid("plane_count: must be 1 to 1024");
  }
  for (uint32_t i = 0; i < spec.plane_count; ++i) {
    const terrace_plane& plane = spec.planes[i];
    if (plane.segments == nullptr || plane.segment_count == 0 ||
        plane.segment_count > kMaxSegments) {
      return Verdict::Invalid("planes.segment_count: must be 1 to 1024, segments not null");
    }
    for (uint32_t k = 0; k < plane.segment_count; ++k) {
      const terrace_segment& segment = plane.segments[k];
      if (segment.bytes == 0 || segment.bytes > kMaxBlockBytes) {
        return Verdict::Invalid("planes.segments.bytes: must be 1 to 67108864");
      }
    }
  }
  return {};
}

constexpr uint32_t kMostSpinUs = 1000;
constexpr uint32_t kDefaultSpinUs = 100;

// On one core the daemon could not work while this process polls.
uint32_t SpinUs(uint32_t given) {
  if (given == TERRACE_NO_SPIN || std::thread::hardware_concurrency() < 2) {
    return 0;
  }
  return given == 0 ? kDefaultSpinUs : given;
}

}  // namespace

Verdict CheckSession(const char* folder,
                     const char* name,
                     std::string* socket_path,
                     std::string* client_name) {
  if (folder == nullptr || *folder == '\0') {
    folder = std::getenv("TERRACE_RUNTIME");
  }
  if (folder == nullptr || *folder == '\0') {
    folder = "/run/terrace";
  }
  *socket_path = std::string(folder) + "/session.sock";
  if (socket_path->size() > kMaxSocketPathBytes) {
    return Verdict::Invalid("runtime_dir: with /session.sock longer than 107 bytes");
  }
  *client_name = name == nullptr ? "libterrace" : name;
  if (!NameOk(*client_name)) {
    return Verdict::Invalid("client_name: must be 1 to 64 of A-Za-z0-9._-");
  }
  return {};
}

Verdict CheckOptions(const terrace_options* options, ClientOptions* out) {
  terrace_options given{};
  if (options != nullptr && !CopyVersioned(options, &given)) {
    return NoSize("terrace_options");
  }
  Verdict session =
      CheckSession(given.runtime_dir, given.client_name, &out->socket_path, &out->client_name);
  if (!session.ok()) {
    return session;
  }
  out->default_deadline_ms = given.default_deadline_ms == 0 ? 1000 : given.default_deadline_ms;
  out->reconnect_ms = given.reconnect_ms == 0 ? 1000 : given.reconnect_ms;
  if (given.spin_us > kMostSpinUs && given.spin_us != TERRACE_NO_SPIN) {
    return Verdict::Invalid("spin_us: at most 1,000, or TERRACE_NO_SPIN");
  }
  out->spin_us = SpinUs(given.spin_us);
  out->slabs = given.slabs;
  return {};
}

Verdict CheckWatch(const terrace_watch_options* options, WatchOptions* out) {
  terrace_watch_options given{};
  if (options != nullptr && !CopyVersioned(options, &given)) {
    return NoSize("terrace_watch_options");
  }
  Verdict session =
      CheckSession(given.runtime_dir, given.client_name, &out->socket_path, &out->client_name);
  if (!session.ok()) {
    return session;
  }
  if (given.namespace_count > kMaxNamespaces) {
    return Verdict::Invalid("namespace_count: at most 1,024");
  }
  if (given.namespace_count > 0 && given.namespaces == nullptr) {
    return Verdict::Invalid("namespaces: null");
  }
  if (given.heartbeat_ms > kMostHeartbeatMs) {
    return Verdict::Invalid("heartbeat_ms: at most 60,000");
  }
  out->reconnect_ms = given.reconnect_ms == 0 ? 1000 : given.reconnect_ms;
  out->heartbeat_ms = given.heartbeat_ms == 0 ? 1000 : given.heartbeat_ms;
  out->snapshots = given.snapshots != 0;
  out->publisher_id = given.publisher_id;
  out->after_sequence = given.after_sequence;
  if (given.namespace_count > 0) {
    out->namespaces.assign(reinterpret_cast<const char*>(given.namespaces),
                           kDigestBytes * given.namespace_count);
  }
  return {};
}

Verdict CheckRecord(const terrace_namespace_record* record, terrace_namespace_record* out) {
  if (record == nullptr || !CopyVersioned(record, out)) {
    return NoSize("terrace_namespace_record");
  }
  Verdict verdict = CheckTexts(*out);
  if (!verdict.ok()) {
    return verdict;
  }
  if (out->block_tokens > 65536) {
    return Verdict::Invalid("block_tokens: must be 0 to 65536");
  }
  if (out->block_bytes == 0 || out->block_bytes > kMaxBlockBytes) {
    return Verdict::Invalid("block_bytes: must be 1 to 67108864");
  }
  if (out->group > 255) {
    return Verdict::Invalid("group: must be 0 to 255");
  }
  if (out->shard_count > 4096) {
    return Verdict::Invalid("shard_count: must be 0 to 4096");
  }
  if (out->shard_rank >= std::max<uint32_t>(out->shard_count, 1)) {
    return Verdict::Invalid("shard_rank: must be below shard_count");
  }
  if (out->sharding > 3) {
    return Verdict::Invalid("sharding: must be 0 to 3");
  }
  if (out->sharding >= 2 && out->shard_rank != 0) {
    return Verdict::Invalid("shard_rank: must be 0 when canonical or replicated");
  }
  if (out->key_suffix_bytes > 16 || (out->key_suffix_bytes > 0 && out->key_suffix == nullptr)) {
    return Verdict::Invalid("key_suffix: at most 16 bytes, not null");
  }
  return CheckLabels(*out);
}

namespace {

Verdict CheckMemory(const terrace_region_spec& spec) {
  const uint32_t memory = NumberIn(spec.memory);
  const bool is_host = memory == TERRACE_MEMORY_HOST;
  const bool is_ipc = memory == TERRACE_MEMORY_CUDA_IPC;
  if (!is_host && !is_ipc && memory != TERRACE_MEMORY_CUDA_VMM) {
    return Verdict::Invalid("memory: not a terrace_memory");
  }
  if (!is_ipc && spec.fd < 0) {
    return Verdict::Invalid("fd: not a descriptor");
  }
  const uint64_t alignment = is_host ? 4096 : 4;
  if (spec.offset % alignment != 0) {
    return Verdict::Invalid("offset: must be a multiple of " + std::to_string(alignment));
  }
  if (is_host) {
    return {};
  }
  if (is_ipc && spec.handle == nullptr) {
    return Verdict::Invalid("handle: required");
  }
  if (spec.read_only != 0) {
    return Verdict::Invalid("read_only: not of GPUs");
  }
  if (spec.allocation_bytes == 0) {
    return Verdict::Invalid("allocation_bytes: required");
  }
  return {};
}

}  // namespace

Verdict CheckRegion(const terrace_region_spec* spec, terrace_region_spec* out) {
  if (spec == nullptr || !CopyVersioned(spec, out)) {
    return NoSize("terrace_region_spec");
  }
  Verdict memory = CheckMemory(*out);
  if (!memory.ok()) {
    return memory;
  }
  if (out->bytes == 0) {
    return Verdict::Invalid("bytes: must be at least 1");
  }
  if (out->block_count == 0) {
    return Verdict::Invalid("block_count: must be at least 1");
  }
  if (out->planes != nullptr) {
    return CheckPlanes(*out);
  }
  if (out->block_bytes == 0 || out->block_bytes > kMaxBlockBytes) {
    return Verdict::Invalid("block_bytes: must be 1 to 67108864");
  }
  if (out->block_bytes * out->block_count > out->bytes) {
    return Verdict::Invalid("bytes: must hold block_count blocks of block_bytes");
  }
  return {};
}

Verdict CheckStaging(uint64_t block_bytes, uint32_t block_count) {
  if (block_bytes == 0 || block_bytes > kMaxBlockBytes) {
    return Verdict::Invalid("block_bytes: must be 1 to 67108864");
  }
  if (block_count == 0 || block_count > kMaxStagingBytes / kMaxBlockBytes) {
    return Verdict::Invalid("block_count: must be 1 to 1048576");
  }
  return {};
}

Verdict CheckCall(const terrace_call* call, const CallShape& shape, Request* request) {
  terrace_call given{};
  if (call == nullptr || !CopyVersioned(call, &given)) {
    return NoSize("terrace_call");
  }
  request->method = shape.method;
  request->tag = given.tag;
  request->deadline_ms = given.deadline_ms;
  if (given.request_id_bytes > 64 || (given.request_id_bytes > 0 && given.request_id == nullptr)) {
    return Verdict::Invalid("request_id: at most 64 bytes, not null");
  }
  if (given.request_id_bytes > 0) {
    request->request_id = {static_cast<const char*>(given.request_id), given.request_id_bytes};
  }
  if (given.part_count == 0 || given.part_count > shape.parts_most || given.parts == nullptr) {
    return Verdict::Invalid("parts: must be 1 to " + std::to_string(shape.parts_most));
  }
  // The step from part to part is the caller's size of a part, not ours.
  const char* at = reinterpret_cast<const char*>(given.parts);
  const uint32_t step = given.parts->struct_bytes;
  for (uint32_t i = 0; i < given.part_count; ++i, at += step) {
    terrace_part& part = request->parts[i].part;
    if (!CopyVersioned(reinterpret_cast<const terrace_part*>(at), &part) ||
        part.struct_bytes != step) {
      return NoSize("terrace_part");
    }
    Verdict verdict = CheckPart(part, shape.blocks);
    if (!verdict.ok()) {
      return verdict;
    }
    part.region = shape.blocks == Blocks::kInRegion ? part.region : 0;
    request->parts[i].digest = nullptr;
    request->key_count += part.key_count;
    if (request->key_count > kMaxKeys) {
      return Verdict::Invalid("parts: more than 16384 keys");
    }
  }
  request->part_count = given.part_count;
  return {};
}

Verdict CheckGet(const terrace_call* call, const terrace_get_options* options, Request* request) {
  terrace_get_options given{};
  if (options == nullptr || !CopyVersioned(options, &given)) {
    return NoSize("terrace_get_options");
  }
  const uint32_t delivery = NumberIn(given.delivery);
  if (delivery != TERRACE_DELIVER_LEASE && delivery != TERRACE_DELIVER_REGION) {
    return Verdict::Invalid("delivery: must be TERRACE_DELIVER_LEASE or TERRACE_DELIVER_REGION");
  }
  request->delivery = given.delivery;
  request->wait_pending = given.wait_pending != 0;
  const auto* hold = reinterpret_cast<const char*>(options->hold.bytes);
  const bool held = std::any_of(given.hold.bytes, given.hold.bytes + kDigestBytes,
                                [](uint8_t byte) { return byte != 0; });
  request->hold = held ? std::string_view(hold, kDigestBytes) : std::string_view();
  const bool region = given.delivery == TERRACE_DELIVER_REGION;
  return CheckCall(call, {Method::kGet, kMaxParts, region ? Blocks::kInRegion : Blocks::kNone},
                   request);
}

Verdict CheckPut(const terrace_call* call,
                 const terrace_put_options* options,
                 std::string_view payload,
                 Request* request) {
  terrace_put_options given{};
  if (options != nullptr && !CopyVersioned(options, &given)) {
    return NoSize("terrace_put_options");
  }
  const bool from_region = payload.data() == nullptr;
  Verdict verdict =
      CheckCall(call, {Method::kPut, 1, from_region ? Blocks::kInRegion : Blocks::kNone}, request);
  if (!verdict.ok()) {
    return verdict;
  }
  if (payload.size() > kMaxInlineBytes) {
    return Verdict::Invalid("payload: more than 3145728 bytes; use a region");
  }
  if (given.parent_bytes > 64 || (given.parent_bytes > 0 && given.parent == nullptr)) {
    return Verdict::Invalid("parent: at most 64 bytes, not null");
  }
  if (NumberIn(given.wait_for) > TERRACE_LEVEL_POOL) {
    return Verdict::Invalid("wait_for: must be 0 to 5");
  }
  if (TextOf(given.stop_reason).size() > 32) {
    return Verdict::Invalid("stop_reason: longer than 32 bytes");
  }
  if (!from_region && given.payload_bytes != nullptr) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < request->key_count; ++i) {
      sum += given.payload_bytes[i];
    }
    if (sum != payload.size()) {
      return Verdict::Invalid("payload_bytes: must add up to the size of payload");
    }
  }
  request->payload = payload;
  request->payload_bytes = given.payload_bytes;
  if (given.parent_bytes > 0) {
    request->parent = {static_cast<const char*>(given.parent), given.parent_bytes};
  }
  request->wait_for = static_cast<uint32_t>(given.wait_for);
  request->output_tokens = given.output_tokens;
  request->stop_reason = TextOf(given.stop_reason);
  request->session_end = given.session_end != 0;
  request->expected_return_ms = given.expected_return_ms;
  request->compute_us = given.compute_us;
  return {};
}

Verdict CheckRelease(const terrace_id128* leases,
                     uint32_t lease_count,
                     const terrace_id128* holds,
                     uint32_t hold_count) {
  if (lease_count > kMaxReleases || (lease_count > 0 && leases == nullptr)) {
    return Verdict::Invalid("leases: at most 1024, not null");
  }
  if (hold_count > kMaxReleases || (hold_count > 0 && holds == nullptr)) {
    return Verdict::Invalid("holds: at most 1024, not null");
  }
  return {};
}

}  // namespace terrace::client
