// How likely blocks that leave DRAM are asked for again: counted, by what is known of them then.
// For policies that cannot tell; with one that can, its own forecast is better.
//
// Of a block that leaves, its name is kept in a table of fixed size, one place a name; when it
// enters DRAM again, be it stored anew or read from below, it is found there. What falls on its
// place first takes it over: so a block that stays away for about as many departures as there are
// places has not come back. Counts fade, so that new habits show.
//
// A wrong match costs a wrong count. Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace terrace {

class ReuseRecord {
 public:
  static constexpr uint32_t kLeastPlaces = 1U << 10U;
  static constexpr uint32_t kMostPlaces = 1U << 22U;  // 16 MiB

  // blocks: that the tier below holds; there are twice as many places, within those bounds.
  explicit ReuseRecord(uint64_t blocks);

  struct Facts {
    uint64_t name = 0;
    uint32_t depth = 0;  // blocks before it in its chain
    bool used = false;   // asked for again since it entered DRAM
  };
  // That it is asked for again, were it to leave now.
  [[nodiscard]] double ChanceOf(const Facts& facts) const;
  // It has left DRAM.
  void Left(const Facts& facts);
  // It is in DRAM again, or for the first time.
  void Entered(uint64_t name);
  // How often it has come back, counted up to a few; 0: never, or long ago.
  [[nodiscard]] uint32_t Returns(uint64_t name) const;

  [[nodiscard]] uint64_t memory_bytes() const { return places_.size() * sizeof(uint32_t); }

 private:
  static constexpr uint32_t kMostReturns = 3;
  static constexpr uint32_t kDepths = 8;
  static constexpr uint32_t kClasses = (kMostReturns + 1) * 2 * kDepths;
  // Left + 1 halves when it comes to this.
  static constexpr double kMostCounted = 4096;

  // A place: 22 bits of the name, whether it is away, its returns, its class. 0: empty.
  struct Place {
    uint32_t print = 0;
    bool away = false;
    uint32_t returns = 0;
    uint32_t kind = 0;
  };
  struct Count {
    double left = 0;
    double returned = 0;
  };
  static Place Unpacked(uint32_t bits);
  static uint32_t Packed(const Place& place);
  [[nodiscard]] uint32_t& At(uint64_t name);
  [[nodiscard]] uint32_t At(uint64_t name) const;
  [[nodiscard]] uint32_t ClassOf(const Facts& facts) const;

  std::vector<uint32_t> places_;
  std::array<Count, kClasses> counts_{};
};

}  // namespace terrace
