// All runs in the order of their last use, the longest unused first, and how old each is: runs of
// one age stand together, so that the runs that reach the next age are found without looking at
// others. A hand goes through the order bit by bit.
//
// Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "tiers/placement/chain_tree.h"
#include "tiers/placement/instance_price.h"
#include "tiers/placement/run_list.h"

namespace terrace {

class UseOrder {
 public:
  UseOrder() {
    oldest_.fill(kNoRun);
    oldest_use_s_.fill(kNever);
  }

  [[nodiscard]] RunId front() const { return list_.front(); }
  [[nodiscard]] static RunId After(const ChainTree& tree, RunId run) {
    return List::After(tree, run);
  }
  // Used at its instance's last_s, now: the youngest, of age 0.
  void PushBack(ChainTree& tree, RunId run) {
    list_.PushBack(tree, run);
    tree.InstanceOf(run).age = 0;
    if (oldest_[0] == kNoRun) {
      SetOldest(tree, 0, run);
    }
  }
  // As old as `before`.
  void InsertAfter(ChainTree& tree, RunId run, RunId before) {
    list_.InsertAfter(tree, run, before);
    tree.InstanceOf(run).age = tree.InstanceOf(before).age;
  }
  void Remove(ChainTree& tree, RunId run) {
    PassOver(tree, run);
    hand_ = hand_ == run ? After(tree, run) : hand_;
    list_.Remove(tree, run);
  }
  // Where the hand stands; at the front at first, and again after MoveHand to kNoRun.
  [[nodiscard]] RunId hand() const { return hand_ == kNoRun ? front() : hand_; }
  void MoveHand(RunId run) { hand_ = run; }
  // Of the runs of that age the longest unused; kNoRun: there is none.
  [[nodiscard]] RunId Oldest(uint32_t age) const { return oldest_[age]; }
  // When that one was used last; never, where there is none.
  [[nodiscard]] double OldestUse(uint32_t age) const { return oldest_use_s_[age]; }
  // The longest unused of the runs of that age reaches the next one.
  void Turn(ChainTree& tree, uint32_t age) {
    const RunId run = oldest_[age];
    PassOver(tree, run);
    tree.InstanceOf(run).age = static_cast<uint8_t>(age + 1);
    if (oldest_[age + 1] == kNoRun) {
      SetOldest(tree, age + 1, run);
    }
  }

 private:
  using List = RunList<RunChain::kUse>;

  // The run is not the oldest of its age any more.
  void PassOver(const ChainTree& tree, RunId run) {
    const uint32_t age = tree.InstanceOf(run).age;
    if (oldest_[age] == run) {
      const RunId next = List::After(tree, run);
      const bool is_alike = next != kNoRun && tree.InstanceOf(next).age == age;
      SetOldest(tree, age, is_alike ? next : kNoRun);
      if (is_alike) {
        SendScout(tree, age);
      }
    }
  }

  void SetOldest(const ChainTree& tree, uint32_t age, RunId run) {
    oldest_[age] = run;
    oldest_use_s_[age] = kNever;
    if (run != kNoRun) {
      oldest_use_s_[age] = tree.InstanceOf(run).last_s;
    }
  }

  // Brings into the cache what the next turns look at; a step more than the oldest took until it is
  // ahead enough. A scout that was used meanwhile has gone to the back, and starts again.
  void SendScout(const ChainTree& tree, uint32_t age) {
    Scout& scout = scouts_[age];
    if (scout.run == kNoRun || scout.lead == 0 ||
        (age > 0 && tree.InstanceOf(scout.run).age == 0)) {
      scout = {oldest_[age], 1};
    }
    --scout.lead;
    for (int steps = 0; steps < 2 && scout.lead < kLead && scout.run != kNoRun; ++steps) {
      scout.run = List::After(tree, scout.run);
      tree.PrefetchStanding(scout.run);
      ++scout.lead;
    }
  }

  // A few requests leave as many runs of one age.
  static constexpr uint32_t kLead = 6;
  struct Scout {
    RunId run = kNoRun;
    uint32_t lead = 0;  // runs between the oldest and it
  };
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  List list_;
  RunId hand_ = kNoRun;
  std::array<RunId, kAges> oldest_;  // by age
  // Together, because all of them are looked at whenever time passes.
  std::array<double, kAges> oldest_use_s_;
  std::array<Scout, kAges> scouts_;  // hints only: what they stand at may be another run by now
};

}  // namespace terrace
