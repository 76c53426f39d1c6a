// Numbers from a seed that are the same on every machine (splitmix64, Steele et al., OOPSLA 2014).
#pragma once

#include <cstdint>
#include <string>

namespace terrace::doubles {

// Thread-compatible.
class Seeded {
 public:
  explicit Seeded(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  // Below `limit`, which is not 0.
  uint64_t Below(uint64_t limit) { return Next() % limit; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  std::string Bytes(uint64_t bytes) {
    std::string out;
    out.reserve(bytes + 8);
    while (out.size() < bytes) {
      const uint64_t word = Next();
      for (int shift = 0; shift < 64; shift += 8) {
        out.push_back(static_cast<char>(word >> shift));
      }
    }
    out.resize(bytes);
    return out;
  }

 private:
  uint64_t state_;
};

}  // namespace terrace::doubles
