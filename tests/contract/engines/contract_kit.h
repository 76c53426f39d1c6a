// What the engine programs share: namespaces, keys, payloads that can be recomputed, and parts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/v1/cache.pb.h"

#include "tests/doubles/service_double.h"

namespace terrace::contract {

// A valid record of "llama-3.1-8b" with blocks of 16 tokens and 8 KiB, to be varied.
v1::NamespaceRecord PlainRecord();

// A 32-byte key of the index-th block of a prompt; equal for equal arguments only.
std::string KeyOf(std::string_view prompt, uint32_t index);
std::vector<std::string> Chain(std::string_view prompt, uint32_t blocks);
std::string Joined(const std::vector<std::string>& keys);

// The bytes that this block has everywhere in these tests.
std::string PayloadOf(std::string_view namespace_digest, std::string_view key, uint64_t bytes);

v1::Part PartOf(const std::string& digest,
                const std::vector<std::string>& keys,
                v1::Rule rule = v1::RULE_PREFIX);

// A process of the engine on a session of its own, greeted.
struct EngineProcess {
  doubles::ServiceDouble& service;
  doubles::Caller caller;

  static EngineProcess Start(doubles::ServiceDouble& service, const std::string& tenant);
  // Reopened by itself after a restart would be the library's work; here the test says when.
  void Reconnect();
  [[nodiscard]] std::string Open(const v1::NamespaceRecord& record) const;
  // Registers `memory` as a plain array of blocks.
  void RegisterArray(uint32_t region_id,
                     const doubles::SharedBytes& memory,
                     uint64_t block_bytes) const;
  // Stores blocks inline with PayloadOf; true when every one is STORED or DUPLICATE.
  bool PutChain(const std::string& digest,
                const std::vector<std::string>& keys,
                uint64_t bytes) const;
};

// The per-key byte of a packed answer.
template <typename Enum>
Enum AnswerAt(const std::string& packed, size_t key) {
  return static_cast<Enum>(static_cast<unsigned char>(packed.at(key)));
}
v1::KeyState StateAt(const v1::ProbeReply& reply, size_t key);

}  // namespace terrace::contract
