// Numbers that follow from a seed alone, on every machine (splitmix64: Steele, Lea and Flood,
// OOPSLA 2014).
#pragma once

#include <cmath>
#include <cstdint>

namespace terrace::sim {

// Thread-compatible.
class SeededNumbers {
 public:
  explicit SeededNumbers(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
  }
  // Below `limit`, which is not 0.
  uint64_t Below(uint64_t limit) { return Next() % limit; }
  // From 0, below 1.
  double Fraction() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Until the next of events that come at random, `mean` apart.
  double Pause(double mean) { return -mean * std::log1p(-Fraction()); }

 private:
  uint64_t state_;
};

}  // namespace terrace::sim
