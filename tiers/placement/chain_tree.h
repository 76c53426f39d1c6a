// The radix tree of chains that PHL learns on. A node is a run of blocks that have always been used
// together; it is a name's place, resident or not: what is not resident is a ghost of 4 bytes a
// block. Every resident block knows its run and its position there.
//
// For every run there are also places in PHL's lists, what PHL keeps of its last use (Instance) and
// of the last request that ended there (RequestEnd). What is looked at together lies together,
// apart from the rest.
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

// What is remembered of the last request that ended at the end of a run.
struct RequestEnd {
  double at_s = -1;  // below 0: none ended here
  RequestFacts facts;
};

// What PHL knows of the last use of a run, and what the run is worth for it. From priced_age on the
// first ranks are of an age each; the last one is the least of those of all ages that follow, until
// the run has to be priced again.
struct Instance {
  static constexpr uint32_t kRanks = 4;
  static constexpr uint32_t kMostHits = 7;
  double last_s = 0;
  std::array<uint8_t, kRanks> rank{};  // larger is worth more
  uint8_t rank_list = 0;               // while `listed`: in which of the lists of kRank
  uint8_t age = 0;                     // see BucketOfAge in instance_price.h
  uint8_t priced_age = 0;
  uint8_t hits : 3 = 0;       // uses after the first, counted up to kMostHits
  uint8_t learning : 1 = 1;   // what happens to it is learnt from
  uint8_t described : 1 = 0;  // its rows are known
  uint8_t priced : 1 = 0;
  uint8_t exact : 1 = 0;  // its ranks are what they should be; else they may be too low
  uint8_t listed : 1 = 0;

  // For so many ages it is priced at a time.
  [[nodiscard]] uint32_t PricedAges() const { return exact != 0 ? kRanks : 2 * kRanks; }
  // At its age.
  [[nodiscard]] uint32_t Rank() const { return rank[std::min(AgesSincePriced(), kRanks - 1)]; }
  // The least rank from its age on until it is to be priced again.
  [[nodiscard]] uint32_t LeastRank() const {
    uint32_t least = Rank();
    for (uint32_t i = AgesSincePriced() + 1; i < kRanks; ++i) {
      least = std::min<uint32_t>(least, rank[i]);
    }
    return least;
  }
  [[nodiscard]] bool IsStale() const { return priced == 0 || AgesSincePriced() >= PricedAges(); }

 private:
  [[nodiscard]] uint32_t AgesSincePriced() const { return uint32_t{age} - priced_age; }
};
using InstanceRows = std::array<HazardModel::Row, kFeatures>;

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

static_assert(sizeof(Run) == 64 && sizeof(Instance) == 16 && sizeof(RequestEnd) <= 48);

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
  ~ChainTree() = default;

  static uint32_t PrintOf(uint64_t name) {
    uint64_t mixed = (name ^ (name >> 32U)) * 0xD6E8FEB86659FD93U;
    mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93U;
    return static_cast<uint32_t>(mixed >> 32U);
  }

  [[nodiscard]] Run& At(RunId run) { return PageOf(run).runs[run % kPageRuns]; }
  [[nodiscard]] const Run& At(RunId run) const { return PageOf(run).runs[run % kPageRuns]; }
  [[nodiscard]] Instance& InstanceOf(RunId run) {
    return PageOf(run).standings[run % kPageRuns].instance;
  }
  [[nodiscard]] const Instance& InstanceOf(RunId run) const {
    return PageOf(run).standings[run % kPageRuns].instance;
  }
  // Of its instance; none before it is described.
  [[nodiscard]] absl::Span<const HazardModel::Row> RowsOf(RunId run) const {
    return absl::MakeConstSpan(PageOf(run).rows[run % kPageRuns])
        .first(InstanceOf(run).described != 0 ? kFeatures : 0);
  }
  // Another instance than before, which has no price yet.
  void Describe(RunId run, const InstanceRows& rows);
  // `to` gets the instance of `from`, and stays where it is in PHL's lists.
  void CopyInstance(RunId from, RunId to);
  [[nodiscard]] RequestEnd& EndOf(RunId run) { return PageOf(run).ends[run % kPageRuns]; }
  [[nodiscard]] const RequestEnd& EndOf(RunId run) const {
    return PageOf(run).ends[run % kPageRuns];
  }
  template <RunChain kChain>
  [[nodiscard]] RunLink& LinkOf(RunId run) {
    return LinkIn<kChain>(PageOf(run), run % kPageRuns);
  }
  template <RunChain kChain>
  [[nodiscard]] const RunLink& LinkOf(RunId run) const {
    return LinkIn<kChain>(PageOf(run), run % kPageRuns);
  }

  // Brings into the cache what is kept for the run; kNoRun: nothing happens.
  void Prefetch(RunId run) const {
    if (run != kNoRun) {
      const Page& page = PageOf(run);
      __builtin_prefetch(&page.runs[run % kPageRuns], 1);
      __builtin_prefetch(&page.standings[run % kPageRuns], 1);
    }
  }
  // What a walk through lists looks at.
  void PrefetchStanding(RunId run) const {
    if (run != kNoRun) {
      __builtin_prefetch(&PageOf(run).standings[run % kPageRuns], 1);
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
  // Half a line of the cache: all that the walks through the two busiest lists look at.
  struct alignas(32) Standing {
    Instance instance;
    RunLink use;
    RunLink rank;
  };
  static_assert(sizeof(Standing) == 32);
  struct Page {
    std::array<Run, kPageRuns> runs;
    std::array<Standing, kPageRuns> standings;
    std::array<InstanceRows, kPageRuns> rows;
    std::array<RequestEnd, kPageRuns> ends;
    std::array<RunLink, kPageRuns> siblings;
    std::array<RunLink, kPageRuns> lru;
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
  template <RunChain kChain, typename AnyPage>
  static auto& LinkIn(AnyPage& page, uint32_t at) {
    if constexpr (kChain == RunChain::kUse) {
      return page.standings[at].use;
    } else if constexpr (kChain == RunChain::kRank) {
      return page.standings[at].rank;
    } else if constexpr (kChain == RunChain::kLru) {
      return page.lru[at];
    } else {
      return page.siblings[at];
    }
  }
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
