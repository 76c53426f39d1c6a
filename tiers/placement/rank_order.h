// Runs in the order in which they go: lists by a small key, the lowest key first, and within a key
// the longest unused first.
//
// Thread-compatible.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tiers/placement/run_list.h"

namespace terrace {

// Puts the run into the list behind those that were used before it: it is one of the oldest or of
// the newest, or else it comes somewhere behind the oldest.
template <RunChain kChain>
void InsertByUse(ChainTree& tree, RunList<kChain>& list, RunId id) {
  constexpr int kSteps = 8;
  const double used_s = tree.InstanceOf(id).last_s;
  RunId after = list.back();
  for (int steps = 0; after != kNoRun && tree.InstanceOf(after).last_s > used_s; ++steps) {
    if (steps == kSteps) {
      after = kNoRun;
      RunId next = list.front();
      for (int more = 0; more < kSteps && tree.InstanceOf(next).last_s < used_s; ++more) {
        after = next;
        next = list.After(tree, next);
      }
      break;
    }
    after = list.Before(tree, after);
  }
  list.InsertAfter(tree, id, after);
}

class RankOrder {
 public:
  static constexpr uint32_t kKeys = 256;

  [[nodiscard]] static bool Has(const Run& run) { return run.rank_list >= 0; }

  // The run is in no list.
  void PushBack(ChainTree& tree, RunId id, uint32_t key) {
    lists_[key].PushBack(tree, id);
    Note(tree.At(id), key);
  }
  void Insert(ChainTree& tree, RunId id, uint32_t key) {
    InsertByUse(tree, lists_[key], id);
    Note(tree.At(id), key);
  }
  // Nothing happens where it is in none.
  void Remove(ChainTree& tree, RunId id) {
    Run& run = tree.At(id);
    if (!Has(run)) {
      return;
    }
    const auto key = static_cast<uint32_t>(run.rank_list);
    lists_[key].Remove(tree, id);
    run.rank_list = -1;
    if (lists_[key].empty()) {
      occupied_[key / 64] &= ~(uint64_t{1} << key % 64);
    }
  }
  // kNoRun: there is none.
  [[nodiscard]] RunId Lowest() const {
    for (uint32_t word = 0; word < occupied_.size(); ++word) {
      if (occupied_[word] != 0) {
        return lists_[word * 64 + static_cast<uint32_t>(std::countr_zero(occupied_[word]))].front();
      }
    }
    return kNoRun;
  }

 private:
  void Note(Run& run, uint32_t key) {
    run.rank_list = static_cast<int16_t>(key);
    occupied_[key / 64] |= uint64_t{1} << key % 64;
  }

  std::array<RunList<RunChain::kRank>, kKeys> lists_;
  std::array<uint64_t, kKeys / 64> occupied_{};  // which of them aren't empty
};

}  // namespace terrace
