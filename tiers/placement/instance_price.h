// What an instance is worth at its age, as a key of the order of eviction.
//
// PriceAges is pure; RunPricer is thread-compatible.
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

// kAtLeast: the rank may be too low, and costs a third.
enum class Pricing : uint8_t { kExact, kAtLeast };

// Prices the instance, which has these rows, for its age and the next ones, by what is known now.
inline void PriceAges(const HazardModel& model,
                      absl::Span<const HazardModel::Row> rows,
                      Pricing pricing,
                      Instance& instance) {
  const uint32_t age = instance.age;
  instance.priced_age = instance.age;
  instance.priced = 1;
  instance.exact = pricing == Pricing::kExact ? 1 : 0;
  HazardModel::Worth worth;
  const uint32_t end = std::min(kAges, age + instance.PricedAges());
  const uint32_t last = std::min(BucketOfAge(end - 1) + 2, HazardModel::kBuckets);
  const HazardModel::Asked asked = {BucketOfAge(age), std::min(BucketOfAge(age + 1), last - 1),
                                    last};
  pricing == Pricing::kExact ? model.Price(rows, asked, worth)
                             : model.PriceAtLeast(rows, asked, worth);
  for (uint32_t at = age; at < end; ++at) {
    // An age counts as its middle, but for the first, which is how a block begins.
    const uint32_t bucket = BucketOfAge(at);
    const uint32_t next = std::min(bucket + 1, HazardModel::kBuckets - 1);
    const uint8_t rank = RankOf(at == 0 ? worth[bucket] : (worth[bucket] + worth[next]) / 2);
    uint8_t& kept = instance.rank[std::min(at - age, Instance::kRanks - 1)];
    kept = at - age < Instance::kRanks ? rank : std::min(kept, rank);
  }
  for (uint32_t i = end - age; i < Instance::kRanks; ++i) {
    instance.rank[i] = instance.rank[i - 1];
  }
}

// Prices runs as they are asked for: the price of a run need not have kept up with its age, and is
// gone when its instance begins anew.
class RunPricer {
 public:
  RunPricer(ChainTree& tree, const HazardModel& model) : tree_(tree), model_(model) {}

  // Its instance, priced so well at least.
  [[nodiscard]] Instance Priced(RunId id, Pricing pricing) const {
    Instance instance = tree_.InstanceOf(id);
    if (!IsKnown(instance, pricing)) {
      PriceAges(model_, tree_.RowsOf(id), pricing, instance);
    }
    return instance;
  }
  // Prices it so well at least. Its place in an order does not change.
  void Price(RunId id, Pricing pricing) {
    if (!IsKnown(tree_.InstanceOf(id), pricing)) {
      PriceNow(id, pricing);
    }
  }
  // Although it may be known.
  void PriceNow(RunId id, Pricing pricing) {
    PriceAges(model_, tree_.RowsOf(id), pricing, tree_.InstanceOf(id));
  }

 private:
  [[nodiscard]] static bool IsKnown(const Instance& instance, Pricing pricing) {
    return !instance.IsStale() && (pricing == Pricing::kAtLeast || instance.exact != 0);
  }

  ChainTree& tree_;
  const HazardModel& model_;
};

}  // namespace terrace
