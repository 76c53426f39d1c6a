// Writes this node's folder of a pool: segments, and the reports that let others find them.
//
// A record is copied into a buffer of PoolFiles, which ends the use of its slot, written with its
// neighbours, synced, and then named by a head: from then on it is published. Records of a segment
// are published in its order. After a failed write or sync a segment ends where it was published
// to.
//
// Threads: thread-safe. Begin and Work block in PoolFiles::Call and are called by one thread at a
// time; nothing else blocks. Callbacks as of SharedTier.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/shared/pool_catalogue.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_reports.h"
#include "tiers/shared/pool_tailer.h"
#include "tiers/vocab/deferred_calls.h"
#include "tiers/vocab/executor.h"

namespace terrace {

struct PoolWriterOptions {
  uint64_t segment_bytes = uint64_t{256} << 20;
  uint64_t batch_bytes = uint64_t{8} << 20;
  uint32_t write_depth = 6;  // batches in flight, copied or written
  uint64_t max_publishing_bytes = uint64_t{256} << 20;
  absl::Duration head_interval = absl::Milliseconds(750);
  absl::Duration heartbeat = absl::Seconds(20);  // between two heads, at most
  absl::Duration retry_interval = absl::Seconds(1);
  absl::Duration grace = absl::Seconds(60);
  uint32_t segments_a_head = 32;  // that changed since the manifest; then there is a new one
};

struct PoolWriterParts {
  PoolAccess access;
  PoolCatalogue* catalogue = nullptr;
  Executor* hashing = nullptr;
  // There is something to do that somebody waits for. Runs on any thread, without a lock.
  std::function<void()> wake = [] {};
};

struct PoolWriterFigures {
  uint64_t published = 0;
  uint64_t published_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t write_faults = 0;
  uint64_t heads = 0;
  uint64_t manifests = 0;
  uint64_t removed_segments = 0;
  uint64_t rotten = 0;     // slots whose bytes were not what their checksum says
  uint64_t own_bytes = 0;  // files, those about to be removed included
  uint64_t own_segments = 0;
  uint64_t waiting_bytes = 0;  // taken, and not written yet
  std::string last_fault;
};

// What a failed call of the file system is to those whose blocks it concerns.
WriteOutcome OutcomeOfFailure(const absl::Status& status);

class PoolWriter {
 public:
  PoolWriter(const PoolWriterOptions& options, const PoolWriterParts& parts);
  ~PoolWriter();  // Close, or Abandon, has ended what was waiting

  // Begins a life: the folder, a manifest of what is taken over, a head, the member file; then the
  // lives in `ended` are not members any more. ALREADY_EXISTS: take another epoch.
  absl::Status Begin(const NodeLife& life,
                     const WholeReport& taken_over,
                     const std::vector<NodeLife>& ended);
  // Nothing is written any more by this life: another node has taken over what it published, or
  // another daemon uses its name. What waits is kClosed.
  void Fence(const std::string& because);

  // As SharedTier has them.
  void Publish(const WriteRequest& request,
               const Digest128& fingerprint,
               std::function<void()> released,
               std::function<void(WriteOutcome)> done);
  void AddKills(const std::vector<Kill>& kills, std::function<void(WriteOutcome)> done);
  void AddGeneration(const RaisedGeneration& raised, std::function<void(absl::Status)> done);
  // From others: repeated, so that it outlives them.
  void Repeat(const std::vector<RaisedGeneration>& raised);
  [[nodiscard]] std::vector<RaisedGeneration> Generations() const;
  // Segments and kills of a dead node's life become this one's. `done` when a head has said so.
  void Adopt(const WholeReport& whole, std::function<void(bool)> done);
  // How often this node read from segments lately; replaces what was said before.
  void SetHeats(std::vector<ReportedHeat> heats);

  // Nobody is to read these any more; their files are removed after the grace period. Open ones
  // stay.
  void Retire(const std::vector<SegmentName>& names);
  // Whether new segments may be made. While they may not, what finds no room is kNoSpace.
  void SetRoom(bool there_is_room);

  // Whether Work would do anything now.
  [[nodiscard]] bool WantsWork();
  // UNAVAILABLE, DEADLINE_EXCEEDED: the mount. Other faults cost what they concern.
  absl::Status Work();

  // Takes nothing any more; Work goes on until `Closed`.
  void Close();
  [[nodiscard]] bool Closed() const;
  // A call that was given up may still happen, and put an older head in the place of the last one:
  // it is written again.
  void SayAgain();
  // What waits ends with `outcome`; what is being written does when its call ends.
  void Abandon(WriteOutcome outcome);
  // No call is in flight, and nothing waits.
  [[nodiscard]] bool Idle() const;

  [[nodiscard]] PoolWriterFigures figures() const;
  // Sealed or cut, and not retired.
  [[nodiscard]] std::vector<ReportedSegment> Reclaimable() const;
  [[nodiscard]] NodeLife life() const;

 private:
  // A block on its way.
  struct Pending {
    OwnedIdentity identity;
    std::string parent;
    std::string metadata;
    uint64_t first_token = 0;
    uint32_t tokens = 0;
    absl::Span<const char> slot;
    uint32_t payload_bytes = 0;
    uint32_t pages = 0;
    Digest128 checksum;
    Digest128 fingerprint;
    Awaited awaited = Awaited::kYes;
    uint32_t page = 0;
    uint64_t sequence = 0;
    bool rotten = false;
    bool counted = true;  // in waiting_bytes
    absl::Duration deadline;
    std::function<void()> released;  // null once it has run
    std::function<void(WriteOutcome)> done;
  };
  struct Segment;
  struct Batch {
    Segment* segment = nullptr;
    std::vector<std::unique_ptr<Pending>> records;
    std::shared_ptr<PoolBuffer> buffer;  // owners: the batch and the call
    uint32_t first_page = 0;
    uint32_t end_page = 0;
    bool ended = false;
    absl::Status status;
  };
  struct Segment {
    SegmentName name;
    ReportedState state = ReportedState::kOpen;
    uint32_t file_pages = 0;
    uint32_t next_page = 1;     // where the next record is placed
    uint32_t written_page = 1;  // all before is written
    uint32_t synced_page = 1;
    uint32_t placed_records = 0;
    uint32_t synced_records = 0;
    std::vector<IndexedRecord> records;  // synced; kept while heads list them
    std::vector<std::unique_ptr<Pending>> written;
    std::vector<std::unique_ptr<Pending>> synced;  // not in a head yet
    std::deque<std::unique_ptr<Batch>> batches;    // in the order of their pages
    bool detached = false;                         // nothing more is placed in it
    bool failed = false;                           // nothing more of it is published
    bool changed = true;                           // since the manifest
    absl::Duration gone_at = absl::InfiniteDuration();
    bool removed = false;
  };

  // ---- pool_writer.cc
  WriteOutcome RefusalLocked(const Digest128& fingerprint, uint64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool FitsLocked(const Segment& segment, uint32_t pages, uint32_t more_records) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Batch> FillBatchLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static Priority PriorityOf(const Batch& batch);
  void CopyBatch(Batch* batch);
  void BatchEnded(Batch* batch, const absl::Status& status);
  void AdvanceLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StopCountingLocked(Pending& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndPendingLocked(std::unique_ptr<Pending> pending,
                        WriteOutcome outcome,
                        DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DetachLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeOverLocked(const ReportedSegment& reported) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteFaultLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- pool_writer_files.cc: what Work does
  absl::Status OpenSegment();
  absl::Status SyncWritten();
  absl::Status SyncSegment(Segment& segment);
  void EndUnsyncedLocked(Segment& segment,
                         std::vector<std::unique_ptr<Pending>> covered,
                         DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing is written into it any more, and nobody has been told.
  [[nodiscard]] bool EndsLocked(const Segment& segment) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] IndexedRecord IndexedOf(uint32_t number, const Pending& pending) const;
  // `fresh`: records behind those that are synced.
  absl::Status WriteFooter(const Segment& segment,
                           absl::Span<const IndexedRecord> fresh,
                           uint32_t end_page);
  absl::Status PublishReports();
  absl::Status WriteManifest();
  absl::Status WriteHead();
  absl::Status RemoveGone();
  // The folders that it was in, where it was the last in them.
  absl::Status LeaveFolders(const SegmentName& removed);
  absl::Status LeaveEarlierLife(const NodeLife& earlier);
  [[nodiscard]] PoolReport HeadLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] PoolReport ManifestLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] ReportedSegment ReportOf(const Segment& segment) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool WantsSegmentLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool WantsReportLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IsAwaitedAndIdleLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PoolWriterOptions options_;
  const PoolWriterParts parts_;
  mutable absl::Mutex mutex_;
  NodeLife life_ ABSL_GUARDED_BY(mutex_);
  uint64_t life_id_ ABSL_GUARDED_BY(mutex_) = 0;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool fenced_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool room_ ABSL_GUARDED_BY(mutex_) = true;
  uint64_t serial_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t manifest_ ABSL_GUARDED_BY(mutex_) = 0;       // that heads build on
  uint32_t last_manifest_ ABSL_GUARDED_BY(mutex_) = 0;  // that was tried: its name is used
  uint32_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  std::string group_made_;  // the folder of the last segment that was made; Work's alone
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  // Pointers into it are stable; what is removed goes in Work alone.
  std::map<SegmentName, std::unique_ptr<Segment>> segments_ ABSL_GUARDED_BY(mutex_);
  Segment* current_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Segment* spare_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::deque<std::unique_ptr<Pending>> queue_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<Digest128> publishing_ ABSL_GUARDED_BY(mutex_);
  uint32_t batches_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Kill> kills_ ABSL_GUARDED_BY(mutex_);
  size_t kills_in_manifest_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<Digest128, uint64_t> generations_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<Digest128> generations_changed_
      ABSL_GUARDED_BY(mutex_);  // since the manifest
  std::vector<ReportedHeat> heats_ ABSL_GUARDED_BY(mutex_);
  // What the next head has to say before these are told.
  std::vector<std::function<void(bool)>> told_by_head_ ABSL_GUARDED_BY(mutex_);
  bool dirty_ ABSL_GUARDED_BY(mutex_) = false;  // a head has something new to say
  absl::Duration last_head_ ABSL_GUARDED_BY(mutex_);
  // When it was first seen that the next head has something to say; infinite: it has not.
  absl::Duration news_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  uint32_t awaited_ ABSL_GUARDED_BY(mutex_) = 0;  // blocks that somebody waits for
  uint32_t waking_ ABSL_GUARDED_BY(mutex_) = 0;   // calls of `wake` that have not returned
  absl::Duration retry_at_ ABSL_GUARDED_BY(mutex_);
  PoolWriterFigures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
