// Follows what the other nodes of a pool publish: reads their heads, manifests and, where those do
// not say everything, their segments, and keeps the catalogue up to date.
//
// A head is cumulative since the manifest that it names, so a reader that slept misses nothing.
// Nodes are looked at every poll_interval, and those that have been quiet more rarely; however many
// there are, all looks together stay within calls_per_second. In a fleet of more than
// bulletins_from, bulletins tell of most nodes (pool_bulletin.h), which are looked at every
// told_poll_interval only.
//
// Threads: Round and Take from one thread at a time, which blocks in PoolFiles::Call; the rest from
// any.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/shared/pool_bulletin.h"
#include "tiers/shared/pool_catalogue.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_reports.h"
#include "tiers/shared/shared_tier.h"

namespace terrace {

struct PoolTailerOptions {
  Digest128 self;
  absl::Duration poll_interval = absl::Milliseconds(500);
  absl::Duration quiet_poll_interval = absl::Milliseconds(1500);
  absl::Duration quiet_after = absl::Seconds(30);
  absl::Duration members_interval = absl::Seconds(5);  // longer with more than 100 members
  absl::Duration absent_after = absl::Minutes(1);      // from the list of members, until it counts
  double calls_per_second = 48;   // for looks at nodes, but for those that this one tells of
  uint32_t bulletins_from = 128;  // nodes
  uint32_t bulletin_groups = 32;
  absl::Duration bulletin_poll_interval = absl::Seconds(5);
  absl::Duration bulletin_interval = absl::Seconds(3);  // between two of our own
  absl::Duration told_poll_interval = absl::Minutes(8);
  uint32_t segments_a_round = 16;  // that are read because no head lists their records
};

struct PoolTailerFigures {
  uint64_t heads_read = 0;
  uint64_t manifests_read = 0;
  uint64_t bulletins_read = 0;
  uint64_t bulletins_written = 0;
  uint64_t excerpts_taken = 0;
  uint64_t footers_read = 0;
  uint64_t segments_scanned = 0;
  uint64_t reports_damaged = 0;
  uint64_t segments_unreadable = 0;
};

// What a round brought that is not the catalogue's.
struct TailNews {
  std::vector<RaisedGeneration> generations;
  // What a node says of its reads lately, in the place of what it said before.
  std::map<Digest128, std::vector<ReportedHeat>> heats;
  std::vector<NodeLife> claimed;  // lives that another node has taken over
};

// All that a life reported: its manifest with the changes of its head.
struct WholeReport {
  NodeLife life;
  std::vector<ReportedSegment> segments;
  std::vector<Kill> kills;
  std::vector<ReportedGeneration> generations;
};

class PoolTailer {
 public:
  // `catalogue` is borrowed.
  PoolTailer(const PoolTailerOptions& options, const PoolAccess& access, PoolCatalogue& catalogue)
      : options_(options),
        access_(access),
        catalogue_(catalogue),
        chronicle_(4 * options.bulletin_poll_interval) {}

  // The life of this node, below whose folder a bulletin may be written; nullopt: none has begun.
  void SetLife(const std::optional<NodeLife>& life);

  // Looks at whatever is due. UNAVAILABLE, DEADLINE_EXCEEDED: the mount; the round ended there.
  // What was learned before is in *news all the same. Other faults cost the node or segment that
  // they concern, until it is looked at again.
  absl::Status Round(TailNews* news);

  // Everything that a life reported; its records become known to the catalogue in later rounds.
  // Where its head is damaged, what its last manifest says. NOT_FOUND: it never reported, or is
  // removed.
  absl::StatusOr<WholeReport> ReadWhole(const NodeLife& life);
  // Reads the records of a segment that this node lists itself in one of the next rounds.
  void Follow(const ReportedSegment& segment);

  // Of the list of members, as of the last look: the lives of a node, claimed ones included, and
  // whether a life is claimed.
  [[nodiscard]] std::vector<NodeLife> LivesOf(const Digest128& node) const;
  [[nodiscard]] bool IsClaimed(const NodeLife& life) const;
  // Whether every member's reports have been read at least once, as far as they can be: then
  // generations are known, which every node repeats.
  [[nodiscard]] bool HeardAll() const;
  [[nodiscard]] bool SeenByAll(const RaisedGeneration& raised, absl::Duration dead_after) const;
  // The other nodes.
  [[nodiscard]] std::vector<PoolNodeView> Nodes() const;
  // The same, but for their records and what is behind: cheap.
  [[nodiscard]] std::vector<PoolNodeView> Peers() const;
  // That are about to be read; not those that could not be, which are tried again ever more rarely.
  [[nodiscard]] uint64_t behind_segments() const;
  [[nodiscard]] PoolTailerFigures figures() const;

 private:
  struct Node {
    NodeLife life;
    bool listed = false;  // in the last list of members
    absl::Duration last_listed;
    bool heard = false;
    bool ended = false;
    uint64_t serial = 0;
    uint64_t head_serial = 0;  // of the last look at itself
    bool hearsay = false;      // bulletins said something since that look
    uint32_t manifest = 0;
    uint32_t failures = 0;                               // in a row, to read its reports
    absl::flat_hash_map<SegmentName, uint32_t> listing;  // pages of their files
    absl::flat_hash_map<Digest128, uint64_t> generations;
    bool look_soon = true;
    absl::Duration last_look;
    absl::Duration told_at;  // by a bulletin
    absl::Duration last_change;
    absl::Duration last_word;
  };
  // Who tells of a group, and what was read of its bulletin.
  struct Teller {
    Digest128 node;
    NodeLife life;
    uint64_t serial = 0;
    uint64_t room = 0;  // for it, at the next glance
    absl::Duration next_read;
  };
  struct Behind {
    SegmentName name;
    uint32_t file_pages = 0;
    uint32_t end_page = 1;
    bool sealed = false;
    uint32_t failures = 0;  // in a row, to read it
    absl::Duration next_try;
  };

  absl::StatusOr<PoolReport> LastManifest(const NodeLife& life);
  absl::Status LookForMembers();
  std::vector<std::pair<Digest128, std::vector<SegmentName>>> TakeAbsentLocked(
      const std::map<Digest128, NodeLife>& members, absl::Duration now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LookAt(Node& node, TailNews* news);
  absl::Status TakeHead(Node& node, const PoolReport& head, TailNews* news);
  void TakeSegments(Node& node, const PoolReport* manifest, const PoolReport& head);
  void TakeRecords(const ReportedSegment& segment, absl::Span<const IndexedRecord> records);
  void DoubtRecords(const ReportedSegment& segment);
  void TakeGenerations(Node& node,
                       const std::vector<ReportedGeneration>& generations,
                       TailNews* news);
  absl::Status ReadBehind();
  void NoteHeard();
  [[nodiscard]] absl::Duration IntervalOf(const Node& node, absl::Duration now) const;
  std::vector<Digest128> DueNodes();

  // ---- pool_tailer_bulletins.cc
  void ChooseAllTellers(absl::Duration now);
  absl::Status ReadBulletins(TailNews* news);
  absl::Status ReadBulletinOf(Teller& teller, TailNews* news);
  void TakeExcerpt(const PoolReport& excerpt, absl::Duration now, TailNews* news);
  absl::Status WriteBulletin();
  [[nodiscard]] bool IsTold(const Node& node, absl::Duration now) const;
  [[nodiscard]] bool TellsOf(const Digest128& node) const;

  const PoolTailerOptions options_;
  const PoolAccess access_;
  PoolCatalogue& catalogue_;
  // Written by rounds alone, under the lock; rounds read without it.
  mutable absl::Mutex mutex_;
  std::map<Digest128, Node> nodes_;
  std::vector<NodeLife> lives_;
  std::vector<NodeLife> claimed_;
  std::map<SegmentName, Behind> behind_;
  bool listed_once_ = false;
  bool all_heard_ = false;  // so far as they can be
  absl::Duration next_list_;
  // ---- of rounds alone
  absl::Duration next_scan_;
  absl::Duration last_scan_;
  double allowance_ = 0;         // calls
  std::vector<Teller> tellers_;  // by group; empty in a small fleet
  PoolChronicle chronicle_;      // of the groups that this node tells of
  absl::Duration next_bulletin_;
  uint64_t bulletin_serial_ = 0;
  // ---- under the lock
  std::optional<NodeLife> life_;
  PoolTailerFigures figures_;
};

}  // namespace terrace
