#include "tiers/placement/chain_tree.h"

#include <algorithm>

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// Of an array of `length` numbers of 4 bytes, as the C library of GNU keeps it.
uint64_t HeapBytes(uint32_t length) {
  constexpr uint64_t kHead = 8;
  constexpr uint64_t kGrain = 16;
  constexpr uint64_t kLeast = 32;
  const uint64_t bytes = uint64_t{length} * 4 + kHead;
  return std::max(kLeast, (bytes + kGrain - 1) / kGrain * kGrain);
}

template <typename Word>
std::unique_ptr<Word[]> MakeArray(size_t length) {
  static_assert(sizeof(Word) == 4);
  return std::unique_ptr<Word[]>(new Word[length]);  // make_unique would clear it
}

template <typename Word>
std::unique_ptr<Word[]> CopyOf(const Word* words, size_t length) {
  auto copy = MakeArray<Word>(length);
  std::copy_n(words, length, copy.get());
  return copy;
}

}  // namespace

ChainTree::ChainTree() : children_(0, ChildHash{this}, ChildEqual{this}) {
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
  ++runs_;
  return id;
}

void ChainTree::GiveBack(RunId id) {
  SetBlocks(At(id), nullptr);
  SetPrints(At(id), nullptr, 0);
  At(id) = Run{};
  PageOf(id).standings[id % kPageRuns] = Standing{};
  EndOf(id) = RequestEnd{};
  LinkOf<RunChain::kSiblings>(id) = {};
  LinkOf<RunChain::kLru>(id) = {};
  free_.push_back(id);
  --runs_;
}

void ChainTree::Describe(RunId run, const InstanceRows& rows) {
  PageOf(run).rows[run % kPageRuns] = rows;
  Instance& instance = InstanceOf(run);
  instance.described = 1;
  instance.priced = 0;
  instance.priced_age = 0;
}

void ChainTree::CopyInstance(RunId from, RunId to) {
  Instance& instance = InstanceOf(to);
  const Instance before = instance;
  instance = InstanceOf(from);
  instance.rank_list = before.rank_list;
  instance.listed = before.listed;
  PageOf(to).rows[to % kPageRuns] = PageOf(from).rows[from % kPageRuns];
}

void ChainTree::SetPrints(Run& run, std::unique_ptr<uint32_t[]> prints, uint32_t length) {
  TERRACE_CHECK(run.blocks == nullptr);
  array_bytes_ -= HeapBytes(run.length) * (run.prints == nullptr ? 0 : 1);
  array_bytes_ += HeapBytes(length) * (prints == nullptr ? 0 : 1);
  run.prints = std::move(prints);
  run.length = length;
}

void ChainTree::SetBlocks(Run& run, std::unique_ptr<BlockId[]> blocks) {
  array_bytes_ -= HeapBytes(run.length) * (run.blocks == nullptr ? 0 : 1);
  array_bytes_ += HeapBytes(run.length) * (blocks == nullptr ? 0 : 1);
  run.blocks = std::move(blocks);
}

void ChainTree::LinkChild(RunId parent, RunId child) {
  Run& above = At(parent);
  Run& below = At(child);
  below.parent = parent;
  LinkOf<RunChain::kSiblings>(child) = {kNoRun, above.first_child};
  if (above.first_child != kNoRun) {
    LinkOf<RunChain::kSiblings>(above.first_child).before = child;
  }
  above.first_child = child;
  ++above.children;
  if (!below.anonymous) {
    const bool is_new = children_.insert(child).second;
    TERRACE_CHECK(is_new);
  }
}

void ChainTree::UnlinkChild(RunId child) {
  Run& below = At(child);
  Run& above = At(below.parent);
  const RunLink sibling = LinkOf<RunChain::kSiblings>(child);
  (sibling.before == kNoRun ? above.first_child
                            : LinkOf<RunChain::kSiblings>(sibling.before).after) = sibling.after;
  if (sibling.after != kNoRun) {
    LinkOf<RunChain::kSiblings>(sibling.after).before = sibling.before;
  }
  --above.children;
  if (!below.anonymous) {
    children_.erase(child);
  }
}

RunId ChainTree::Child(RunId parent, uint32_t print) const {
  const auto found = children_.find(ChildName{parent, print});
  return found == children_.end() ? kNoRun : *found;
}

uint32_t ChainTree::Match(RunId run, absl::Span<const uint64_t> names) const {
  const absl::Span<const uint32_t> prints = At(run).Prints();
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
  auto prints = MakeArray<uint32_t>(names.size());
  std::transform(names.begin(), names.end(), prints.get(), PrintOf);
  SetPrints(run, std::move(prints), static_cast<uint32_t>(names.size()));
  prints_ += run.length;
  run.depth = At(parent).depth + At(parent).length;
  LinkChild(parent, id);
  return id;
}

RunId ChainTree::AddAnonymous(uint64_t name) {
  const RunId id = NewId();
  At(id).anonymous = true;
  SetPrints(At(id), MakeArray<uint32_t>(1), 1);
  At(id).prints[0] = PrintOf(name);
  ++prints_;
  LinkChild(kRootRun, id);
  return id;
}

// Both parts keep the blocks that they have.
void ChainTree::DivideArrays(Run& head, Run& tail, uint32_t position) {
  const std::unique_ptr<uint32_t[]> prints = std::move(tail.prints);
  const std::unique_ptr<BlockId[]> blocks = std::move(tail.blocks);
  array_bytes_ -= HeapBytes(tail.length) * (blocks == nullptr ? 1 : 2);
  const uint32_t length = tail.length;
  SetPrints(head, CopyOf(prints.get(), position), position);
  SetPrints(tail, CopyOf(prints.get() + position, length - position), length - position);
  const auto resident_before = [&](uint32_t end) {
    return std::count_if(blocks.get(), blocks.get() + end,
                         [](BlockId block) { return block != kNoBlock; });
  };
  const uint32_t in_head = blocks == nullptr ? 0 : static_cast<uint32_t>(resident_before(position));
  head.resident = in_head;
  tail.resident -= in_head;
  if (head.resident > 0) {
    SetBlocks(head, CopyOf(blocks.get(), position));
  }
  if (tail.resident > 0) {
    SetBlocks(tail, CopyOf(blocks.get() + position, length - position));
  }
}

RunId ChainTree::Split(RunId id, uint32_t position) {
  const RunId head_id = NewId();
  Run& tail = At(id);
  Run& head = At(head_id);
  TERRACE_CHECK(position > 0 && position < tail.length && !tail.anonymous);
  const RunId parent = tail.parent;
  UnlinkChild(id);
  head.depth = tail.depth;
  tail.depth += position;
  DivideArrays(head, tail, position);
  for (uint32_t i = 0; head.resident > 0 && i < position; ++i) {
    if (head.blocks[i] != kNoBlock) {
      Move(head.blocks[i], head_id, i);
      head.resident_end = i + 1;
    }
  }
  for (uint32_t i = 0; tail.resident > 0 && i < tail.length; ++i) {
    if (tail.blocks[i] != kNoBlock) {
      Move(tail.blocks[i], id, i);
    }
  }
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

// `first` gets the names and blocks of `second` behind its own.
void ChainTree::JoinArrays(RunId first, const Run& second) {
  Run& run = At(first);
  const uint32_t length = run.length;
  const uint32_t all = length + second.length;
  auto prints = MakeArray<uint32_t>(all);
  std::copy_n(run.prints.get(), length, prints.get());
  std::copy_n(second.prints.get(), second.length, prints.get() + length);
  std::unique_ptr<BlockId[]> blocks;
  if (run.blocks != nullptr || second.blocks != nullptr) {
    blocks = MakeArray<BlockId>(all);
    for (uint32_t i = 0; i < all; ++i) {
      blocks[i] = i < length ? run.BlockAt(i) : second.BlockAt(i - length);
      if (i >= length && blocks[i] != kNoBlock) {
        Move(blocks[i], first, i);
      }
    }
  }
  SetBlocks(run, nullptr);
  SetPrints(run, std::move(prints), all);
  SetBlocks(run, std::move(blocks));
}

void ChainTree::Join(RunId id) {
  Run& run = At(id);
  TERRACE_CHECK(run.children == 1);
  const RunId child_id = run.first_child;
  const Run& child = At(child_id);
  UnlinkChild(child_id);
  const uint32_t length = run.length;
  JoinArrays(id, child);
  if (child.resident > 0) {
    run.resident += child.resident;
    run.resident_end = length + child.resident_end;
  }
  run.live_children = child.live_children;
  run.shadow = run.shadow < length ? run.shadow : length + child.shadow;
  run.phl_shadow = run.phl_shadow < length ? run.phl_shadow : length + child.phl_shadow;
  run.phl_children = child.phl_children;
  EndOf(id) = EndOf(child_id);
  run.children = 0;
  run.first_child = kNoRun;
  for (RunId at = child.first_child; at != kNoRun;) {
    const RunId next = LinkOf<RunChain::kSiblings>(at).after;
    if (!At(at).anonymous) {
      children_.erase(at);
    }
    LinkChild(id, at);
    at = next;
  }
  GiveBack(child_id);
}

void ChainTree::Drop(RunId id) {
  TERRACE_CHECK(id != kRootRun && At(id).children == 0 && At(id).resident == 0);
  UnlinkChild(id);
  prints_ -= At(id).length;
  GiveBack(id);
}

void ChainTree::Move(BlockId block, RunId run, uint32_t position) {
  Place& place = MutablePlaceOf(block);
  place.run = run;
  place.position = position & 0x7fffffffU;
}

bool ChainTree::Lock(BlockId block) {
  Place& place = MutablePlaceOf(block);
  if (place.is_locked != 0) {
    ++more_locks_[block];
    return false;
  }
  place.is_locked = 1;
  return true;
}

bool ChainTree::Unlock(BlockId block) {
  Place& place = MutablePlaceOf(block);
  TERRACE_CHECK(place.is_locked != 0);
  const auto more = more_locks_.empty() ? more_locks_.end() : more_locks_.find(block);
  if (more != more_locks_.end()) {
    if (--more->second == 0) {
      more_locks_.erase(more);
    }
    return false;
  }
  place.is_locked = 0;
  return true;
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
  page->places[id % kPagePlaces].run = run;
  Move(block, run, position);
  ++page->resident;
  Run& at = At(run);
  TERRACE_CHECK(position < at.length);
  if (at.blocks == nullptr) {
    SetBlocks(at, MakeArray<BlockId>(at.length));
    std::fill_n(at.blocks.get(), at.length, kNoBlock);
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
  // Blocks leave from the end of a run, one after the other.
  constexpr uint32_t kAhead = 2;
  if (run.resident_end > kAhead) {
    PrefetchPlace(run.blocks[run.resident_end - 1 - kAhead]);
  }
  if (run.resident == 0) {
    SetBlocks(run, nullptr);
  }
  const auto id = static_cast<uint32_t>(block);
  std::unique_ptr<PlacePage>& page = places_[id / kPagePlaces];
  if (place.is_locked != 0) {
    more_locks_.erase(block);
  }
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
  return {place.run, place.position + 1U};
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
  if (behind.position < At(behind.run).length) {
    return IfFree(behind, print);
  }
  const RunId child = Child(behind.run, print);
  return child == kNoRun ? Spot{} : IfFree({child, 0}, print);
}

ChainTree::Spot ChainTree::IfFree(Spot spot, uint32_t print) const {
  const Run& run = At(spot.run);
  const bool fits = spot.position < run.length && run.prints[spot.position] == print &&
                    run.BlockAt(spot.position) == kNoBlock;
  return fits ? spot : Spot{};
}

BlockId ChainTree::AnyUnlocked() const {
  for (RunId id = 1; id < id_limit(); ++id) {
    const Run& run = At(id);
    for (uint32_t i = run.resident_end; i > 0; --i) {
      if (run.blocks[i - 1] != kNoBlock && PlaceOf(run.blocks[i - 1]).is_locked == 0) {
        return run.blocks[i - 1];
      }
    }
  }
  return kNoBlock;
}

uint64_t ChainTree::memory_bytes() const {
  return pages_.size() * sizeof(Page) + free_.capacity() * sizeof(RunId) +
         places_.capacity() * sizeof(places_[0]) + place_pages_ * sizeof(PlacePage) +
         children_.capacity() * (sizeof(RunId) + 1) +
         more_locks_.capacity() * (sizeof(std::pair<BlockId, uint32_t>) + 1) + array_bytes_;
}

}  // namespace terrace
