// What an instance is worth at its age, as a key of the order of eviction.
//
// Pure.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "tiers/placement/chain_tree.h"
#include "tiers/placement/hazard_model.h"
#include "tiers/placement/rank_order.h"

namespace terrace {

// Instances change their place in the order when they reach the next age: the first is all young
// buckets, then one a bucket. Survival is learnt at the same time: late news of survival beside
// early news of use would make every hazard look larger.
inline constexpr uint32_t kAges = 38;
constexpr uint32_t BucketOfAge(uint32_t age) {
  constexpr uint32_t kYoungBuckets = HazardModel::kBuckets - kAges + 1;
  return age == 0 ? 0 : kYoungBuckets + age - 1;
}
static_assert(BucketOfAge(kAges) == HazardModel::kBuckets);

// The order of floats above 0 is the order of their bits.
inline uint8_t RankOf(float worth) {
  static_assert(RankOrder::kKeys <= 256);
  // Leaves 4 steps an octave of a float. A finer order follows the noise of what was learnt; within
  // a step recency decides, which at least is no noise.
  constexpr uint32_t kShift = 21;
  constexpr uint32_t kLowest = (127 - 44) * 4;  // of 2^-44 uses per block-second
  const uint32_t bits = std::bit_cast<uint32_t>(worth) >> kShift;
  return static_cast<uint8_t>(std::clamp(bits, kLowest, kLowest + RankOrder::kKeys - 1) - kLowest);
}

// Prices the instance, of that age, for it and the next ones, by what is known now.
inline void PriceAges(const HazardModel& model, uint32_t age, Instance& instance) {
  instance.priced_age = static_cast<uint8_t>(age);
  HazardModel::Worth worth;
  const uint32_t end = std::min(kAges, age + Instance::kPricedAges);
  const uint32_t last = std::min(BucketOfAge(end - 1) + 2, HazardModel::kBuckets);
  model.Price(instance.Rows(), {BucketOfAge(age), BucketOfAge(age + 1), last}, worth);
  for (uint32_t at = age; at < end; ++at) {
    // An age counts as its middle, but for the first, which is how a block begins.
    const uint32_t bucket = BucketOfAge(at);
    const uint32_t next = std::min(bucket + 1, HazardModel::kBuckets - 1);
    instance.rank[at - age] = RankOf(at == 0 ? worth[bucket] : (worth[bucket] + worth[next]) / 2);
  }
}

}  // namespace terrace
