// What a router is told, before it is written down in one of vLLM's formats. Values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace terrace {

struct RouterEvent {
  enum class Kind : uint8_t { kStored, kRemoved, kAllCleared };
  Kind kind = Kind::kAllCleared;
  // kStored: each the parent of the next, if token_ids are told. Without what the namespace adds to
  // each key.
  std::vector<std::string> hashes;
  std::string medium;
  uint32_t group = 0;
  // kStored.
  std::string parent;               // "": none, or not known
  std::vector<uint32_t> token_ids;  // of all blocks; none: not known, and block_tokens is 0
  uint32_t block_tokens = 0;
  std::string lora_name;                // "": none
  std::vector<std::string> extra_keys;  // none, or one a block: a value in msgpack; "": none
  std::string spec_kind;                // vLLM's word for the kind of the KV-cache group
};

}  // namespace terrace
