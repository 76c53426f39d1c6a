// A pool on a file system that a whole fleet reads and writes: what any node published is found by
// every node.
//
// What it promises: a block that is delivered is byte for byte what its writer published under that
// identity, or it is a miss, whatever a node, a cache of the file system or a foreign hand did to
// the files. What was reported kWritten outlives this node. A lookup never touches the file system.
// Nothing here waits for the mount without a deadline, and a mount that hangs costs misses. Nothing
// is written, replaced or removed outside this node's own folder, but its member file.
//
// What it does not promise: that a block stays; that another node sees it at once (it looks every
// poll_interval, more rarely at nodes that are quiet); that a block deleted or cleared on one node
// is a miss on another before that has looked.
//
// Threads: thread-safe. No call but OpenSharedTier blocks. Callbacks run on threads of PoolFiles,
// of the executors or the caller's, once, without a lock of the tier, and must only hand work on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/segment/segment_tier.h"
#include "tiers/shared/pool_files.h"
#include "tiers/shared/pool_protection.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

enum class PoolState : uint8_t {
  kOpening = 1,     // looking for the pool; all are misses
  kCatchingUp = 2,  // serves; what other nodes published is not all known yet
  kOnline = 3,
  kSuspended = 4,  // the mount does not answer: all are misses, tried again by itself
  // What lies under the path is another pool, or none, or is protected in another way or with
  // another secret: nothing is touched.
  kForeign = 5,
  kClosed = 6,
};

struct PoolNodeView {
  Digest128 node;
  bool self = false;
  uint64_t epoch = 0;
  uint64_t segments = 0;
  uint64_t bytes = 0;            // of their files
  uint64_t records = 0;          // known here
  absl::Duration silence;        // since what it says of itself last changed
  uint64_t behind_segments = 0;  // whose records are not known here yet
};

// A file of this node that may be given up for room.
struct PoolSegmentView {
  std::string path;  // below the pool's folder
  uint64_t bytes = 0;
  uint64_t records = 0;
  std::optional<double> heat;  // reads by all nodes, fading; nullopt: too young to be judged
};

struct SharedTierFigures {
  PoolState state = PoolState::kOpening;
  std::string last_fault;  // "": none
  Digest128 pool_uuid;
  PoolAuth auth = PoolAuth::kNone;  // as configured
  uint64_t capacity_bytes = 0;  // of the whole pool
  uint64_t pool_bytes = 0;      // segments of all nodes, as far as known
  uint64_t own_bytes = 0;
  uint64_t nodes = 0;
  uint64_t segments = 0;         // of all nodes
  uint64_t records = 0;          // found by lookups
  uint64_t catalogue_bytes = 0;  // of memory
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t read_calls = 0;  // of the file system: adjacent records share one
  uint64_t read_faults = 0;
  uint64_t corrupt = 0;  // records that were damaged, foreign or stale: misses
  uint64_t forged =
      0;  // among them: sound, and not sealed by a node of this pool for this identity
  uint64_t published = 0;
  uint64_t published_bytes = 0;  // payload
  uint64_t written_bytes = 0;    // headers, padding and footers included
  uint64_t write_faults = 0;
  uint64_t heads_read = 0;
  uint64_t footers_read = 0;
  uint64_t segments_scanned = 0;  // by their headers
  uint64_t reclaimed_segments = 0;
  uint64_t adopted_nodes = 0;
  uint64_t orphans_removed = 0;  // files that earlier lives of this node left
  PoolFilesFigures files;
};

// A namespace's generation, as it travels.
struct RaisedGeneration {
  Digest128 namespace_digest;
  uint64_t generation = 0;
  friend bool operator==(const RaisedGeneration&, const RaisedGeneration&) = default;
};

class SharedTier : public LowerTier {
 public:
  // Whether any node published the block, also while the pool cannot be read: whether publishing it
  // again would gain anything. From memory.
  [[nodiscard]] virtual bool Holds(const BlockIdentity& identity) const = 0;

  // Publishes a block. Of the slot only the payload is read, and nothing is written: the local tier
  // may be writing the block at the same time. `released`: the slot is not needed any more, which
  // is before it is written, and before `done`. `done` once other nodes can find it and it outlives
  // this one (kWritten), or will not. kHeld: somebody published it meanwhile. kBusy:
  // max_publishing_bytes wait already. kFault: the mount.
  virtual void Publish(const WriteRequest& request,
                       std::function<void()> released,
                       std::function<void(WriteOutcome)> done) = 0;

  // Hides the blocks here at once; `done(kWritten)` when other nodes can learn of it, and it
  // outlives this one. At most SegmentTier::kMaxDeletes; copied.
  virtual void Delete(absl::Span<const BlockIdentity> identities,
                      std::function<void(WriteOutcome)> done) = 0;

  // Blocks of older generations are not found here any more. `done(OK)` when other nodes can learn
  // of it; UNAVAILABLE: the pool cannot be written, say it again.
  virtual void RaiseGeneration(const RaisedGeneration& raised,
                               std::function<void(absl::Status)> done) = 0;
  // Whether every node that is alive has learned of it.
  [[nodiscard]] virtual bool SeenByAll(const RaisedGeneration& raised) const = 0;
  // What other nodes raised, and what earlier lives of this one did; also all of it once, soon
  // after the call. On the maintenance executor. nullptr: nobody is told, and nobody is being told
  // any more when this returns.
  using LearnGenerations = std::function<void(const std::vector<RaisedGeneration>& news)>;
  virtual void WatchGenerations(LearnGenerations learn) = 0;

  // Makes time pass: polls, deadlines, reclaim. At least every 50 ms.
  virtual void Tick() = 0;

  // Publishes what was taken and seals what is open, as far as the mount lets it until `deadline`;
  // nothing is taken any more. `done` in any case soon after.
  virtual void Close(absl::Duration deadline, std::function<void(absl::Status)> done) = 0;

  [[nodiscard]] virtual SharedTierFigures figures() const = 0;
  [[nodiscard]] virtual std::vector<PoolNodeView> Nodes() const = 0;
  // What this node would give up for room, in that order. Nothing is done.
  [[nodiscard]] virtual std::vector<PoolSegmentView> ReclaimOrder() const = 0;
};

struct SharedTierOptions {
  std::string name = "g4";
  Digest128 node;  // this one, for ever; random, kept by the owner
  // Zero: any pool, and one is made where the folder is empty. Otherwise nothing but this one.
  Digest128 expected_pool;
  uint64_t capacity_bytes = 0;    // of the whole pool
  uint64_t node_share_bytes = 0;  // of this node's segments; 0: capacity / nodes
  uint64_t free_reserve_bytes = uint64_t{1} << 30;
  uint64_t segment_bytes = uint64_t{256} << 20;
  uint64_t max_payload_bytes = uint64_t{16} << 20;
  uint64_t max_publishing_bytes = uint64_t{256} << 20;  // taken and not written yet
  uint32_t max_reads = 256;
  // Adjacent records are read together up to here: two of 2 MiB. Larger calls end together, and
  // what was asked for first not before what was asked for next.
  uint64_t merge_read_bytes = (uint64_t{4} << 20) + (uint64_t{64} << 10);
  absl::Duration poll_interval = absl::Milliseconds(750);
  // What is new is told by a head within this; after a twelfth of it where somebody waits and
  // nothing more is on its way.
  absl::Duration head_interval = absl::Milliseconds(750);
  absl::Duration quiet_poll_interval = absl::Milliseconds(1500);  // of nodes silent for long
  uint32_t bulletins_from = 128;  // nodes; in a larger fleet a few tell of the others
  absl::Duration members_interval = absl::Seconds(5);             // between two looks for new nodes
  absl::Duration call_deadline = absl::Seconds(10);               // of one call of the file system
  absl::Duration grace = absl::Seconds(60);       // between a segment's tombstone and its removal
  absl::Duration dead_after = absl::Minutes(10);  // a node that says nothing may be adopted
};

// Borrowed; they outlive the tier.
struct SharedTierParts {
  PoolFiles* files = nullptr;
  const Clock* clock = nullptr;
  Executor* hashing = nullptr;
  const PoolSecret* secret = nullptr;  // nullptr: the pool is not protected
  Executor* maintenance = nullptr;  // its threads block in PoolFiles::Call; at least two
  // Nullable; each on the maintenance executor, once it is known which pool it is. The first
  // returns where the catalogue is kept, or nullptr: then every start reads the pool's footers. The
  // second lets the owner remember the pool.
  std::function<BlockIndex*(const Digest128& pool)> open_index;
  std::function<void(const Digest128& pool)> opened;
};

// Never blocks on the mount: the pool is looked for afterwards, again and again. INVALID_ARGUMENT:
// an option, naming it.
absl::StatusOr<std::unique_ptr<SharedTier>> OpenSharedTier(const SharedTierOptions& options,
                                                           const SharedTierParts& parts);

}  // namespace terrace
