// How a fleet that is too large for every node to read the head of every other follows itself.
//
// The nodes are cut into groups by a hash of their names. For each group one node is the teller:
// chosen by rendezvous hashing among those that have said something lately, so that all choose the
// same without asking. A teller looks at the nodes of its group every few seconds, and keeps a
// bulletin beside its own head: a title, then for each of those nodes an excerpt, which says
// everything that changed between two serials of a life (a window of some tens of seconds). So a
// node reads one file for each group instead of one for each node. Whoever knows a life up to the
// serial that an excerpt builds on, or a later one, takes it; everybody else looks at the node
// itself.
//
// A teller is believed no further than a node of the pool is in any case: whoever reads a record
// checks it in full. Everybody goes on to look at every node, more rarely, and what is read there
// counts. A bulletin that does not change, or does not name a node, is as none: the node is looked
// at again, until another teller is chosen. So a teller that dies or lies costs time and hits.
//
// What heads say of reads (heats) travels with heads alone.
//
// Everything here is pure; the chronicle is thread-compatible.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/shared/pool_format.h"

namespace terrace {

uint32_t GroupOf(const Digest128& node, uint32_t groups);
// For each group its teller; a candidate is chosen twice only where there are fewer than groups.
// Zero: there is no candidate.
std::vector<Digest128> ChooseTellers(const std::vector<Digest128>& candidates, uint32_t groups);

// Excerpts of one life that follow each other, as one.
PoolReport MergeExcerpts(absl::Span<const PoolReport> excerpts);

// A title, and what stands behind it. False: `bytes` begin with no title; damaged excerpts, and all
// behind them, are left out.
bool ReadBulletin(absl::Span<const char> bytes, PoolReport* title, std::vector<PoolReport>* out);

// What a teller remembers of the nodes of its group.
class PoolChronicle {
 public:
  explicit PoolChronicle(absl::Duration window) : window_(window) {}

  // What a life's head says now. `manifest` is the one that it builds on, or nullptr where that is
  // the same as in the last call for this life.
  void Note(const PoolReport* manifest, const PoolReport& head, absl::Duration now);
  // It was looked at, and says what it said before.
  void Seen(const NodeLife& life, absl::Duration now);
  // Nothing is remembered of nodes that were not looked at since `now` - window.
  void Forget(absl::Duration now);
  // A bulletin under this title, of the nodes that are remembered.
  [[nodiscard]] std::string Compose(const PoolReport& title) const;

 private:
  struct Listed {
    uint32_t end_page = 1;
    ReportedState state = ReportedState::kOpen;
  };
  struct Member {
    PoolReport last;  // without its lists
    absl::Duration seen;
    bool knows_manifest = false;
    uint64_t manifest_kills = 0;
    uint64_t head_kills = 0;
    absl::flat_hash_map<SegmentName, Listed> listed;
    absl::flat_hash_map<Digest128, uint64_t> generations;
    std::deque<std::pair<absl::Duration, PoolReport>> changes;  // excerpts, by when they were noted
  };

  static void NoteSegments(Member& member,
                           const PoolReport* manifest,
                           const PoolReport& head,
                           PoolReport* change);
  static bool NoteKills(Member& member,
                        const PoolReport* manifest,
                        const PoolReport& head,
                        PoolReport* change);
  static void NoteGenerations(Member& member, const PoolReport& report, PoolReport* change);

  const absl::Duration window_;
  std::map<Digest128, Member> members_;
};

}  // namespace terrace
