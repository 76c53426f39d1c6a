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
    return tree.LinkOf<kChain>(run).after;
  }
  [[nodiscard]] static RunId Before(const ChainTree& tree, RunId run) {
    return tree.LinkOf<kChain>(run).before;
  }
  void PushBack(ChainTree& tree, RunId run) { InsertAfter(tree, run, back_); }
  // after kNoRun: at the front.
  void InsertAfter(ChainTree& tree, RunId run, RunId after) {
    RunLink& link = tree.LinkOf<kChain>(run);
    link.before = after;
    link.after = after == kNoRun ? front_ : tree.LinkOf<kChain>(after).after;
    (link.before == kNoRun ? front_ : tree.LinkOf<kChain>(link.before).after) = run;
    (link.after == kNoRun ? back_ : tree.LinkOf<kChain>(link.after).before) = run;
  }
  void Remove(ChainTree& tree, RunId run) {
    RunLink& link = tree.LinkOf<kChain>(run);
    (link.before == kNoRun ? front_ : tree.LinkOf<kChain>(link.before).after) = link.after;
    (link.after == kNoRun ? back_ : tree.LinkOf<kChain>(link.after).before) = link.before;
    link = {};
  }

 private:
  RunId front_ = kNoRun;
  RunId back_ = kNoRun;
};

}  // namespace terrace
