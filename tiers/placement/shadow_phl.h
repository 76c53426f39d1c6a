// What PHL would hold while LRU rules, so that it can be seen when PHL would do better again: by
// runs, like ShadowLru, with PHL's own order of eviction and its own admission.
//
// Thread-compatible.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"

#include "tiers/placement/chain_tree.h"
#include "tiers/placement/instance_price.h"
#include "tiers/placement/rank_order.h"

namespace terrace {

class ShadowPhl {
 public:
  // Leading blocks of the path that it holds.
  [[nodiscard]] static uint64_t Hits(const ChainTree& tree, absl::Span<const RunId> path) {
    uint64_t hits = 0;
    for (const RunId id : path) {
      const Run& run = tree.At(id);
      hits += run.phl_shadow;
      if (run.phl_shadow < run.length) {
        break;
      }
    }
    return hits;
  }
  [[nodiscard]] static bool Evictable(const Run& run) {
    return run.phl_shadow > 0 && run.phl_children == 0;
  }

  // It holds what is resident. Takes time for each run known. The order is not made here.
  void Begin(ChainTree& tree) {
    End(tree);
    for (RunId id = 1; id < tree.id_limit(); ++id) {
      Run& run = tree.At(id);
      if (run.resident > 0) {
        run.phl_shadow = run.resident;
        held_ += run.phl_shadow;
        ++tree.At(run.parent).phl_children;
      }
    }
  }
  void End(ChainTree& tree) {
    for (RunId id = 0; id < tree.id_limit(); ++id) {
      tree.At(id).phl_shadow = 0;
      tree.At(id).phl_children = 0;
    }
    held_ = 0;
  }

  // The runs of a path, which are in no list of `order` now, are stored as far as there is room or
  // they are worth more than what has to go. Runs that become leaves enter `order`.
  void Store(ChainTree& tree,
             absl::Span<const RunId> path,
             uint64_t capacity,
             RankOrder& order,
             RunPricer& pricer) {
    for (const RunId id : path) {
      Run& run = tree.At(id);
      const uint32_t wanted = run.length - run.phl_shadow;
      while (held_ + wanted > capacity && MakeRoom(tree, id, wanted, capacity, order, pricer)) {
      }
      const uint64_t room = capacity - std::min(capacity, held_);
      const auto stored = static_cast<uint32_t>(std::min<uint64_t>(wanted, room));
      tree.At(run.parent).phl_children += run.phl_shadow == 0 && stored > 0 ? 1 : 0;
      run.phl_shadow += stored;
      held_ += stored;
      if (stored < wanted) {
        break;
      }
    }
    for (const RunId id : path) {
      Enter(tree, id, order, pricer);
    }
  }
  // The run may have become one that it could evict from.
  static void Enter(ChainTree& tree, RunId id, RankOrder& order, RunPricer& pricer) {
    Run& run = tree.At(id);
    if (id != kRootRun && !RankOrder::Has(tree, id) && Evictable(run)) {
      pricer.Price(id, Pricing::kAtLeast);
      order.Insert(tree, id);
    }
  }

 private:
  // False: nothing is worth less than `run`.
  bool MakeRoom(ChainTree& tree,
                RunId run,
                uint32_t wanted,
                uint64_t capacity,
                RankOrder& order,
                RunPricer& pricer) {
    const RunId id = order.Lowest(tree, [&](RunId lowest) {
      if (!Evictable(tree.At(lowest))) {
        return false;
      }
      pricer.Price(lowest, Pricing::kExact);
      return true;
    });
    if (id == kNoRun) {
      return false;
    }
    pricer.Price(run, Pricing::kExact);
    if (tree.InstanceOf(run).Rank() < tree.InstanceOf(id).Rank()) {
      return false;
    }
    Run& victim = tree.At(id);
    const uint64_t gone = std::min<uint64_t>(victim.phl_shadow, held_ + wanted - capacity);
    victim.phl_shadow -= static_cast<uint32_t>(gone);
    held_ -= gone;
    if (victim.phl_shadow == 0) {
      order.Remove(tree, id);
      --tree.At(victim.parent).phl_children;
      Enter(tree, victim.parent, order, pricer);
    }
    return true;
  }

  uint64_t held_ = 0;
};

}  // namespace terrace
