// What an LRU of the same size would have hit, kept exactly and by runs: every run knows how many
// of its leading blocks such a cache would hold. Also owns the order of use of all runs.
//
// Thread-compatible.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"

#include "tiers/placement/chain_tree.h"
#include "tiers/placement/use_order.h"

namespace terrace {

class ShadowLru {
 public:
  // All runs; of one request's the deepest first.
  [[nodiscard]] const UseOrder& order() const { return order_; }
  void MoveHand(RunId run) { order_.MoveHand(run); }
  // The longest unused of the runs of that age reaches the next one.
  void Turn(ChainTree& tree, uint32_t age) { order_.Turn(tree, age); }

  // Leading blocks of the path that it holds.
  [[nodiscard]] static uint64_t Hits(const ChainTree& tree, absl::Span<const RunId> path) {
    uint64_t hits = 0;
    for (const RunId id : path) {
      const Run& run = tree.At(id);
      hits += run.shadow;
      if (run.shadow < run.length) {
        break;
      }
    }
    return hits;
  }

  // A run that is new to the order, or used again: all of it is held and the newest.
  void Use(ChainTree& tree, RunId id) {
    Run& run = tree.At(id);
    held_ += run.length - run.shadow;
    run.shadow = run.length;
    order_.PushBack(tree, id);
    oldest_ = oldest_ == kNoRun ? id : oldest_;
  }
  // A run that nobody asked for by name: known, not held.
  void Know(ChainTree& tree, RunId id) { order_.PushBack(tree, id); }
  // `head` was cut off the front of `run`.
  void Split(ChainTree& tree, RunId head, RunId run) { order_.InsertAfter(tree, head, run); }
  // Leaves the order, to come back by Use or to be dropped or joined. What it holds stays counted.
  void Take(ChainTree& tree, RunId id) {
    oldest_ = oldest_ == id ? UseOrder::After(tree, id) : oldest_;
    order_.Remove(tree, id);
  }

  void Shrink(ChainTree& tree, uint64_t capacity) {
    while (held_ > capacity && oldest_ != kNoRun) {
      Run& run = tree.At(oldest_);
      const auto gone = static_cast<uint32_t>(std::min<uint64_t>(held_ - capacity, run.shadow));
      run.shadow -= gone;
      held_ -= gone;
      if (run.shadow == 0) {
        oldest_ = UseOrder::After(tree, oldest_);
        tree.Prefetch(oldest_);
      }
    }
  }

 private:
  UseOrder order_;
  RunId oldest_ = kNoRun;  // none before it holds anything
  uint64_t held_ = 0;
};

}  // namespace terrace
