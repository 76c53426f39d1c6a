// Runs in the order in which they go: the lowest rank at their age first, and of equals the longest
// unused, more or less.
//
// Few runs come up as the lowest, and only those have to have an exact price. The others stand in
// the list of the least rank that they can have until they are priced again, whatever age they
// reach until then. One that comes up there is priced, and falls with its age from then on.
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

  [[nodiscard]] static bool Has(const ChainTree& tree, RunId id) {
    return tree.InstanceOf(id).listed != 0;
  }

  // The run is in no list, and has been priced.
  void PushBack(ChainTree& tree, RunId id) { PushBack(tree, id, KeyOf(tree.InstanceOf(id))); }
  void Insert(ChainTree& tree, RunId id) {
    Instance& instance = tree.InstanceOf(id);
    const uint32_t key = KeyOf(instance);
    InsertByUse(tree, lists_[key], id);
    Note(instance, key);
  }
  // The run, which is in a list, has reached another age, and is not to be priced again.
  void Fall(ChainTree& tree, RunId id) {
    const Instance& instance = tree.InstanceOf(id);
    if (instance.Rank() < instance.rank_list) {
      Move(tree, id, instance.Rank());
    }
  }
  // It has been priced.
  void RankAgain(ChainTree& tree, RunId id) { Move(tree, id, KeyOf(tree.InstanceOf(id))); }
  // Nothing happens where it is in none.
  void Remove(ChainTree& tree, RunId id) {
    Instance& instance = tree.InstanceOf(id);
    if (instance.listed == 0) {
      return;
    }
    const uint32_t key = instance.rank_list;
    lists_[key].Remove(tree, id);
    instance.listed = 0;
    if (lists_[key].empty()) {
      occupied_[key / 64] &= ~(uint64_t{1} << key % 64);
    }
  }
  // kNoRun: there is none. look(id) says whether the run belongs here, and prices it exactly.
  template <typename Look>
  [[nodiscard]] RunId Lowest(ChainTree& tree, const Look& look) {
    for (;;) {
      const RunId id = Front();
      if (id == kNoRun) {
        return id;
      }
      if (!look(id)) {
        Remove(tree, id);
        continue;
      }
      const Instance& instance = tree.InstanceOf(id);
      if (instance.Rank() == instance.rank_list) {
        return id;
      }
      Move(tree, id, instance.Rank());
    }
  }

 private:
  [[nodiscard]] static uint32_t KeyOf(const Instance& instance) {
    return instance.exact != 0 ? instance.Rank() : instance.LeastRank();
  }
  [[nodiscard]] RunId Front() const {
    for (uint32_t word = 0; word < occupied_.size(); ++word) {
      if (occupied_[word] != 0) {
        return lists_[word * 64 + static_cast<uint32_t>(std::countr_zero(occupied_[word]))].front();
      }
    }
    return kNoRun;
  }
  void Move(ChainTree& tree, RunId id, uint32_t key) {
    Remove(tree, id);
    PushBack(tree, id, key);
  }
  void PushBack(ChainTree& tree, RunId id, uint32_t key) {
    lists_[key].PushBack(tree, id);
    Note(tree.InstanceOf(id), key);
  }
  void Note(Instance& instance, uint32_t key) {
    instance.rank_list = static_cast<uint8_t>(key);
    instance.listed = 1;
    occupied_[key / 64] |= uint64_t{1} << key % 64;
  }

  std::array<RunList<RunChain::kRank>, kKeys> lists_;
  std::array<uint64_t, kKeys / 64> occupied_{};  // which of them aren't empty
};

}  // namespace terrace
