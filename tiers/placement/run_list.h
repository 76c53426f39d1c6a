// A doubly linked list of runs through one of their chains. Front is what goes first.
#pragma once

#include "tiers/placement/chain_tree.h"

namespace terrace {

template <RunChain kChain>
class RunList {
 public:
  [[nodiscard]] RunId front() const { return front_; }
  [[nodiscard]] RunId back() const { return back_; }
  [[nodiscard]] bool empty() const { return front_ == kNoRun; }
  [[nodiscard]] static RunId After(const ChainTree& tree, RunId run) {
    return tree.LinkOf(run, kChain).after;
  }
  [[nodiscard]] static RunId Before(const ChainTree& tree, RunId run) {
    return tree.LinkOf(run, kChain).before;
  }
  void PushBack(ChainTree& tree, RunId run) { InsertAfter(tree, run, back_); }
  // after kNoRun: at the front.
  void InsertAfter(ChainTree& tree, RunId run, RunId after) {
    RunLink& link = tree.LinkOf(run, kChain);
    link.before = after;
    link.after = after == kNoRun ? front_ : tree.LinkOf(after, kChain).after;
    (link.before == kNoRun ? front_ : tree.LinkOf(link.before, kChain).after) = run;
    (link.after == kNoRun ? back_ : tree.LinkOf(link.after, kChain).before) = run;
  }
  void Remove(ChainTree& tree, RunId run) {
    RunLink& link = tree.LinkOf(run, kChain);
    (link.before == kNoRun ? front_ : tree.LinkOf(link.before, kChain).after) = link.after;
    (link.after == kNoRun ? back_ : tree.LinkOf(link.after, kChain).before) = link.before;
    link = {};
  }

 private:
  RunId front_ = kNoRun;
  RunId back_ = kNoRun;
};

}  // namespace terrace
