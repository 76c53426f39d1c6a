// The radix tree of chains that PHL learns on. A node is a run of blocks that have always been used
// together; it is a name's place, resident or not: what is not resident is a ghost of 4 bytes a
// block. Every resident block knows its run and its position there.
//
// For every run there are also places in PHL's lists, what PHL keeps of its last use (Instance) and
// of the last request that ended there (RequestEnd). Each kind lies apart from the others, by run:
// a walk through a list reads the links and little else.
//
// Thread-compatible. Nothing moves: references to runs stay good until the run is dropped.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/hazard_model.h"
#include "tiers/placement/phl_features.h"
#include "tiers/vocab/block_key.h"
#include "tiers/vocab/check.h"

namespace terrace {

using RunId = uint32_t;
inline constexpr RunId kNoRun = 0xffffffffU;
inline constexpr RunId kRootRun = 0;

// A place in a doubly linked list of runs.
struct RunLink {
  RunId before = kNoRun;
  RunId after = kNoRun;
};
enum class RunChain : uint8_t { kSiblings, kUse, kRank, kLru };
inline constexpr size_t kRunChains = 4;

// What is remembered of the last request that ended at the end of a run.
struct RequestEnd {
  double at_s = -1;  // below 0: none ended here
  RequestFacts facts;
};

struct Instance {
  static constexpr uint32_t kPricedAges = 4;
  double last_s = 0;
  std::array<uint8_t, kPricedAges> rank{};  // from priced_age on; larger is worth more
  uint8_t priced_age = 0;
  uint8_t rows_used = 0;
  uint8_t hits = 0;      // uses after the first, counted up to a limit
  bool learning = true;  // what happens to it is learnt from
  std::array<HazardModel::Row, kMostFeatures> rows;
  // Known for fewer ages than have passed: the last one counts.
  [[nodiscard]] uint32_t RankAt(uint32_t age) const {
    return rank[std::min(age - priced_age, kPricedAges - 1)];
  }
  [[nodiscard]] bool IsRankStaleAt(uint32_t age) const { return age >= priced_age + kPricedAges; }
  [[nodiscard]] absl::Span<const HazardModel::Row> Rows() const { return {rows.data(), rows_used}; }
};

struct alignas(64) Run {  // a line of the cache
  RunId parent = kNoRun;
  RunId first_child = kNoRun;
  uint32_t children = 0;
  uint32_t live_children = 0;  // children that are resident or have live children
  uint32_t depth = 0;          // blocks before it
  uint32_t length = 0;
  uint32_t resident = 0;
  uint32_t resident_end = 0;  // behind the last resident position
  uint32_t shadow = 0;        // leading blocks that an LRU of the same size would hold
  uint32_t phl_shadow = 0;    // leading blocks that PHL would hold, while LRU rules
  uint32_t phl_children = 0;  // children of which it holds any
  int16_t rank_list = -1;     // of PHL's lists of kRank the one that it is in; -1: none
  bool in_lru = false;        // it is in PHL's list of kLru
  bool anonymous = false;     // not found by name
  std::unique_ptr<uint32_t[]> prints;  // `length` of them
  std::unique_ptr<BlockId[]> blocks;   // as many, kNoBlock: a ghost; nullptr: all are ghosts

  [[nodiscard]] bool live() const { return resident > 0 || live_children > 0; }
  [[nodiscard]] absl::Span<const uint32_t> Prints() const { return {prints.get(), length}; }
  [[nodiscard]] BlockId BlockAt(uint32_t position) const {
    return blocks == nullptr ? kNoBlock : blocks[position];
  }
};

static_assert(sizeof(Run) == 64 && sizeof(Instance) <= 48 && sizeof(RequestEnd) <= 48);

class ChainTree {
 public:
  // Of a resident block.
  struct Place {
    RunId run = kNoRun;
    uint32_t position : 31 = 0;
    uint32_t is_locked : 1 = 0;
  };
  static_assert(sizeof(Place) == 8);

  // A position in a run, taken or not.
  struct Spot {
    RunId run = kNoRun;
    uint32_t position = 0;
  };

  ChainTree();
  ChainTree(const ChainTree&) = delete;
  ChainTree& operator=(const ChainTree&) = delete;

  static uint32_t PrintOf(uint64_t name) {
    uint64_t mixed = (name ^ (name >> 32U)) * 0xD6E8FEB86659FD93U;
    mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93U;
    return static_cast<uint32_t>(mixed >> 32U);
  }

  [[nodiscard]] Run& At(RunId run) { return PageOf(run).runs[run % kPageRuns]; }
  [[nodiscard]] const Run& At(RunId run) const { return PageOf(run).runs[run % kPageRuns]; }
  [[nodiscard]] Instance& InstanceOf(RunId run) { return PageOf(run).instances[run % kPageRuns]; }
  [[nodiscard]] const Instance& InstanceOf(RunId run) const {
    return PageOf(run).instances[run % kPageRuns];
  }
  [[nodiscard]] RequestEnd& EndOf(RunId run) { return PageOf(run).ends[run % kPageRuns]; }
  [[nodiscard]] const RequestEnd& EndOf(RunId run) const {
    return PageOf(run).ends[run % kPageRuns];
  }
  // Of its instance; see BucketOfAge in instance_price.h.
  [[nodiscard]] uint8_t& AgeOf(RunId run) { return PageOf(run).ages[run % kPageRuns]; }
  [[nodiscard]] uint8_t AgeOf(RunId run) const { return PageOf(run).ages[run % kPageRuns]; }
  [[nodiscard]] RunLink& LinkOf(RunId run, RunChain chain) {
    return PageOf(run).links[static_cast<size_t>(chain)][run % kPageRuns];
  }
  [[nodiscard]] const RunLink& LinkOf(RunId run, RunChain chain) const {
    return PageOf(run).links[static_cast<size_t>(chain)][run % kPageRuns];
  }

  // Brings into the cache what is kept for the run; kNoRun: nothing happens.
  void Prefetch(RunId run) const {
    if (run != kNoRun) {
      const Page& page = PageOf(run);
      const uint32_t at = run % kPageRuns;
      __builtin_prefetch(&page.runs[at], 1);
      __builtin_prefetch(&page.instances[at], 1);
      __builtin_prefetch(&page.instances[at].rows.back(), 1);
      __builtin_prefetch(&page.links[static_cast<size_t>(RunChain::kUse)][at], 1);
      __builtin_prefetch(&page.links[static_cast<size_t>(RunChain::kRank)][at], 1);
      __builtin_prefetch(&page.ages[at], 1);
    }
  }
  // And the links beside it in a list.
  void PrefetchBeside(RunId run, RunChain chain) const {
    const RunLink& link = LinkOf(run, chain);
    for (const RunId beside : {link.before, link.after}) {
      if (beside != kNoRun) {
        __builtin_prefetch(&LinkOf(beside, chain), 1);
      }
    }
  }

  // What is looked at where a block leaves from the end of the run; the run is in the cache.
  void PrefetchTail(RunId run) const {
    const Run& at = At(run);
    if (at.resident_end > 0) {
      __builtin_prefetch(&at.blocks[at.resident_end - 1], 1);
    }
  }
  void PrefetchPlace(BlockId block) const {
    const size_t page = static_cast<uint32_t>(block) / kPagePlaces;
    if (page < places_.size() && places_[page] != nullptr) {
      __builtin_prefetch(&places_[page]->places[static_cast<uint32_t>(block) % kPagePlaces], 1);
    }
  }

  // kNoRun: no child of `parent` begins with this block.
  [[nodiscard]] RunId Child(RunId parent, uint32_t print) const;
  // Leading blocks of the run that `names` begins with.
  [[nodiscard]] uint32_t Match(RunId run, absl::Span<const uint64_t> names) const;
  // A run of ghosts below `parent`.
  RunId Add(RunId parent, absl::Span<const uint64_t> names);
  RunId AddAnonymous(uint64_t name);
  // Cuts the run before `position` (1 .. length - 1). The part before becomes a new run, which is
  // returned; the id stays with the part behind. The caller says what the new run's instance is.
  RunId Split(RunId run, uint32_t position);
  // Joins the run with its only child; the run's id stays. The child's instance is lost.
  void Join(RunId run);
  // The run has neither children nor residents.
  void Drop(RunId run);

  // Where a resident block is; null run: not resident.
  [[nodiscard]] const Place& PlaceOf(BlockId block) const {
    const Place* place = FindPlace(block);
    TERRACE_CHECK(place != nullptr);
    return *place;
  }
  [[nodiscard]] bool Has(BlockId block) const { return FindPlace(block) != nullptr; }
  // Locks of a resident block are counted. True: it is the first one.
  bool Lock(BlockId block);
  // True: it was the last one.
  bool Unlock(BlockId block);
  // The block is resident at that position, which holds none.
  void Attach(BlockId block, RunId run, uint32_t position);
  // Calls gone_quiet(run) for every run that has no live children any more, from the block's run
  // up.
  template <typename Quiet>
  void Detach(BlockId block, const Quiet& gone_quiet) {
    const RunId run = Clear(block);
    RunId at = run;
    while (at != kRootRun && !At(at).live()) {
      at = At(at).parent;
      if (--At(at).live_children == 0) {
        gone_quiet(at);
      }
    }
  }

  // The position after the parent, which may be the end of its run.
  [[nodiscard]] Spot BehindParent(BlockId parent) const;
  // Where a block that is not resident belongs; null run: it is not known.
  [[nodiscard]] Spot SpotOf(const Newcomer& newcomer) const;

  // kNoBlock: all residents are locked. Takes time for each run known.
  [[nodiscard]] BlockId AnyUnlocked() const;

  [[nodiscard]] uint64_t resident() const { return resident_; }
  [[nodiscard]] uint64_t runs() const { return runs_; }
  [[nodiscard]] uint64_t prints() const { return prints_; }
  // Runs have ids below this.
  [[nodiscard]] RunId id_limit() const { return static_cast<RunId>(pages_.size() * kPageRuns); }
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kPageRuns = 64;
  static constexpr uint32_t kPagePlaces = 1024;
  struct Page {
    std::array<Run, kPageRuns> runs;
    std::array<Instance, kPageRuns> instances;
    std::array<RequestEnd, kPageRuns> ends;
    std::array<std::array<RunLink, kPageRuns>, kRunChains> links;
    std::array<uint8_t, kPageRuns> ages{};
  };
  struct PlacePage {
    std::array<Place, kPagePlaces> places;
    uint32_t resident = 0;
  };

  // Children are found by their parent and their first print, which their hash is made of.
  struct ChildName {
    RunId parent;
    uint32_t print;
  };
  struct ChildHash {
    using is_transparent = void;
    const ChainTree* tree;
    size_t operator()(ChildName name) const {
      return absl::Hash<uint64_t>()(uint64_t{name.parent} << 32U | name.print);
    }
    size_t operator()(RunId run) const { return (*this)(tree->NameOf(run)); }
  };
  struct ChildEqual {
    using is_transparent = void;
    const ChainTree* tree;
    bool operator()(RunId a, RunId b) const { return a == b; }
    bool operator()(RunId run, ChildName name) const {
      const ChildName own = tree->NameOf(run);
      return own.parent == name.parent && own.print == name.print;
    }
    bool operator()(ChildName name, RunId run) const { return (*this)(run, name); }
  };
  [[nodiscard]] ChildName NameOf(RunId run) const { return {At(run).parent, At(run).prints[0]}; }

  [[nodiscard]] Place& MutablePlaceOf(BlockId block) { return const_cast<Place&>(PlaceOf(block)); }
  void Move(BlockId block, RunId run, uint32_t position);
  [[nodiscard]] const Place* FindPlace(BlockId block) const {
    const auto id = static_cast<uint32_t>(block);
    const size_t page = id / kPagePlaces;
    if (page >= places_.size() || places_[page] == nullptr) {
      return nullptr;
    }
    const Place& place = places_[page]->places[id % kPagePlaces];
    return place.run == kNoRun ? nullptr : &place;
  }
  // Unchecked: every look at a run is one.
  [[nodiscard]] Page& PageOf(RunId run) const { return *pages_.data()[run / kPageRuns].get(); }
  RunId NewId();
  void GiveBack(RunId run);
  void SetPrints(Run& run, std::unique_ptr<uint32_t[]> prints, uint32_t length);
  void SetBlocks(Run& run, std::unique_ptr<BlockId[]> blocks);
  void DivideArrays(Run& head, Run& tail, uint32_t position);
  void JoinArrays(RunId first, const Run& second);
  void LinkChild(RunId parent, RunId child);
  void UnlinkChild(RunId child);
  void BecomeLive(RunId run);
  RunId Clear(BlockId block);
  // The spot, if a block of that print may go there.
  [[nodiscard]] Spot IfFree(Spot spot, uint32_t print) const;

  std::vector<std::unique_ptr<Page>> pages_;
  std::vector<RunId> free_;
  std::vector<std::unique_ptr<PlacePage>> places_;
  uint64_t place_pages_ = 0;
  absl::flat_hash_set<RunId, ChildHash, ChildEqual> children_;
  // Of blocks that are locked more than once, how often more.
  absl::flat_hash_map<BlockId, uint32_t> more_locks_;
  uint64_t resident_ = 0;
  uint64_t runs_ = 0;
  uint64_t prints_ = 0;
  uint64_t array_bytes_ = 0;  // of the heap, under prints and blocks
};

}  // namespace terrace
