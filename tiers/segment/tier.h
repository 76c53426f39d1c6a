// The state of a segment tier; segment_tier.h is its door. Private to the room.
//
// One lock guards all state but the record table, which lookups read. Work that leaves the lock
// (transfers, jobs of executors, callbacks) is collected in a DeferredCalls and runs when it is
// given back. Segments live as long as the tier; what is in flight in one pins it.
//
// The life of a segment: kFree -> kOpening (its head is written durably) -> kAhead (of a writer
// whose segment has room still) -> kOpen -> kSealing (no more records; the footer follows when the
// last transfer has ended) -> kSealed -> kReclaiming -> kFree, or kRetired for the rest of this
// life.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"

#include "tiers/segment/record_check.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/record_table.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/segment_scan.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/segment/tier_folder.h"
#include "tiers/vocab/deferred_calls.h"

namespace terrace {

// A record on its way into a segment.
struct Append {
  RecordKind kind = RecordKind::kBlock;
  OwnedIdentity identity;
  std::string parent;
  std::string metadata;  // copied, also when it travels behind the payload
  uint32_t metadata_bytes = 0;
  Digest128 metadata_checksum;
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  uint32_t payload_bytes = 0;
  Digest128 checksum;
  absl::Span<char> record;  // header page and padded payload
  AlignedBuffer own;        // that memory, when the tier made the record
  AlignedBuffer extra;      // metadata pages
  absl::Duration deadline = absl::InfiniteDuration();
  Digest128 fingerprint;
  uint64_t sequence = 0;  // 0: given when it is placed
  uint32_t segment = 0;   // where it was placed
  uint32_t page = 0;
  uint32_t pages = 0;
  bool is_rewrite = false;  // of what lies at `old_place`
  RecordPlace old_place;
  bool deleted = false;  // Delete came meanwhile
  std::function<void(WriteOutcome, const LowerBlock&)> done;
};

struct Segment;

// Records that lie one behind the other, in one transfer.
struct Batch {
  Segment* segment = nullptr;
  std::vector<std::unique_ptr<Append>> appends;
  uint64_t bytes = 0;
  bool submitted = false;
  bool ended = false;
  absl::Status status;
};

enum class Stage : uint8_t {
  kFree,
  kOpening,
  kAhead,
  kOpen,
  kSealing,
  kSealed,
  kReclaiming,
  kUnproven,
  kRetired,  // damaged too often
  kRemoving  // its file goes, and then the segment
};

struct Segment {
  uint32_t number = 0;
  uint64_t epoch = 0;          // of what the file holds; 0: nothing
  SegmentRole role = SegmentRole::kBlocks;
  std::shared_ptr<File> file;  // and every operation on it
  Stage stage = Stage::kFree;
  uint32_t end_page = 1;     // behind the last record that was reported written
  uint32_t synced_page = 1;  // what lies before survives a power loss
  uint64_t live_pages = 0;
  uint32_t live_records = 0;
  uint32_t corrupt_records = 0;
  uint32_t tombstone_pages = 0;
  uint64_t newest_tombstone = 0;  // its sequence
  uint32_t pins = 0;              // reads in flight
  bool free_when_unpinned = false;
  bool reclaim_failed = false;  // tried again when another one was freed, or later

  // While it is written, and until its footer is durable:
  std::vector<IndexedRecord> entries;
  uint32_t indexed_entries = 0;  // of these, how many the index was given
  uint32_t next_page = 1;        // behind the last record that was placed
  uint32_t placed_records = 0;
  std::deque<std::unique_ptr<Append>> placed;  // not in a batch yet
  // Shared with the completions of their transfers.
  std::deque<std::shared_ptr<Batch>> batches;
  uint32_t batches_in_flight = 0;
  bool failed = false;  // nothing behind end_page counts
  bool footer_begun = false;
};

// Where records of one heat go next; the last two take what the tier itself writes.
struct Writer {
  Segment* segment = nullptr;
  Segment* ahead = nullptr;  // where it goes on when `segment` is full
  uint32_t ahead_from_page = 0;  // of `segment`: looked for one again when it is filled that far
  bool opening = false;
  std::deque<std::unique_ptr<Append>> waiting;
};

inline constexpr uint32_t kLargeTier = 16;  // segments
// The last one in so many parts of a segment is what is left to fill while the next one is opened.
inline constexpr uint32_t kAheadShare = 4;

// A segment that is being emptied. Guarded by the tier's lock but for `records` and
// `rewritten_pages`, which the one job that runs has.
struct Reclaim {
  Segment* victim = nullptr;
  double live_share = 1;  // of it, when it was chosen
  bool scanned = false;
  std::vector<IndexedRecord> records;
  uint32_t rewritten_pages = 0;
  size_t next = 0;
  uint32_t in_flight = 0;
  bool job_runs = true;
  bool ending = false;
  bool must_stay = false;  // what may not be lost could not be rewritten
  bool retires = false;    // whatever is sound is kept, and the segment is not used again
};

struct ReadOperation;
struct MetadataRead;
struct ScrubPass;

class Tier final : public SegmentTier {
 public:
  Tier(const SegmentTierOptions& options,
       SegmentTierParts parts,
       std::unique_ptr<TierFolder> folder);
  Tier(const Tier&) = delete;
  Tier& operator=(const Tier&) = delete;
  // Waits until nothing is in flight.
  ~Tier() override;

  // To be called once, before any other; blocks.
  absl::Status Start();

  [[nodiscard]] std::string_view name() const override { return options_.name; }
  bool Lookup(const BlockIdentity& identity, LowerBlock* out) override;
  [[nodiscard]] bool Holds(const BlockIdentity& identity) const override;
  bool NoteUse(const BlockIdentity& identity) override;
  uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) override;
  void Cancel(uint64_t token) override;
  [[nodiscard]] absl::Duration EstimateRead(uint64_t bytes) const override;

  void Write(const WriteRequest& request,
             std::function<void(WriteOutcome, const LowerBlock&)> done) override;
  void Delete(absl::Span<const BlockIdentity> identities,
              std::function<void(WriteOutcome, uint32_t)> done) override;
  void PutNote(std::string_view name,
               std::string_view value,
               std::function<void(WriteOutcome)> done) override;
  [[nodiscard]] std::vector<Note> Notes() const override;
  void Sync(std::function<void(absl::Status)> done) override;
  void Scrub(ScrubPace pace, std::function<void(const ScrubResult&)> done) override;
  [[nodiscard]] ScrubProgress scrub_progress() const override;
  void ReadMetadata(const BlockIdentity& identity,
                    absl::Duration deadline,
                    std::function<void(ReadOutcome, const RecordMetadata&)> done) override;
  void Tick() override;
  void Close(std::function<void(absl::Status)> done) override;
  [[nodiscard]] SegmentTierFigures figures() const override;
  [[nodiscard]] std::vector<SegmentView> Sealed() const override;
  [[nodiscard]] Digest128 uuid() const override { return folder_->superblock().uuid; }
  void WatchNotes(LearnNotes /*learn*/) override {}  // they are complete from the start
  void WatchChanges(LearnChanges learn) override;
  void List(const ListPlace& from,
            std::function<void(const ListPlace& next, std::vector<NamedBlock>)> done) override;
  [[nodiscard]] std::vector<DriveView> Drives() const override;

 private:
  struct NoteState {
    std::string value;
    uint64_t sequence = 0;
    uint32_t segment = 0;
    uint32_t page = 0;
  };
  struct SyncRound {
    uint32_t left = 0;
    absl::Status status;
    std::vector<std::function<void(absl::Status)>> done;
  };

  // ---- tier.cc: life, time, figures
  Segment* AdoptLocked(SegmentFile file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CheckPathLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpAllLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeEndCloseLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] TierState StateLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Runs on the maintenance executor; the tier outlives it.
  void RunJobLocked(Priority priority, std::function<void()> job, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void JobEnded();
  [[nodiscard]] bool IdleLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return jobs_ == 0 && transfers_ == 0;
  }
  uint64_t NextSequenceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ++sequence_; }
  [[nodiscard]] Digest128 FingerprintOf(const BlockIdentity& identity) const;
  // How far the log is, in 256ths of a segment: what RecordPlace::used_at counts in.
  [[nodiscard]] uint32_t LogPosition() const;
  [[nodiscard]] double UnusedShare(const RecordPlace& place) const;
  void ForgetPlaceLocked(const RecordPlace& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountPlaceLocked(const RecordPlace& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteFaultLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteIndexLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void IndexJob(const BlockIndex::Batch& batch);
  void CloseJob();

  // ---- tier_sync.cc
  [[nodiscard]] bool AnyDirtyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartSyncLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitSync(Segment& segment, uint32_t end_page, const std::shared_ptr<SyncRound>& round);
  void SyncEnded(Segment& segment,
                 uint32_t end_page,
                 const std::shared_ptr<SyncRound>& round,
                 absl::Status status);
  void DropUnsyncedLocked(Segment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- tier_read.cc
  void SubmitRead(const std::shared_ptr<ReadOperation>& read);
  void ReadEnded(const std::shared_ptr<ReadOperation>& read, const IoCompletion& completion);
  void VerifyRead(const std::shared_ptr<ReadOperation>& read, uint64_t bytes);
  void EndRead(const std::shared_ptr<ReadOperation>& read, ReadOutcome outcome);
  void UnpinLocked(Segment& segment, DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What was found at a record's place is not the record: it is a miss from now on. True: it was
  // held. `name`: nullptr: not known.
  bool QuarantineLocked(Segment& segment,
                        const Digest128& fingerprint,
                        const RecordPlace& place,
                        const OwnedIdentity* name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountFaultLocked(RecordFault fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- tier_metadata.cc
  void SubmitMetadata(const std::shared_ptr<MetadataRead>& read);
  void MetadataEnded(const std::shared_ptr<MetadataRead>& read, const IoCompletion& completion);
  void EndMetadata(const std::shared_ptr<MetadataRead>& read, ReadOutcome outcome);

  // ---- tier_list.cc
  void NoteChangedLocked(NamedBlock block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteUnnamedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeTellChangesLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellChanges();
  // The name of a block's record that the segment of this epoch held; nullopt: it cannot be read.
  // Blocks.
  [[nodiscard]] std::optional<NamedBlock> ReadName(File& file,
                                                   uint64_t epoch,
                                                   const IndexedRecord& record) const;
  // Of the victim's blocks that are held there still. Blocks.
  std::vector<NamedBlock> ReadNames(const Reclaim& reclaim, Unnamed* unnamed);
  // The first one from `place` on that may hold blocks; pins it. nullptr: there is none.
  Segment* NextToListLocked(ListPlace* place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ListJob(const ListPlace& from,
               const std::function<void(const ListPlace& next, std::vector<NamedBlock>)>& done);

  // ---- tier_breaker.cc: reads are suspended while the medium fails all of them
  void UpdateServingLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadSucceededLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { read_faults_in_a_row_ = 0; }
  void ReadFailedLocked(Segment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeProbeReadsLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ProbeReads();
  void ReadsProbed(const absl::Status& status);

  // ---- tier_scrub.cc
  void BeginScrubLocked(ScrubPace pace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeScrubLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartScrubJobLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ScrubJob(const std::shared_ptr<ScrubPass>& pass);
  // Of the segment that is scrubbed: the next one, or the same if it is still what it was. Pins it.
  Segment* NextToScrubLocked(ScrubPass& pass) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ScrubbedLocked(const IndexedRecord& record, RecordPlace* place) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ScrubRecord(ScrubPass& pass, Segment& segment, const IndexedRecord& record);
  void RestoreNoteLocked(const IndexedRecord& record, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a tier that closes: now, unless its job runs, which then ends it.
  void StopScrubLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndScrubLocked(bool complete, DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- tier_write.cc
  // Why nothing may be written now; kWritten: it may.
  [[nodiscard]] WriteOutcome RefusalLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnqueueLocked(uint32_t writer, std::unique_ptr<Append> append, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpLocked(uint32_t writer, DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: the record is not wanted any more, and has ended.
  bool PlaceLocked(Segment& segment, std::unique_ptr<Append> append, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitBatchesLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitBatch(const std::shared_ptr<Batch>& batch);
  void BatchEnded(const std::shared_ptr<Batch>& batch, absl::Status status);
  void AdvanceLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CommitLocked(Segment& segment, std::unique_ptr<Append> append, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndAppendLocked(std::unique_ptr<Append> append,
                       WriteOutcome outcome,
                       DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndWaitingLocked(uint32_t writer, WriteOutcome outcome, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireWaitingLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DoubtLocked(const Digest128& fingerprint) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<Append> MakeOwnRecord(RecordKind kind,
                                        std::string_view key,
                                        std::string_view payload) const;

  // ---- tier_open.cc: segments begin and end
  [[nodiscard]] uint32_t MaxSegments() const;
  // Whether it is a tier of many segments, which has a few to spare.
  [[nodiscard]] bool IsLarge() const { return MaxSegments() >= kLargeTier; }
  // Segments that could be opened now without reclaim.
  [[nodiscard]] uint32_t AvailableLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Segments beyond the capacity, which an earlier life had.
  [[nodiscard]] uint32_t ExcessLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShrinkLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveJob(uint32_t number);
  [[nodiscard]] bool AnySealingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: there is none.
  bool StartOpenLocked(uint32_t writer, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Before the writer needs it, if there is room enough: its writes then need not wait for a file
  // to be made durable.
  void MaybeOpenAheadLocked(uint32_t writer, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OpenOneLocked(uint32_t writer, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeaveAheadLocked(uint32_t writer, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OpenJob(uint32_t writer, Segment* segment, uint64_t epoch);
  void OpenedLocked(uint32_t writer,
                    Segment* segment,
                    const absl::Status& status,
                    DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BackOffLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool FitsLocked(const Segment& segment, uint32_t pages) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DetachLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeWriteFooterLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FooterJob(Segment* segment, const std::vector<IndexedRecord>& entries, uint32_t end_page);
  void SealedLocked(Segment& segment, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- tier_reclaim.cc
  void MaybeReclaimLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::vector<SegmentView> SealedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::vector<SegmentView> CandidatesLocked() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the reclaim that runs cannot go on before a rewrite ends.
  [[nodiscard]] bool ReclaimWaitsLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetReclaimFailuresLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A sealed segment that was damaged too often; nullptr: there is none.
  [[nodiscard]] Segment* ToRetireLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ChooseJob();
  // What a sealed segment's footer lists; without one, what the table and the headers know. Errors
  // are those of reading; then what the tier itself wrote may be missing.
  absl::Status ListRecords(Segment& segment, std::vector<IndexedRecord>* records) const;
  void ReclaimJob(const std::shared_ptr<Reclaim>& reclaim);
  // False: it is not to be kept, or damaged. Blocks.
  bool ReadForRewrite(Reclaim& reclaim, const IndexedRecord& record, Append* append);
  void ReclaimRecord(const std::shared_ptr<Reclaim>& reclaim, const IndexedRecord& record);
  [[nodiscard]] bool WantedLocked(const Reclaim& reclaim,
                                  const IndexedRecord& record,
                                  RecordPlace* place) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // While it has no segment and there is none to spare: own_writer_, which may take the last.
  [[nodiscard]] uint32_t RescueWriterLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Rewritten(const std::shared_ptr<Reclaim>& reclaim, RecordKind kind, WriteOutcome outcome);
  void MaybeEndReclaimLocked(const std::shared_ptr<Reclaim>& reclaim, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EmptyJob(const std::shared_ptr<Reclaim>& reclaim, uint64_t epoch);
  void EndReclaimLocked(const std::shared_ptr<Reclaim>& reclaim,
                        const absl::Status& status,
                        DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LetGoLocked(const Reclaim& reclaim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FreeLocked(Segment& segment, DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- tier_recover.cc
  void RecoverJob(Segment* segment, const SegmentPosition& position);
  // What one segment holds, found again.
  struct Found {
    std::vector<IndexedRecord> records;
    std::vector<std::pair<uint64_t, std::vector<Digest128>>> tombstones;  // sequence, fingerprints
    std::vector<std::pair<std::string, NoteState>> notes;
    uint32_t end_page = 1;
    bool by_footer = false;
    uint64_t by_index = 0;
    bool unreadable = false;
  };
  Found FindRecords(Segment& segment, const SegmentPosition& position);
  // Takes out what is not whole.
  void VerifyTail(Segment& segment, std::vector<IndexedRecord>* records) const;
  void ReadOwnRecord(const Segment& segment,
                     const IndexedRecord& record,
                     PagesInOrder& pages,
                     Found* found) const;
  void RecoveredLocked(Segment& segment, Found found, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ApplyFoundLocked(const Found& found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SegmentTierOptions options_;
  const SegmentTierParts parts_;
  const std::unique_ptr<TierFolder> folder_;  // its blocking calls are serialised by folder_mutex_
  const uint32_t segment_pages_;
  const uint32_t own_writer_;  // the writer for what the tier itself writes and may not lose
  // For blocks that are written again. The same as own_writer_ in a tier that is too small to have
  // one more segment open; where it is not, starts need not read those blocks before they serve.
  const uint32_t rescue_writer_;

  RecordTable table_;
  std::atomic<uint64_t> appended_pages_;  // what was recovered counts as used one capacity ago
  // Segments without a footer that were read in full.
  std::atomic<uint32_t> verified_tails_{0};
  // Whether lookups may find anything: not detached, not closed, and the medium can be read.
  std::atomic<bool> serving_{true};
  absl::Mutex folder_mutex_;

  mutable absl::Mutex mutex_;
  std::map<uint32_t, std::unique_ptr<Segment>> segments_ ABSL_GUARDED_BY(mutex_);
  std::array<Writer, kMaxHeats + 2> writers_ ABSL_GUARDED_BY(mutex_);
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_);
  uint32_t writes_ ABSL_GUARDED_BY(mutex_) = 0;  // accepted from callers and not ended
  // Blocks on their way into a segment.
  absl::flat_hash_map<Digest128, Append*> writing_ ABSL_GUARDED_BY(mutex_);
  // Identities of writes that were reported failed and may be found again by a later recovery: a
  // Delete of them has to leave a tombstone.
  static constexpr size_t kMaxDoubtful = 65536;
  absl::flat_hash_set<Digest128> doubtful_ ABSL_GUARDED_BY(mutex_);
  bool doubt_all_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, NoteState> notes_ ABSL_GUARDED_BY(mutex_);

  uint32_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t transfers_ ABSL_GUARDED_BY(mutex_) = 0;

  uint32_t recovering_ ABSL_GUARDED_BY(mutex_) = 0;  // segments still to be scanned
  // While recovering: the latest tombstone of each identity.
  absl::flat_hash_map<Digest128, uint64_t> tombstones_ ABSL_GUARDED_BY(mutex_);

  std::shared_ptr<SyncRound> sync_round_ ABSL_GUARDED_BY(mutex_);  // and its transfers
  std::vector<std::function<void(absl::Status)>> sync_waiting_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_sync_ ABSL_GUARDED_BY(mutex_);

  // Held in shared mode while the watcher is asked, so that WatchChanges can wait for its end;
  // never beside mutex_.
  absl::Mutex change_mutex_;
  LearnChanges learn_changes_ ABSL_GUARDED_BY(change_mutex_);
  std::atomic<bool> changes_watched_{false};
  std::vector<NamedBlock> changed_ ABSL_GUARDED_BY(mutex_);  // to be told
  Unnamed unnamed_ ABSL_GUARDED_BY(mutex_) = Unnamed::kNone;
  bool telling_changes_ ABSL_GUARDED_BY(mutex_) = false;

  std::shared_ptr<Reclaim> reclaim_ ABSL_GUARDED_BY(mutex_);  // and its jobs
  bool choosing_ ABSL_GUARDED_BY(mutex_) = false;

  bool index_busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool index_lost_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration last_index_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> forgotten_ ABSL_GUARDED_BY(mutex_);  // segments, for the index

  absl::Duration next_check_ ABSL_GUARDED_BY(mutex_);
  bool checking_ ABSL_GUARDED_BY(mutex_) = false;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration full_until_ ABSL_GUARDED_BY(mutex_);  // no file is made before
  absl::Duration not_ahead_until_ ABSL_GUARDED_BY(mutex_);  // no segment is opened ahead before
  absl::Duration read_only_until_ ABSL_GUARDED_BY(mutex_);
  absl::Duration faulty_until_ ABSL_GUARDED_BY(mutex_);
  uint32_t faults_in_a_row_ ABSL_GUARDED_BY(mutex_) = 0;

  uint32_t read_faults_in_a_row_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reads_suspended_ ABSL_GUARDED_BY(mutex_) = false;
  bool probing_reads_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration next_probe_ ABSL_GUARDED_BY(mutex_);
  absl::Duration probe_pause_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<File> probed_file_ ABSL_GUARDED_BY(mutex_);  // and its segment's

  std::shared_ptr<ScrubPass> scrub_ ABSL_GUARDED_BY(mutex_);  // and its jobs
  absl::Duration next_scrub_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_scrub_turn_ ABSL_GUARDED_BY(mutex_);
  double scrub_allowance_ ABSL_GUARDED_BY(mutex_) = 0;  // bytes; below zero: spent in advance

  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool close_ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void(absl::Status)>> close_waiting_ ABSL_GUARDED_BY(mutex_);

  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, uint64_t> io_tokens_ ABSL_GUARDED_BY(mutex_);  // 0: not yet
  uint32_t reads_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  double bytes_per_second_ ABSL_GUARDED_BY(mutex_) = 0;

  SegmentTierFigures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
