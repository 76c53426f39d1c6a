// Keys and payload as functions of a number, so that whoever reads a block can check every byte of
// it. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace terrace {

inline constexpr uint32_t kKeyBytes = 32;
inline constexpr uint32_t kBlockBytes = 256U << 10;

// 32 bytes.
std::string KeyOf(uint32_t id);
// 256 KiB, of one in eight blocks the half: two sizes, which compete for slabs.
uint32_t PayloadBytesOf(uint32_t id);
// Writes PayloadBytesOf(id) bytes.
void FillPayload(uint32_t id, void* out);
// Whether `payload` is that of `id`, whole and in every byte.
bool IsPayload(uint32_t id, const void* payload, uint32_t payload_bytes);

// A small generator with a seed of its own.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // 0 to below - 1.
  uint32_t Below(uint32_t below) { return static_cast<uint32_t>(Next() % below); }

 private:
  uint64_t state_;
};

}  // namespace terrace
