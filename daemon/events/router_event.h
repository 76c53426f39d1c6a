// What a router is told, before it is written down, and in which of vLLM's formats that is done.
// Values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace terrace {

// How an event is written: kMap as vLLM does since June 2026, kArray as it did before.
enum class EventFormat : uint8_t { kMap = 0, kArray = 1 };
// kInt: the low 64 bits of the hash, as vLLM does unless told otherwise; kBytes: all of it.
enum class EventHashes : uint8_t { kInt = 0, kBytes = 1 };

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
