// A vLLM KVConnector over the contract: the scheduler's half and a worker's half, with vLLM's
// method names.
//
// The scheduler has its own session and never sees memory; each worker (a tensor-parallel rank) has
// a session, a namespace with its shard_rank, and its HBM as a region, for which host memory stands
// in here. What a worker is told travels as plain metadata, as vLLM pickles it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {

inline constexpr uint32_t kBlockTokens = 16;

struct VllmRequest {
  std::string id;
  std::vector<std::string> block_hashes;  // one a full block of the prompt
  uint32_t prompt_tokens = 0;
};

// What the scheduler tells the workers of one request.
struct LoadPlan {
  std::string request_id;
  std::vector<std::string> keys;
  std::vector<uint32_t> block_ids;  // parallel to keys
  std::string hold_id;
};

class VllmScheduler {
 public:
  VllmScheduler(EngineProcess process, std::vector<std::string> rank_namespaces);

  struct Matched {
    std::optional<uint32_t> tokens;  // none: ask again in the next step
    bool load_is_async = false;
  };
  // Never waits; may be called again and again for one request.
  Matched GetNumNewMatchedTokens(const VllmRequest& request, uint32_t num_computed_tokens);
  // The blocks are reserved: from here on the plan goes to the workers with the next metadata.
  void UpdateStateAfterAlloc(const VllmRequest& request,
                             const std::vector<uint32_t>& block_ids,
                             uint32_t num_external_tokens);
  std::vector<LoadPlan> BuildConnectorMeta() { return std::exchange(plans_, {}); }
  // The request ended, was aborted, or was preempted.
  void RequestFinished(const std::string& request_id);
  // Blocks of the request up to the first bad one, in tokens: vLLM computes from there.
  static uint32_t TokensToKeep(const std::vector<uint32_t>& block_ids,
                               const std::set<uint32_t>& bad_block_ids);

 private:
  struct Lookup {
    std::string hold_id;
    uint32_t first_key = 0;
  };

  EngineProcess process_;
  std::vector<std::string> namespaces_;
  std::map<std::string, Lookup> lookups_;  // by request id
  std::vector<LoadPlan> plans_;
};

enum class HbmLayout { kKeysThenValues, kBlocksFirst };  // [2, blocks, ...] and [blocks, 2, ...]

class VllmWorker {
 public:
  struct Shape {
    HbmLayout layout = HbmLayout::kKeysThenValues;
    uint32_t layers = 2;
    uint32_t blocks = 16;
    uint64_t page_bytes = 1024;  // K or V of one block in one layer
  };
  VllmWorker(EngineProcess process, std::string digest, Shape shape);

  void RegisterKvCaches();
  void StartLoadKv(const std::vector<LoadPlan>& plans);
  // Request ids whose loads ended since the last call, failed ones included.
  std::set<std::string> GetFinished() { return std::exchange(received_, {}); }
  std::set<uint32_t> GetBlockIdsWithLoadErrors() { return std::exchange(load_errors_, {}); }
  // Begins storing; the blocks may not be reused before the put ended or was cancelled.
  void SaveBlocks(const std::string& request_id,
                  const std::vector<std::string>& keys,
                  const std::vector<uint32_t>& block_ids);
  // When this returns nothing reads the blocks of these requests any more.
  void HandlePreemptions(const std::set<std::string>& request_ids);

  void WriteBlock(uint32_t block_id, std::string_view payload);
  [[nodiscard]] std::string ReadBlock(uint32_t block_id) const;
  [[nodiscard]] uint64_t block_bytes() const { return 2 * shape_.layers * shape_.page_bytes; }
  [[nodiscard]] std::string ExpectedPayload(const std::string& key) const {
    return PayloadOf(digest_, key, block_bytes());
  }
  [[nodiscard]] const std::string& digest() const { return digest_; }
  [[nodiscard]] const doubles::SharedBytes& hbm() const { return hbm_; }
  [[nodiscard]] const std::vector<v1::PutReply>& saves() const { return saves_; }

 private:
  [[nodiscard]] uint64_t PageOffset(uint32_t layer, uint32_t block, uint32_t kv) const;
  void LoadOne(const LoadPlan& plan);

  EngineProcess process_;
  std::string digest_;
  Shape shape_;
  doubles::SharedBytes hbm_;
  std::set<std::string> received_;
  std::set<uint32_t> load_errors_;
  std::map<std::string, std::vector<uint64_t>> saving_;  // request id -> call ids in flight
  uint64_t next_call_id_ = 1;
  std::vector<v1::PutReply> saves_;
};

}  // namespace terrace::contract
