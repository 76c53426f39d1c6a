// A doubly linked list of runs through one of their links. Front is what goes first.
#pragma once

#include "tiers/placement/chain_tree.h"

namespace terrace {

template <RunLink Run::*kLink>
class RunList {
 public:
  [[nodiscard]] RunId front() const { return front_; }
  [[nodiscard]] RunId back() const { return back_; }
  [[nodiscard]] bool empty() const { return front_ == kNoRun; }
  [[nodiscard]] static RunId After(const ChainTree& tree, RunId run) {
    return (tree.At(run).*kLink).after;
  }
  [[nodiscard]] static RunId Before(const ChainTree& tree, RunId run) {
    return (tree.At(run).*kLink).before;
  }
  void PushBack(ChainTree& tree, RunId run) { InsertAfter(tree, run, back_); }
  // after kNoRun: at the front.
  void InsertAfter(ChainTree& tree, RunId run, RunId after) {
    RunLink& link = tree.At(run).*kLink;
    link.before = after;
    link.after = after == kNoRun ? front_ : (tree.At(after).*kLink).after;
    (link.before == kNoRun ? front_ : (tree.At(link.before).*kLink).after) = run;
    (link.after == kNoRun ? back_ : (tree.At(link.after).*kLink).before) = run;
  }
  void Remove(ChainTree& tree, RunId run) {
    RunLink& link = tree.At(run).*kLink;
    (link.before == kNoRun ? front_ : (tree.At(link.before).*kLink).after) = link.after;
    (link.after == kNoRun ? back_ : (tree.At(link.after).*kLink).before) = link.before;
    link = {};
  }

 private:
  RunId front_ = kNoRun;
  RunId back_ = kNoRun;
};

}  // namespace terrace
