#include "tests/e2e/clients_die/payload.h"

#include <cstring>

namespace terrace {

// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t Dice::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

std::string KeyOf(uint32_t id) {
  Dice dice(id + 0x10000000000U);
  std::string key;
  while (key.size() < kKeyBytes) {
    const uint64_t word = dice.Next();
    key.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  return key;
}

uint32_t PayloadBytesOf(uint32_t id) {
  return id % 8 == 7 ? kBlockBytes / 2 : kBlockBytes;
}

void FillPayload(uint32_t id, void* out) {
  Dice dice(id);
  auto* to = static_cast<char*>(out);
  for (uint32_t at = 0; at < PayloadBytesOf(id); at += sizeof(uint64_t)) {
    const uint64_t word = dice.Next();
    std::memcpy(to + at, &word, sizeof(word));
  }
}

bool IsPayload(uint32_t id, const void* payload, uint32_t payload_bytes) {
  if (payload == nullptr || payload_bytes != PayloadBytesOf(id)) {
    return false;
  }
  Dice dice(id);
  const auto* from = static_cast<const char*>(payload);
  for (uint32_t at = 0; at < payload_bytes; at += sizeof(uint64_t)) {
    const uint64_t word = dice.Next();
    if (std::memcmp(from + at, &word, sizeof(word)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace terrace
