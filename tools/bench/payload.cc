#include "tools/bench/payload.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace terrace::bench {
namespace {

constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio
constexpr size_t kBatchWords = 512;

// The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection in which every bit matters.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EB;
  return x ^ (x >> 31U);
}

// Cheaper than Mix: one multiplication makes neighbouring words differ in every byte, which is all
// that is needed.
uint64_t Word(uint64_t seed, uint64_t i) {
  const uint64_t x = (seed + i) * kOdd;
  return x ^ (x >> 32U);
}

}  // namespace

std::string PayloadSource::Key(uint64_t name, uint32_t key_bytes) const {
  std::string key(key_bytes, '\0');
  uint64_t state = Mix(space_ * kOdd + name);
  for (size_t at = 0; at < key.size(); at += sizeof(state)) {
    std::memcpy(key.data() + at, &state, std::min(sizeof(state), key.size() - at));
    state = Mix(state + name + kOdd);
  }
  return key;
}

std::string PayloadSource::Keys(absl::Span<const uint64_t> names, uint32_t key_bytes) const {
  std::string keys;
  keys.reserve(names.size() * key_bytes);
  for (const uint64_t name : names) {
    keys += Key(name, key_bytes);
  }
  return keys;
}

uint64_t PayloadSource::Seed(std::string_view key) const {
  uint64_t seed = Mix(space_ + kOdd);
  for (size_t at = 0; at < key.size(); at += sizeof(seed)) {
    uint64_t word = 0;
    std::memcpy(&word, key.data() + at, std::min(sizeof(word), key.size() - at));
    seed = Mix(seed ^ word);
  }
  return seed;
}

void PayloadSource::Fill(std::string_view key, absl::Span<char> out) const {
  const uint64_t seed = Seed(key);
  const size_t words = out.size() / sizeof(uint64_t);
  char* to = out.data();
  for (size_t i = 0; i < words; ++i, to += sizeof(uint64_t)) {
    const uint64_t word = Word(seed, i);
    std::memcpy(to, &word, sizeof(word));
  }
  if (const size_t rest = out.size() % sizeof(uint64_t); rest != 0) {
    const uint64_t last = Word(seed, words);
    std::memcpy(to, &last, rest);
  }
}

uint64_t PayloadSource::WrongBytes(std::string_view key, absl::Span<const char> payload) const {
  const uint64_t seed = Seed(key);
  std::array<uint64_t, kBatchWords> expected;
  uint64_t wrong = 0;
  uint64_t word = 0;
  for (size_t at = 0; at < payload.size(); at += sizeof(expected)) {
    const size_t bytes = std::min(sizeof(expected), payload.size() - at);
    for (uint64_t& each : expected) {
      each = Word(seed, word++);
    }
    if (std::memcmp(expected.data(), payload.data() + at, bytes) == 0) {
      continue;
    }
    std::array<char, sizeof(expected)> text;
    std::memcpy(text.data(), expected.data(), sizeof(text));
    for (size_t i = 0; i < bytes; ++i) {
      wrong += text[i] != payload[at + i] ? 1U : 0U;
    }
  }
  return wrong;
}

}  // namespace terrace::bench
