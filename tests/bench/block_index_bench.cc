// What finding a chain costs over a million blocks: hashes, index and identities, without a lock, a
// carrier or a touch. Not a test: run by hand, on a quiet machine.
//
// Chains are looked up in random order, so that little of what a lookup needs lies in a cache.
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "daemon/store/block_table.h"

namespace terrace {
namespace {

constexpr uint32_t kBlocks = 1'000'000;
constexpr uint32_t kChain = 1024;
constexpr uint32_t kKeyBytes = 36;
constexpr ScopeId kScope{1};

std::string KeysOf(uint64_t first, uint32_t count) {
  std::string keys(size_t{count} * kKeyBytes, '\0');
  for (uint32_t i = 0; i < count; ++i) {
    std::mt19937_64 random(first + i);
    for (uint32_t at = 0; at + sizeof(uint64_t) <= kKeyBytes; at += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(keys.data() + size_t{i} * kKeyBytes + at, &word, sizeof(word));
    }
  }
  return keys;
}

struct Filled {
  BlockTable blocks;
  ResidentIndex index{blocks, 12345};
  std::vector<std::string> chains;

  Filled() {
    for (uint32_t first = 0; first + kChain <= kBlocks; first += kChain) {
      chains.push_back(KeysOf(first, kChain));
      for (uint32_t i = 0; i < kChain; ++i) {
        const KeyView key(chains.back().data() + size_t{i} * kKeyBytes, kKeyBytes);
        index.Insert(blocks.Add(kScope, key));
      }
    }
  }
};

void FindChain(benchmark::State& state) {
  static Filled filled;
  std::mt19937_64 random(1);
  std::vector<BlockId> found(kChain);
  for (auto _ : state) {
    const std::string& keys = filled.chains[random() % filled.chains.size()];
    const size_t written = filled.index.FindMany(
        kScope, keys, kKeyBytes, ResidentIndex::OnMiss::kStop, absl::MakeSpan(found));
    if (written != kChain || found.back() == kNoBlock) {
      state.SkipWithError("a key is missing");
    }
  }
  state.SetItemsProcessed(state.iterations() * kChain);
}
BENCHMARK(FindChain)->Unit(benchmark::kMicrosecond)->Repetitions(5);

}  // namespace
}  // namespace terrace

BENCHMARK_MAIN();
