#include "tiers/vocab/clear_order.h"

#include <algorithm>

namespace terrace {
namespace {

constexpr uint32_t kTagBits = 20;
constexpr uint64_t kTagMask = (uint64_t{1} << kTagBits) - 1;

uint64_t NumberOf(uint64_t generation) {
  return generation >> (2 * kTagBits);
}
uint64_t TagBefore(uint64_t generation) {
  return generation >> kTagBits & kTagMask;
}
uint64_t TagOf(uint64_t generation) {
  return generation & kTagMask;
}

}  // namespace

uint64_t ClearedAfter(uint64_t known, uint32_t tag) {
  return (NumberOf(known) + 1) << (2 * kTagBits) | TagOf(known) << kTagBits | (tag & kTagMask);
}

uint64_t EndOfBoth(uint64_t one, uint64_t other) {
  const uint64_t later = std::max(one, other);
  // The finaliser of splitmix64 (Vigna): any function of both will do that scatters.
  uint64_t mixed = later ^ std::min(one, other) * 0x9e3779b97f4a7c15U;
  mixed = (mixed ^ mixed >> 30U) * 0xbf58476d1ce4e5b9U;
  mixed ^= mixed >> 27U;
  return ClearedAfter(later, static_cast<uint32_t>(mixed));
}

bool AreConcurrent(uint64_t one, uint64_t other, WhenFarApart unknown) {
  if (one == other) {
    return false;
  }
  const auto [earlier, later] = std::minmax(one, other);
  switch (NumberOf(later) - NumberOf(earlier)) {
    case 0:
      return NumberOf(later) != 0;  // zero: counted in ones, each after the one before
    case 1:
      return TagBefore(later) != TagOf(earlier);
    default:
      return unknown == WhenFarApart::kConcurrent;
  }
}

bool HasLearned(uint64_t known, uint64_t raised) {
  return known >= raised && !AreConcurrent(known, raised, WhenFarApart::kOrdered);
}

}  // namespace terrace
