#include "tests/contract/engines/contract_kit.h"

#include <gtest/gtest.h>

namespace terrace::contract {
namespace {

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111eb;
  return x ^ (x >> 31U);
}

std::string Stream(std::string_view seed, uint64_t bytes) {
  uint64_t state = 0x9e3779b97f4a7c15;
  for (const char c : seed) {
    state = Mix(state + static_cast<unsigned char>(c) + 1);
  }
  std::string out;
  out.reserve(bytes + 8);
  while (out.size() < bytes) {
    state += 0x9e3779b97f4a7c15;
    const uint64_t word = Mix(state);
    for (unsigned shift = 0; shift < 64; shift += 8) {
      out.push_back(static_cast<char>(word >> shift));
    }
  }
  out.resize(bytes);
  return out;
}

}  // namespace

v1::NamespaceRecord PlainRecord() {
  v1::NamespaceRecord record;
  record.set_model("llama-3.1-8b");
  record.set_weights_revision("0e9e39f");
  record.set_kv_dtype("bf16");
  record.set_layout("test-k-then-v/1");
  record.set_hash_algorithm("sha256_cbor");
  record.set_block_tokens(16);
  record.set_block_bytes(8192);
  return record;
}

std::string KeyOf(std::string_view prompt, uint32_t index) {
  return Stream(std::string(prompt) + "#" + std::to_string(index), 32);
}

std::vector<std::string> Chain(std::string_view prompt, uint32_t blocks) {
  std::vector<std::string> keys;
  for (uint32_t i = 0; i < blocks; ++i) {
    keys.push_back(KeyOf(prompt, i));
  }
  return keys;
}

std::string Joined(const std::vector<std::string>& keys) {
  std::string joined;
  for (const std::string& key : keys) {
    joined += key;
  }
  return joined;
}

std::string PayloadOf(std::string_view namespace_digest, std::string_view key, uint64_t bytes) {
  return Stream(std::string(namespace_digest) + std::string(key), bytes);
}

v1::Part PartOf(const std::string& digest, const std::vector<std::string>& keys, v1::Rule rule) {
  v1::Part part;
  part.set_namespace_digest(digest);
  part.set_rule(rule);
  part.set_keys(Joined(keys));
  part.set_key_bytes(keys.empty() ? 0 : static_cast<uint32_t>(keys.front().size()));
  return part;
}

EngineProcess EngineProcess::Start(doubles::ServiceDouble& service, const std::string& tenant) {
  EngineProcess process{service, {.tenant = tenant}};
  process.Reconnect();
  return process;
}

void EngineProcess::Reconnect() {
  caller = service.Connect(caller.tenant);
  v1::HelloRequest request;
  request.set_protocol_major(1);
  request.set_client_name("contract");
  request.set_pidfd(true);
  v1::HelloReply reply;
  ASSERT_TRUE(service.Hello(caller, request, &reply).ok());
}

std::string EngineProcess::Open(const v1::NamespaceRecord& record) const {
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = record;
  v1::OpenNamespaceReply reply;
  const absl::Status status = service.OpenNamespace(caller, request, &reply);
  EXPECT_TRUE(status.ok()) << status;
  return reply.namespace_digest();
}

void EngineProcess::RegisterArray(uint32_t region_id,
                                  const doubles::SharedBytes& memory,
                                  uint64_t block_bytes) const {
  v1::RegisterRegionRequest request;
  request.set_region_id(region_id);
  request.set_bytes(memory->size());
  request.mutable_geometry()->set_block_count(static_cast<uint32_t>(memory->size() / block_bytes));
  v1::Plane* plane = request.mutable_geometry()->add_planes();
  plane->set_block_stride(block_bytes);
  plane->add_segments()->set_bytes(block_bytes);
  v1::RegisterRegionReply reply;
  const absl::Status status = service.RegisterRegion(caller, request, memory, &reply);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(reply.payload_bytes(), block_bytes);
}

bool EngineProcess::PutChain(const std::string& digest,
                             const std::vector<std::string>& keys,
                             uint64_t bytes) const {
  v1::PutRequest request;
  *request.mutable_part() = PartOf(digest, keys);
  request.add_payload_bytes(static_cast<uint32_t>(bytes));
  for (const std::string& key : keys) {
    request.mutable_payload()->append(PayloadOf(digest, key, bytes));
  }
  v1::PutReply reply;
  if (!service.Put(caller, request, &reply).ok()) {
    return false;
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto outcome = AnswerAt<v1::PutOutcome>(reply.outcomes(), i);
    if (outcome != v1::PUT_OUTCOME_STORED && outcome != v1::PUT_OUTCOME_DUPLICATE) {
      return false;
    }
  }
  return true;
}

v1::KeyState StateAt(const v1::ProbeReply& reply, size_t key) {
  return static_cast<v1::KeyState>(static_cast<unsigned char>(reply.states().at(key)) & 0xfU);
}

}  // namespace terrace::contract
