// Batches of KV events as vLLM writes them (vllm/distributed/kv_events.py), in msgpack
// (github.com/msgpack/msgpack/blob/master/spec.md). Pure.
//
//   batch         [ts: float, [event...], data_parallel_rank: int]
//   BlockStored   block_hashes, parent_block_hash, token_ids, block_size, lora_id, medium,
//                 lora_name, extra_keys, group_idx, kv_cache_spec_kind
//   BlockRemoved  block_hashes, medium, group_idx
//   AllBlocksCleared
//
// An event is a map of these names, led by "type", or an array of the values, led by the type's
// name. lora_id is always nil. In a map extra_keys is left out where it is nil.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"

#include "daemon/events/router_event.h"

namespace terrace {

class EventBatchWriter {
 public:
  EventBatchWriter(EventFormat format, EventHashes hashes, uint32_t data_parallel_rank)
      : format_(format), hashes_(hashes), rank_(data_parallel_rank) {}

  void Add(const RouterEvent& event);
  [[nodiscard]] size_t bytes() const { return events_.size(); }  // of the events alone
  [[nodiscard]] bool empty() const { return count_ == 0; }
  // The batch; the next one begins empty. `at`: since the epoch.
  std::string Finish(absl::Duration at);

 private:
  void AddMap(const RouterEvent& event);
  void AddArray(const RouterEvent& event);
  void AppendHash(std::string_view hash);
  void AppendHashes(const RouterEvent& event);

  const EventFormat format_;
  const EventHashes hashes_;
  const uint32_t rank_;
  std::string events_;
  uint32_t count_ = 0;
};

// Whether `bytes` are exactly one value in msgpack, at most 16 levels deep.
bool IsMsgpackValue(std::string_view bytes);

}  // namespace terrace
