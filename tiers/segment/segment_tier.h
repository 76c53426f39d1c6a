// A tier of segments on one directory: records appended to large files, never changed in place.
//
// What it promises: a block that is delivered is byte for byte what was written under that
// identity, or it is a miss. A block whose write was reported kWritten survives the death of the
// process; one that Sync covered survives the loss of power, and so does one that is older than the
// sync interval, as long as Tick is called. A block whose Delete was reported done does not come
// back. The directory never holds more than the capacity, and nothing in it is formatted,
// overwritten or removed that is not provably the tier's own.
//
// What it does not promise: that a block stays. Whole segments are reclaimed when room is needed; a
// judge says which, and what of it is worth rewriting.
//
// Threads: thread-safe; no call but OpenSegmentTier blocks. The tier has no thread of its own:
// transfers complete on AsyncIo's, longer hashes run on one executor, what blocks on another.
// `done` callbacks run on any of these or on the caller's thread, once, without a lock of the tier,
// and must only hand work on. Times are on the injected clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/os/async_io.h"
#include "tiers/os/file_system.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

// How soon a block is expected to be asked for again; blocks of one heat share segments, so that
// they die together.
enum class Heat : uint8_t { kCold = 0, kWarm = 1, kHot = 2 };
inline constexpr uint32_t kMaxHeats = 3;

enum class WriteOutcome : uint8_t {
  kWritten = 1,   // found again after the death of the process
  kHeld = 2,      // the tier holds the block, or is writing it
  kNoSpace = 3,   // the capacity, the reserve or the disk, and nothing can be reclaimed now
  kBusy = 4,      // as many writes as allowed are waiting
  kReadOnly = 5,  // the file system is; tried again every retry_interval
  kFault = 6,     // the medium failed, or the directory is not the tier's any more
  kDeadline = 7,
  kDeleted = 8,  // Delete came meanwhile
  kClosed = 9,
};

// Where a tier stands, for the operator.
enum class TierState : uint8_t {
  kRecovering = 1,  // serves; what was not found again yet is a miss
  kOnline = 2,
  kReadOnly = 3,
  kFaulty = 4,    // writes fail, or reads are suspended
  kDetached = 5,  // the path leads elsewhere: all are misses until it leads back
  kClosed = 6,
};

// Whether somebody waits for the outcome. Where nobody does, it may come later, together with
// others'.
enum class Awaited : uint8_t { kNo, kYes };

struct WriteRequest {
  BlockIdentity identity;  // copied before Write returns
  // A slot: 4096 bytes of room for the header, then the payload, then room up to a multiple of
  // 4096. 4096-aligned; owned by the write until `done` runs. The header's room and the padding are
  // written to.
  absl::Span<char> slot;
  uint32_t payload_bytes = 0;  // from 1
  Digest128 checksum;          // XXH3-128 of the payload
  std::string_view parent;     // "", or the parent's key
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  std::string_view metadata;  // at most 12 KiB; all text is copied before Write returns
  Heat heat = Heat::kWarm;
  Awaited awaited = Awaited::kYes;
  absl::Duration deadline = absl::InfiniteDuration();
};

struct SegmentView {
  uint32_t number = 0;
  uint64_t epoch = 0;  // rises with every use of a segment: the lower, the older
  uint64_t live_bytes = 0;  // tombstones that have to stay included: to reclaim them gains nothing
  uint64_t used_bytes = 0;
  uint32_t live_records = 0;     // blocks
  uint32_t corrupt_records = 0;  // found by reads
};

struct JudgedRecord {
  BlockIdentity identity;
  std::string_view parent;
  uint64_t first_token = 0;
  LowerBlock block;
  // What was written to the tier since the block was last of use (written, read, or NoteUse), as a
  // share of the capacity. 1 or more: not in this life.
  double unused_share = 0;
  double segment_live_share = 1;  // of live_bytes in the segment's used_bytes, when it was chosen
};

// What reclaim keeps. Called on the maintenance executor, one call at a time, without a lock of the
// tier; must not block.
class ReclaimJudge {
 public:
  virtual ~ReclaimJudge() = default;
  // Position in `sealed`, which is not empty, of the one that is worth least.
  virtual size_t ChooseVictim(absl::Span<const SegmentView> sealed) = 0;
  // Whether a live record of the victim is rewritten. At most max_rewritten_share of a segment is,
  // so that every reclaim gains room; what comes later, or finds none, is lost.
  virtual bool Keep(const JudgedRecord& record) = 0;
};

// Counters since opening, and what is there now.
struct SegmentTierFigures {
  TierState state = TierState::kRecovering;
  std::string last_fault;  // of the medium; "" when none
  TransferFact transfers;
  uint64_t capacity_bytes = 0;
  uint64_t file_bytes = 0;  // of all segments
  uint64_t live_bytes = 0;
  uint64_t records = 0;
  uint32_t segments = 0;
  uint32_t free_segments = 0;
  uint32_t unproven_segments = 0;    // files of our names that are not provably ours: left alone
  uint32_t segments_to_recover = 0;  // still to be scanned
  uint64_t recovered_by_index = 0;
  uint64_t recovered_by_footer = 0;
  uint64_t recovered_by_header = 0;
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t read_faults = 0;
  uint64_t corrupt_headers = 0;
  uint64_t corrupt_payloads = 0;
  uint64_t stale_records = 0;  // a sound header of another record, place or time
  uint64_t writes = 0;
  uint64_t payload_bytes_written = 0;
  uint64_t bytes_written = 0;  // headers, padding, heads, footers and rewritten records included
  uint64_t write_faults = 0;
  uint64_t sync_faults = 0;
  uint64_t records_dropped_by_sync_faults = 0;
  uint64_t reclaimed_segments = 0;
  uint64_t records_rewritten = 0;
  uint64_t records_reclaimed = 0;      // live ones that were let go
  uint64_t rewrites_without_room = 0;  // among them: the judge would have kept them
  uint64_t records_over_share = 0;  // among them: the judge was not asked, see max_rewritten_share
  uint64_t index_faults = 0;           // from the first on, the index is not written any more
  // Reads stopped failing one by one and are misses at once, until a probe succeeds.
  bool reads_suspended = false;
  uint64_t read_suspensions = 0;
  uint64_t reads_refused = 0;  // while they were suspended
  uint64_t scrub_passes = 0;   // that came to their end
  uint64_t scrubbed_records = 0;
  uint64_t scrubbed_bytes = 0;
  uint64_t scrub_corrupt = 0;     // found by a scrub; counted by their kind as well
  uint64_t scrub_unreadable = 0;  // the medium failed: left as they are
  uint64_t notes_restored = 0;    // damaged on the medium, and written again from memory
  uint32_t retired_segments = 0;  // damaged too often, or not removable: not used any more
  uint64_t removed_segments = 0;  // that an earlier, larger capacity had room for
};

struct ScrubResult {
  bool complete = false;  // false: the tier closed meanwhile
  uint64_t records = 0;   // that were read
  uint64_t bytes = 0;
  uint64_t corrupt = 0;     // misses from now on
  uint64_t unreadable = 0;  // the medium failed: left as they are
};

// A directory of a tier, for the operator.
struct DriveView {
  std::string path;
  bool open = false;
  std::string problem;  // why it is not, or what is wrong with it; "": nothing
  // While it is not open: the capacity, and the counters of its earlier openings.
  SegmentTierFigures figures;
  uint64_t pending_deletes = 0;  // not durable on it yet
};

// Of the pass that runs, if one does.
struct ScrubProgress {
  bool running = false;
  uint32_t segments = 0;       // of the pass
  uint32_t segments_done = 0;  // read, or not there any more
  ScrubResult so_far;
};

// kBudget: within scrub_bytes_per_second. kFast: as fast as the medium allows.
enum class ScrubPace : uint8_t { kBudget = 1, kFast = 2 };

// What a record says beside its payload.
struct RecordMetadata {
  std::string parent;  // "", or the parent's key
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  std::string metadata;
};

// A block by name, as its record has it.
struct NamedBlock {
  Digest128 namespace_digest;
  uint64_t generation = 0;
  std::string salt;
  std::string key;
  std::string parent;  // "", or the parent's key
  uint64_t first_token = 0;

  [[nodiscard]] BlockIdentity identity() const { return {namespace_digest, generation, salt, key}; }
};

// How far a list of a tier's blocks has come; the default is its beginning.
struct ListPlace {
  uint32_t drive = 0;
  uint64_t epoch = 0;  // of the segment
  uint32_t record = 0;
  bool over = false;
};

class SegmentTier : public LowerTier {
 public:
  // Whether the block lies here, also while it cannot be read (suspended, detached, closed), when
  // Lookup finds nothing: whether writing it again would gain anything. From memory.
  [[nodiscard]] virtual bool Holds(const BlockIdentity& identity) const = 0;

  // Tells the judge of reclaims that the block was of use until now, as when a faster tier lets go
  // of it. False: it is not held.
  virtual bool NoteUse(const BlockIdentity& identity) = 0;

  // `done` gets where the block lies, with kWritten. A write that ends otherwise left nothing that
  // a lookup finds.
  virtual void Write(const WriteRequest& request,
                     std::function<void(WriteOutcome, const LowerBlock&)> done) = 0;

  // Hides the blocks at once, and for good when `done` gets kWritten (at most max_deletes
  // identities, which are copied). Reads that began before may still deliver. Otherwise the blocks
  // may be back after the process ends: delete again.
  static constexpr uint32_t kMaxDeletes = 2048;
  virtual void Delete(absl::Span<const BlockIdentity> identities,
                      std::function<void(WriteOutcome, uint32_t deleted)> done) = 0;

  // Small values that the tier keeps for its owner through restarts and reclaim: namespace records,
  // generations. Written like blocks; a later value of the name replaces the earlier.
  static constexpr uint32_t kMaxNoteBytes = 64 * 1024;
  static constexpr uint32_t kMaxWrappedNoteBytes = kMaxNoteBytes + 16;  // for who adds to a note
  static constexpr uint32_t kMaxNotes = 65536;
  virtual void PutNote(std::string_view name,  // 1 to kMaxKeyBytes
                       std::string_view value,
                       std::function<void(WriteOutcome)> done) = 0;
  struct Note {
    std::string name;
    std::string value;
  };
  // Those of all directories that are open; complete from the start where all of them are.
  [[nodiscard]] virtual std::vector<Note> Notes() const = 0;
  // For a directory that is opened later than the tier: `learn` gets those of its notes that are
  // news, before anything that lies in it is found. Called on the maintenance executor, without a
  // lock of the tier that a call of it takes; an error keeps the directory away. nullptr: nobody is
  // asked, and nobody is being asked any more when this returns.
  using LearnNotes = std::function<absl::Status(const std::vector<Note>& news)>;
  virtual void WatchNotes(LearnNotes learn) = 0;

  // `done(OK)`: everything reported written before the call survives a loss of power. Otherwise
  // blocks that are not known to survive are not held any more, and what was deleted or noted since
  // the last good Sync has to be deleted or noted again to survive.
  virtual void Sync(std::function<void(absl::Status)> done) = 0;

  // Reads every live record of the sealed segments back and checks it: what is damaged is a miss
  // from then on. Joins the pass that runs, which goes on at the faster of both paces. Passes at
  // kBudget begin by themselves every scrub_interval. Segments with kMaxCorruptRecords damaged
  // records, whoever found them, are retired: what is sound in them is written again elsewhere, and
  // they are not used any more in this life.
  static constexpr uint32_t kMaxCorruptRecords = 3;
  virtual void Scrub(ScrubPace pace, std::function<void(const ScrubResult&)> done) = 0;
  [[nodiscard]] virtual ScrubProgress scrub_progress() const = 0;

  // What was written with a block beside its payload, read back and verified; `metadata` is empty
  // unless the outcome is kVerified. Priority::kLow.
  virtual void ReadMetadata(
      const BlockIdentity& identity,  // copied before it returns
      absl::Duration deadline,
      std::function<void(ReadOutcome, const RecordMetadata& metadata)> done) = 0;

  // For who keeps a list of what lies here. `learn` gets the names of blocks that came to lie in
  // another place, or are not held any more although nobody deleted them: ask Holds which. kMore:
  // also blocks that cannot be named changed, or some were found again: make a new list. Called on
  // the maintenance executor, without a lock of the tier that a call of it takes. To know names
  // costs a read for each block that a reclaim lets go. nullptr: nobody is told, and nobody is
  // being told any more when this returns.
  enum class Unnamed : uint8_t { kNone, kMore };
  using LearnChanges = std::function<void(const std::vector<NamedBlock>& changed, Unnamed unnamed)>;
  virtual void WatchChanges(LearnChanges learn) = 0;

  // `done` gets the names of some of the blocks behind `from`, possibly none, and the place behind
  // them; on the maintenance executor, or at once where the list is over. Their headers are read.
  // What is written, or comes to lie elsewhere, after the list was begun may be missing from it.
  static constexpr uint32_t kListedAtOnce = 1024;  // records that are looked at
  virtual void List(const ListPlace& from,
                    std::function<void(const ListPlace& next, std::vector<NamedBlock>)> done) = 0;

  // Makes time pass: deadlines of waiting writes, syncs, the index, scrubs, probes of what failed.
  // At least every 50 ms.
  virtual void Tick() = 0;

  // Seals what is open and ends; what waits is kClosed. `done` once nothing is in flight but reads.
  // Idempotent.
  virtual void Close(std::function<void(absl::Status)> done) = 0;

  [[nodiscard]] virtual SegmentTierFigures figures() const = 0;
  [[nodiscard]] virtual std::vector<SegmentView> Sealed() const = 0;
  [[nodiscard]] virtual Digest128 uuid() const = 0;
  // At least one, in the order of the configuration.
  [[nodiscard]] virtual std::vector<DriveView> Drives() const = 0;
};

struct SegmentTierOptions {
  std::string name = "g3";
  std::string path;
  // Where an earlier life left more, segments are reclaimed, what is worth least first, and their
  // files removed until it fits; until then nothing new is taken.
  uint64_t capacity_bytes = uint64_t{4} << 30;
  uint64_t max_payload_bytes = kMaxPayloadBytes;
  uint64_t segment_bytes = 0;  // 0: max(256 MiB, 16 maximal records); counts when the tier is made
  uint64_t free_reserve_bytes = uint64_t{1} << 30;  // of the file system, left to others
  uint32_t heats = 2;                               // 1 to kMaxHeats; higher ones count as the last
  uint32_t max_reads = 256;
  uint32_t max_writes = 256;
  uint32_t write_depth = 16;  // batches in flight, a segment
  // Small records are written together up to here. One that travels alone can use registered
  // memory.
  uint64_t batch_bytes = uint64_t{128} << 10;
  double max_rewritten_share = 0.5;  // of a segment that is reclaimed; from 0 to 0.5
  // Payloads up to here are hashed where their transfer completes, which spares a change of thread:
  // 10 to 15 GB/s a ring. Longer ones would keep that thread from others for too long, and go to
  // the hashing executor; so should all where one ring's drives are faster than that.
  uint64_t hash_inline_bytes = uint64_t{4} << 20;
  absl::Duration sync_interval = absl::Milliseconds(500);
  absl::Duration retry_interval = absl::Seconds(5);
  // Reads that fail in a row, without one that succeeds, until reads are suspended. They are tried
  // again after 200 ms, and then at most every 10 s.
  uint32_t max_read_faults = 8;
  uint64_t scrub_bytes_per_second = uint64_t{16} << 20;  // of the passes that begin by themselves
  absl::Duration scrub_interval = absl::Hours(24);  // between the begins of two; infinite: none
  Digest128 expected_uuid;  // zero: any
};

// Borrowed; they outlive the tier.
struct SegmentTierParts {
  FileSystem* files = nullptr;
  AsyncIo* io = nullptr;
  const Clock* clock = nullptr;
  Executor* hashing = nullptr;
  Executor* maintenance = nullptr;  // its threads block
  BlockIndex* index = nullptr;      // nullable
  // Nullable; called once, by OpenSegmentTier, when it is known whose index is wanted. May return
  // nullptr. Takes the place of `index`.
  std::function<BlockIndex*(const Digest128& tier_uuid)> open_index;
  ReclaimJudge* judge = nullptr;    // nullable: least live bytes goes first, nothing is kept
};

// What segment_bytes = 0 stands for: max(256 MiB, 16 maximal records), the latter rounded up.
uint64_t DefaultSegmentBytes(uint64_t max_payload_bytes);

// Less than this OpenSegmentTier refuses to make a tier with. options.capacity_bytes does not
// matter.
uint64_t LeastTierCapacity(const SegmentTierOptions& options);

// Opens or makes the tier. Blocks: some calls a segment, and the reading of the segments that hold
// notes and deletions, so that nothing deleted is ever found again. Blocks are found again
// afterwards, on the maintenance executor, while the tier serves.
// INVALID_ARGUMENT: an option, naming it. UNAVAILABLE: another process owns the directory.
// FAILED_PRECONDITION: the directory holds something else, another tier than expected, or a newer
// format. DATA_LOSS: neither copy of the superblock can be read. Nothing was changed then.
absl::StatusOr<std::unique_ptr<SegmentTier>> OpenSegmentTier(const SegmentTierOptions& options,
                                                             const SegmentTierParts& parts);

}  // namespace terrace
