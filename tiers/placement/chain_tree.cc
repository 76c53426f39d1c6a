#include "tiers/placement/chain_tree.h"

#include <algorithm>

#include "tiers/vocab/check.h"

namespace terrace {

ChainTree::ChainTree() {
  const RunId root = NewId();
  TERRACE_CHECK(root == kRootRun);
}

RunId ChainTree::NewId() {
  if (free_.empty()) {
    const auto first = id_limit();
    pages_.push_back(std::make_unique<Page>());
    for (RunId id = first + kPageRuns; id > first; --id) {
      free_.push_back(id - 1);
    }
  }
  const RunId id = free_.back();
  free_.pop_back();
  At(id) = Run{};
  ++runs_;
  return id;
}

void ChainTree::LinkChild(RunId parent, RunId child) {
  Run& above = At(parent);
  Run& below = At(child);
  below.parent = parent;
  below.sibling = {kNoRun, above.first_child};
  if (above.first_child != kNoRun) {
    At(above.first_child).sibling.before = child;
  }
  above.first_child = child;
  ++above.children;
  if (!below.anonymous) {
    children_[ChildKey(parent, below.prints.front())] = child;
  }
}

void ChainTree::UnlinkChild(RunId child) {
  Run& below = At(child);
  Run& above = At(below.parent);
  (below.sibling.before == kNoRun ? above.first_child : At(below.sibling.before).sibling.after) =
      below.sibling.after;
  if (below.sibling.after != kNoRun) {
    At(below.sibling.after).sibling.before = below.sibling.before;
  }
  --above.children;
  if (!below.anonymous) {
    children_.erase(ChildKey(below.parent, below.prints.front()));
  }
}

RunId ChainTree::Child(RunId parent, uint32_t print) const {
  const auto found = children_.find(ChildKey(parent, print));
  return found == children_.end() ? kNoRun : found->second;
}

uint32_t ChainTree::Match(RunId run, absl::Span<const uint64_t> names) const {
  const std::vector<uint32_t>& prints = At(run).prints;
  const size_t most = std::min(prints.size(), names.size());
  size_t i = 0;
  while (i < most && prints[i] == PrintOf(names[i])) {
    ++i;
  }
  return static_cast<uint32_t>(i);
}

RunId ChainTree::Add(RunId parent, absl::Span<const uint64_t> names) {
  const RunId id = NewId();
  Run& run = At(id);
  run.prints.reserve(names.size());
  for (const uint64_t name : names) {
    run.prints.push_back(PrintOf(name));
  }
  prints_ += run.prints.size();
  run.depth = At(parent).depth + At(parent).length();
  LinkChild(parent, id);
  return id;
}

RunId ChainTree::AddAnonymous(uint64_t name) {
  const RunId id = NewId();
  At(id).anonymous = true;
  At(id).prints.push_back(PrintOf(name));
  ++prints_;
  LinkChild(kRootRun, id);
  return id;
}

RunId ChainTree::Split(RunId id, uint32_t position) {
  const RunId head_id = NewId();
  Run& tail = At(id);
  Run& head = At(head_id);
  TERRACE_CHECK(position > 0 && position < tail.length() && !tail.anonymous);
  const RunId parent = tail.parent;
  UnlinkChild(id);
  head.depth = tail.depth;
  head.prints.assign(tail.prints.begin(), tail.prints.begin() + position);
  tail.prints.erase(tail.prints.begin(), tail.prints.begin() + position);
  tail.prints.shrink_to_fit();
  tail.depth += position;
  const auto cut = std::min<size_t>(position, tail.blocks.size());
  head.blocks.assign(tail.blocks.begin(), tail.blocks.begin() + static_cast<std::ptrdiff_t>(cut));
  tail.blocks.erase(tail.blocks.begin(), tail.blocks.begin() + static_cast<std::ptrdiff_t>(cut));
  for (uint32_t i = 0; i < head.blocks.size(); ++i) {
    if (head.blocks[i] != kNoBlock) {
      PlaceOf(head.blocks[i]).run = head_id;
      ++head.resident;
      head.resident_end = i + 1;
    }
  }
  for (uint32_t i = 0; i < tail.blocks.size(); ++i) {
    if (tail.blocks[i] != kNoBlock) {
      PlaceOf(tail.blocks[i]).position = i;
    }
  }
  tail.resident -= head.resident;
  tail.resident_end = tail.resident_end > position ? tail.resident_end - position : 0;
  head.shadow = std::min(tail.shadow, position);
  tail.shadow -= head.shadow;
  head.phl_shadow = std::min(tail.phl_shadow, position);
  tail.phl_shadow -= head.phl_shadow;
  head.phl_children = tail.phl_shadow > 0 ? 1 : 0;
  LinkChild(parent, head_id);
  LinkChild(head_id, id);
  head.live_children = tail.live() ? 1 : 0;
  return head_id;
}

void ChainTree::Join(RunId id) {
  Run& run = At(id);
  TERRACE_CHECK(run.children == 1);
  const RunId child_id = run.first_child;
  Run& child = At(child_id);
  UnlinkChild(child_id);
  const uint32_t length = run.length();
  run.prints.insert(run.prints.end(), child.prints.begin(), child.prints.end());
  if (child.resident > 0) {
    run.blocks.resize(length, kNoBlock);
    for (uint32_t i = 0; i < child.blocks.size(); ++i) {
      const BlockId block = child.blocks[i];
      run.blocks.push_back(block);
      if (block != kNoBlock) {
        PlaceOf(block).run = id;
        PlaceOf(block).position = length + i;
      }
    }
    run.resident += child.resident;
    run.resident_end = length + child.resident_end;
  }
  run.live_children = child.live_children;
  run.shadow = run.shadow < length ? run.shadow : length + child.shadow;
  run.phl_shadow = run.phl_shadow < length ? run.phl_shadow : length + child.phl_shadow;
  run.phl_children = child.phl_children;
  run.end = child.end;
  run.children = 0;
  run.first_child = kNoRun;
  for (RunId at = child.first_child; at != kNoRun;) {
    const RunId next = At(at).sibling.after;
    if (!At(at).anonymous) {
      children_.erase(ChildKey(child_id, At(at).prints.front()));
    }
    LinkChild(id, at);
    at = next;
  }
  child = Run{};
  free_.push_back(child_id);
  --runs_;
}

void ChainTree::Drop(RunId id) {
  TERRACE_CHECK(id != kRootRun && At(id).children == 0 && At(id).resident == 0);
  UnlinkChild(id);
  prints_ -= At(id).prints.size();
  At(id) = Run{};
  free_.push_back(id);
  --runs_;
}

bool ChainTree::Has(BlockId block) const {
  const auto id = static_cast<uint32_t>(block);
  return id / kPagePlaces < places_.size() && places_[id / kPagePlaces] != nullptr &&
         places_[id / kPagePlaces]->places[id % kPagePlaces].run != kNoRun;
}

const ChainTree::Place& ChainTree::PlaceOf(BlockId block) const {
  TERRACE_CHECK(Has(block));
  const auto id = static_cast<uint32_t>(block);
  return places_[id / kPagePlaces]->places[id % kPagePlaces];
}

ChainTree::Place& ChainTree::PlaceOf(BlockId block) {
  return const_cast<Place&>(std::as_const(*this).PlaceOf(block));
}

void ChainTree::Attach(BlockId block, RunId run, uint32_t position) {
  TERRACE_CHECK(!Has(block));
  const auto id = static_cast<uint32_t>(block);
  if (id / kPagePlaces >= places_.size()) {
    places_.resize(id / kPagePlaces + 1);
  }
  std::unique_ptr<PlacePage>& page = places_[id / kPagePlaces];
  if (page == nullptr) {
    page = std::make_unique<PlacePage>();
    ++place_pages_;
  }
  page->places[id % kPagePlaces] = {run, position, 0};
  ++page->resident;
  Run& at = At(run);
  if (at.blocks.size() <= position) {
    at.blocks.reserve(at.prints.size());
    at.blocks.resize(position + 1, kNoBlock);
  }
  TERRACE_CHECK(at.blocks[position] == kNoBlock);
  at.blocks[position] = block;
  const bool was_live = at.live();
  ++at.resident;
  at.resident_end = std::max(at.resident_end, position + 1);
  ++resident_;
  if (!was_live) {
    BecomeLive(run);
  }
}

// The run was not live before.
void ChainTree::BecomeLive(RunId run) {
  while (run != kRootRun) {
    run = At(run).parent;
    const bool was_live = At(run).live();
    ++At(run).live_children;
    if (was_live) {
      break;
    }
  }
}

RunId ChainTree::Clear(BlockId block) {
  const Place place = PlaceOf(block);
  Run& run = At(place.run);
  run.blocks[place.position] = kNoBlock;
  --run.resident;
  while (run.resident_end > 0 && run.blocks[run.resident_end - 1] == kNoBlock) {
    --run.resident_end;
  }
  if (run.resident == 0) {
    run.blocks = {};
  }
  const auto id = static_cast<uint32_t>(block);
  std::unique_ptr<PlacePage>& page = places_[id / kPagePlaces];
  page->places[id % kPagePlaces] = Place{};
  --resident_;
  if (--page->resident == 0) {
    page.reset();
    --place_pages_;
  }
  return place.run;
}

ChainTree::Spot ChainTree::BehindParent(BlockId parent) const {
  if (parent == kNoBlock) {
    return {kRootRun, 0};
  }
  const Place& place = PlaceOf(parent);
  return {place.run, place.position + 1};
}

ChainTree::Spot ChainTree::SpotOf(const Newcomer& newcomer) const {
  const uint32_t print = PrintOf(newcomer.name);
  // The ticket's run may have been cut since.
  RunId at = newcomer.ticket.place;
  while (at < id_limit() && at != kRootRun && At(at).parent != kNoRun &&
         At(at).depth > newcomer.ticket.depth) {
    at = At(at).parent;
  }
  if (at < id_limit() && at != kRootRun && At(at).parent != kNoRun) {
    const Spot spot = IfFree({at, newcomer.ticket.depth - At(at).depth}, print);
    if (spot.run != kNoRun) {
      return spot;
    }
  }
  const Spot behind = BehindParent(newcomer.parent);
  if (behind.position < At(behind.run).length()) {
    return IfFree(behind, print);
  }
  const RunId child = Child(behind.run, print);
  return child == kNoRun ? Spot{} : IfFree({child, 0}, print);
}

ChainTree::Spot ChainTree::IfFree(Spot spot, uint32_t print) const {
  const Run& run = At(spot.run);
  const bool taken = spot.position < run.blocks.size() && run.blocks[spot.position] != kNoBlock;
  return spot.position < run.length() && run.prints[spot.position] == print && !taken ? spot
                                                                                      : Spot{};
}

BlockId ChainTree::AnyUnlocked() const {
  for (RunId id = 1; id < id_limit(); ++id) {
    const Run& run = At(id);
    for (uint32_t i = run.resident_end; i > 0; --i) {
      if (run.blocks[i - 1] != kNoBlock && PlaceOf(run.blocks[i - 1]).locks == 0) {
        return run.blocks[i - 1];
      }
    }
  }
  return kNoBlock;
}

uint64_t ChainTree::memory_bytes() const {
  return pages_.size() * sizeof(Page) + free_.capacity() * sizeof(RunId) +
         places_.capacity() * sizeof(places_[0]) + place_pages_ * sizeof(PlacePage) +
         children_.capacity() * (sizeof(std::pair<uint64_t, RunId>) + 1) +
         prints_ * sizeof(uint32_t) + resident_ * sizeof(BlockId);
}

}  // namespace terrace
