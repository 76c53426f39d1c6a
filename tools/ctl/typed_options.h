// Options as the operator typed them, and their check into a CommandLine. No CLI11 here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "tools/ctl/command_line.h"

namespace terrace::ctl {

// CLI11 holds references into it while it parses; `line.verb` is set before Finish.
struct Typed {
  CommandLine line;
  bool json = false;
  std::string timeout;
  std::string digest;
  std::string block_bytes;
  std::string sharding;
  std::string key_suffix;
  std::vector<std::string> labels;
  // model, weights_revision, ...: the fields of the record that are text.
  struct RecordText {
    std::string model, weights_revision, kv_dtype, quantization, layout, engine_format,
        hash_algorithm, hash_seed, group_kind, parallel;
  } text;
  uint32_t block_tokens = 0;
  uint32_t group = 0;
  uint32_t shard_count = 0;
  uint32_t shard_rank = 0;
  std::vector<std::string> keys;
  std::vector<std::string> key_texts;
  std::string salt;
  std::string salt_text;
  std::string rule;
  std::string parent;
  std::string parent_text;
  std::string wait_for;
  std::string hold_id;
  std::string wait;
  std::string hold;
  std::string deadline;
  std::string priority;
  std::string ttl;
  std::string interval;
  std::string evict_target;
  std::string reclaim;
  std::string guaranteed;
  std::string limit;
  bool prefetch = false;
  bool once = false;
  bool verify_payloads = false;
  bool list_records = false;
  bool snapshot = false;
};

// Fills typed->line from the other members. INVALID_ARGUMENT names the option and what it takes.
absl::Status Finish(Typed* typed);

}  // namespace terrace::ctl
