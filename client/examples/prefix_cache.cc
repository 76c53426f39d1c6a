// What an engine does for a request: ask how much of the prompt's prefix is there, load that into
// its own memory, compute the rest, store it. The blocks' memory is staging of the library; an
// engine with a pool in shared memory registers that.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include <terrace/terrace.hpp>

namespace {

constexpr uint32_t kBlocks = 8;
constexpr uint64_t kBlockBytes = 64 << 10;
constexpr size_t kKeyBytes = 32;
constexpr uint32_t kBlockTokens = 16;

terrace_namespace_record Record() {
  terrace_namespace_record record{};
  record.model = "example/model";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "example/1";
  record.hash_algorithm = "none";
  record.block_tokens = kBlockTokens;
  record.block_bytes = kBlockBytes;
  return record;
}

// An engine has the hashes of the prompt's blocks; here any bytes do.
std::string KeysOfPrompt() {
  std::string keys;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    std::string key = "prompt-block-" + std::to_string(i);
    key.resize(kKeyBytes, '.');
    keys += key;
  }
  return keys;
}

void Compute(std::byte* block, uint32_t index) {
  std::memset(block, static_cast<int>('a' + index), kBlockBytes);
}

}  // namespace

int main() {
  terrace::Options options;
  options.client_name = "prefix-cache";
  options.deadline = terrace::Milliseconds(2000);
  const terrace::Client client = terrace::Client::Open(options);
  const terrace::Namespace ns = client.OpenNamespace(Record());
  const terrace::Staging pool = client.CreateStaging(kBlockBytes, kBlocks);
  if (!client || !ns || !pool) {
    std::fprintf(stderr, "cannot begin: %s\n", terrace_last_error());
    return 1;
  }
  const std::string keys = KeysOfPrompt();
  std::vector<uint32_t> blocks(kBlocks);
  std::iota(blocks.begin(), blocks.end(), 0U);

  for (int request = 1; request <= 2; ++request) {
    const terrace::Completion probe = client.Probe(terrace::Part(ns, keys));
    uint32_t held = probe.ok() ? probe->part_boundary_keys[0] : 0;
    if (held > 0) {
      const std::string_view prefix = std::string_view(keys).substr(0, held * kKeyBytes);
      held = client.Get(terrace::Part(ns, prefix).In(pool, blocks.data())).delivered_prefix();
    }
    for (uint32_t i = held; i < kBlocks; ++i) {
      Compute(pool.block(i), i);
    }
    uint32_t stored = 0;
    if (held < kBlocks) {
      terrace::PutOptions put_options;
      if (held > 0) {
        put_options.parent = std::string_view(keys).substr((held - 1) * kKeyBytes, kKeyBytes);
      }
      const terrace::Completion put =
          client.Put(terrace::Part(ns, std::string_view(keys).substr(held * kKeyBytes))
                         .In(pool, blocks.data() + held)
                         .Tokens(uint64_t{held} * kBlockTokens),
                     put_options);
      for (uint32_t i = 0; i < put.key_count(); ++i) {
        stored += put.stored(i) ? 1 : 0;
      }
    }
    std::printf("request %d: %u blocks loaded, %u computed, %u stored\n", request, held,
                kBlocks - held, stored);
  }
  return 0;
}
