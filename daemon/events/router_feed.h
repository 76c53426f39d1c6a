// Turns what one StoreWatcher tells into what routers understand. Routers know hashes and media and
// nothing else, so:
//
// - A block is named by its hash and its group. What differs in salt or label alone has one name.
//   Of namespaces that differ in their shard only the first shard is told of, because the others
//   of its family come and go with it.
// - kMoved is stored at the new medium, then removed at the old one. kRemoved is removed at every
//   medium at which something was told. kStored says nothing of the other medium: a router may hold
//   a block to be on the drive, too, until the block's next event.
// - Blocks of which an engine told all tokens are told with them, their parent and their size. Of
//   others vLLM's offloading says token_ids [] and block_size 0, and so it is here; snapshots
//   consist of these, as metadata is not kept. Several of them may share an event, which then says
//   nothing of their order.
// - kCleared is AllBlocksCleared, which has no namespace. Where others had been told of, all that
//   is held is told again. So it is after kGap, and at the beginning.
//
// Between AllBlocksCleared and the end of the snapshot routers know too little, and never too much.
// Snapshots begin kSnapshotPause apart, however often there is a reason for one.
//
// Confined to one thread at a time. Never blocks. To be destroyed before the store.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/events/router_event.h"
#include "daemon/store_events.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr absl::Duration kSnapshotPause = absl::Seconds(1);

class RouterFeed {
 public:
  struct Options {
    std::string model;  // pattern; "": every model
    std::string dram_medium;
    std::string local_medium;
  };
  using Watch = std::function<absl::StatusOr<std::unique_ptr<StoreWatcher>>(WatchCall)>;
  struct Figures {
    uint64_t snapshots = 0;
    uint64_t watch_refusals = 0;
  };

  // `clock` outlives the feed.
  RouterFeed(Options options, Watch watch, const Clock& clock);

  // Appends what there is to tell; the last event that is there may grow. kIdle: nothing now;
  // kBusy: it is worth asking again at once.
  enum class Step : uint8_t { kIdle, kBusy };
  Step Next(std::vector<RouterEvent>* out);

  [[nodiscard]] const Figures& figures() const { return figures_; }

 private:
  struct Described {
    bool is_told = false;  // the model is wanted, and it is the first shard
    uint32_t group = 0;
    std::string key_suffix;
    std::string spec_kind;
  };

  void Describe(const WatchedNamespace& ns);
  // False: all has to be told anew, and the rest of the batch says nothing more.
  bool Tell(const StoreEvent& event, std::vector<RouterEvent>* out);
  bool TellCleared(const Digest128& digest, std::vector<RouterEvent>* out);
  void TellStored(const StoreEvent& event, const Described& ns, std::vector<RouterEvent>* out);
  void TellRemoved(const StoreEvent& event,
                   const Described& ns,
                   const std::string& medium,
                   std::vector<RouterEvent>* out);
  // Whether the last event of `out` now says it, too.
  bool Join(RouterEvent& event, std::vector<RouterEvent>* out);
  void TellAllCleared(std::vector<RouterEvent>* out);
  [[nodiscard]] const std::string& MediumOf(const StoreEvent& event) const;

  const Options options_;
  const Watch watch_;
  const Clock& clock_;
  Figures figures_;
  std::unique_ptr<StoreWatcher> watcher_;  // nullptr: a snapshot is due at next_snapshot_
  bool begun_ = false;
  bool in_snapshot_ = false;
  absl::Duration next_snapshot_;
  absl::flat_hash_map<Digest128, Described> namespaces_;
  // Since the last AllBlocksCleared.
  absl::flat_hash_set<Digest128> told_;
  absl::flat_hash_set<std::string> media_;
  // Hashes of the last event that was appended, where others may join it.
  absl::flat_hash_set<std::string> joined_;
};

}  // namespace terrace
