// WatchRequest and WatchReply of cache.proto. What is decoded points into the message.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/watch.h"

namespace terrace::client {

struct WatchRequest {
  uint64_t publisher_id = 0;
  uint64_t after_sequence = 0;
  bool snapshot = false;
  std::string_view namespaces;  // 16 bytes each, end to end
  uint32_t heartbeat_ms = 0;
};
// Appends the message. Throws std::bad_alloc.
void EncodeWatch(const WatchRequest& request, std::string* frame);

// EventKind of cache.proto where the ABI has none.
inline constexpr uint32_t kHeartbeatKind = 6;

struct WatchEvent {
  uint32_t kind = 0;
  uint64_t sequence = 0;
  terrace_id128 ns{};
  std::string_view keys;
  uint32_t key_bytes = 0;
  std::string_view parent;
  std::string_view salt;
  std::string_view tier;
  uint64_t first_token = 0;
  uint32_t block_tokens = 0;
};
struct WatchedNamespaceMessage {
  terrace_id128 digest{};
  terrace_id128 family{};
  std::string_view record;  // message NamespaceRecord
};
struct WatchReply {
  uint64_t publisher_id = 0;
  uint64_t call_id = 0;
  std::vector<WatchedNamespaceMessage> namespaces;
  std::vector<WatchEvent> events;
};
// False: malformed, or keys that are no whole number of keys. Throws std::bad_alloc.
bool DecodeWatch(std::string_view message, WatchReply* reply);

}  // namespace terrace::client
