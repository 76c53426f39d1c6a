// The radix tree of chains that PHL learns on. A node is a run of blocks that have always been used
// together; it is a name's place, resident or not: what is not resident is a ghost of 4 bytes a
// block. Every resident block knows its run and its position there.
//
// A run also carries what PHL keeps of its last use (Instance), and its places in PHL's lists: they
// are here so that a run is one allocation.
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
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/hazard_model.h"
#include "tiers/placement/phl_features.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

using RunId = uint32_t;
inline constexpr RunId kNoRun = 0xffffffffU;
inline constexpr RunId kRootRun = 0;

// A place in a doubly linked list of runs.
struct RunLink {
  RunId before = kNoRun;
  RunId after = kNoRun;
};

// What is remembered of the last request that ended at the end of a run.
struct RequestEnd {
  double at_s = -1;  // below 0: none ended here
  RequestFacts facts;
};

struct Instance {
  static constexpr uint32_t kMaxRows = 16;
  static constexpr uint32_t kPricedAges = 4;
  double last_s = 0;
  uint8_t age = 0;  // see BucketOfAge in phl.cc
  uint8_t rows_used = 0;
  uint8_t hits = 0;      // uses after the first, counted up to a limit
  bool learning = true;  // what happens to it is learnt from
  uint8_t priced_age = 0;
  std::array<uint16_t, kPricedAges> rank{};  // from priced_age on; larger is worth more
  std::array<HazardModel::Row, kMaxRows> rows;
  // Known for fewer ages than have passed: the last one counts.
  [[nodiscard]] uint32_t Rank() const {
    return rank[std::min(uint32_t{age} - priced_age, kPricedAges - 1)];
  }
  [[nodiscard]] bool IsRankStale() const { return age >= priced_age + kPricedAges; }
  [[nodiscard]] absl::Span<const HazardModel::Row> Rows() const { return {rows.data(), rows_used}; }
};

struct Run {
  RunId parent = kNoRun;
  RunId first_child = kNoRun;
  RunLink sibling;
  uint32_t children = 0;
  uint32_t live_children = 0;  // children that are resident or have live children
  uint32_t depth = 0;          // blocks before it
  uint32_t resident = 0;
  uint32_t resident_end = 0;  // behind the last resident position
  uint32_t shadow = 0;        // leading blocks that an LRU of the same size would hold
  uint32_t phl_shadow = 0;    // leading blocks that PHL would hold, while LRU rules
  uint32_t phl_children = 0;  // children of which it holds any
  bool anonymous = false;     // not found by name
  std::vector<uint32_t> prints;
  std::vector<BlockId> blocks;  // kNoBlock: a ghost; shorter than prints where the rest are ghosts

  Instance instance;
  RequestEnd end;
  // PHL's lists.
  RunLink by_age;
  RunLink by_rank;
  RunLink by_use;
  RunLink by_lru;
  int16_t rank_list = -1;  // the list that it is in; -1: none
  bool in_lru = false;     // it is in the list of by_lru

  [[nodiscard]] uint32_t length() const { return static_cast<uint32_t>(prints.size()); }
  [[nodiscard]] bool live() const { return resident > 0 || live_children > 0; }
};

class ChainTree {
 public:
  struct Place {
    RunId run = kNoRun;
    uint32_t position = 0;
    uint32_t locks = 0;
  };

  // A position in a run, taken or not.
  struct Spot {
    RunId run = kNoRun;
    uint32_t position = 0;
  };

  ChainTree();

  static uint32_t PrintOf(uint64_t name) {
    uint64_t mixed = (name ^ (name >> 32U)) * 0xD6E8FEB86659FD93U;
    mixed = (mixed ^ (mixed >> 32U)) * 0xD6E8FEB86659FD93U;
    return static_cast<uint32_t>(mixed >> 32U);
  }

  [[nodiscard]] Run& At(RunId run) { return pages_[run / kPageRuns]->runs[run % kPageRuns]; }
  [[nodiscard]] const Run& At(RunId run) const {
    return pages_[run / kPageRuns]->runs[run % kPageRuns];
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
  [[nodiscard]] const Place& PlaceOf(BlockId block) const;
  [[nodiscard]] Place& PlaceOf(BlockId block);
  [[nodiscard]] bool Has(BlockId block) const;
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
  };
  struct PlacePage {
    std::array<Place, kPagePlaces> places;
    uint32_t resident = 0;
  };

  static uint64_t ChildKey(RunId parent, uint32_t print) { return uint64_t{parent} << 32U | print; }
  RunId NewId();
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
  absl::flat_hash_map<uint64_t, RunId> children_;  // by ChildKey
  uint64_t resident_ = 0;
  uint64_t runs_ = 0;
  uint64_t prints_ = 0;
};

}  // namespace terrace
