// The state of a set of drives; tier_set.h is its door. Private to the room.
//
// One lock guards it; lookups share it. Nothing of a drive's tier is called under it but Lookup,
// which answers from memory. A tier that is given up (`leaving_`) is destroyed on the maintenance
// executor once it has closed and no call of ours is in it: its reads may hang as long as the drive
// does, and so may its destructor.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/record_format.h"
#include "tiers/segment/tier_set.h"

namespace terrace {

// A drive's tier from one opening to its end.
struct MountedTier {
  explicit MountedTier(std::unique_ptr<SegmentTier> opened) : tier(std::move(opened)) {}

  std::unique_ptr<SegmentTier> tier;
  uint32_t calls = 0;  // of ours that have not ended
  bool closed = false;
  std::atomic<bool> watched{false};  // whether its changes are
};

struct DriveState {
  Drive drive;
  std::shared_ptr<MountedTier> mounted;  // the set and its calls; nullptr: away
  uint8_t opening_number = 0;            // of `mounted`, so that a token names one opening
  SegmentTierFigures past;               // counters of the openings before
  bool busy = false;                     // a job closes or opens it
  std::string problem;
  absl::Duration next_open;
  absl::Duration faulty_since = absl::InfiniteDuration();  // and no read succeeded since
  uint64_t reads_by_then = 0;
  SegmentTierFigures figures;  // when it was looked at last
  uint64_t sent_bytes = 0;     // to it since then
  uint64_t writing_bytes = 0;  // of writes that have not ended
  // Deletes that are not durable on it, the oldest first.
  std::vector<OwnedIdentity> undeleted;
  bool owes_too_much = false;                     // not all that it has to delete is known
  bool deleting = false;                          // some of them again
  std::map<std::string, uint64_t> note_versions;  // what it is known to hold
};

// Work for when the lock is given back: declare it before the lock.
class AfterUnlock {
 public:
  AfterUnlock() = default;
  AfterUnlock(const AfterUnlock&) = delete;
  AfterUnlock& operator=(const AfterUnlock&) = delete;
  ~AfterUnlock() {
    for (const std::function<void()>& work : work_) {
      work();
    }
  }
  void Add(std::function<void()> work) { work_.push_back(std::move(work)); }

 private:
  std::vector<std::function<void()>> work_;
};

// A judge that is asked by one drive at a time.
class TurnJudge final : public ReclaimJudge {
 public:
  explicit TurnJudge(ReclaimJudge* judge) : judge_(judge) {}
  size_t ChooseVictim(absl::Span<const SegmentView> sealed) override {
    absl::MutexLock lock(&mutex_);
    return judge_->ChooseVictim(sealed);
  }
  bool Keep(const JudgedRecord& record) override {
    absl::MutexLock lock(&mutex_);
    return judge_->Keep(record);
  }

 private:
  absl::Mutex mutex_;  // taken before whatever the judge takes
  ReclaimJudge* const judge_;
};

struct SetWrite;

// What rises as long as the process lives; nothing of what is there now.
void AddCounters(const SegmentTierFigures& more, SegmentTierFigures* sum);

class DriveSet final : public SegmentTier {
 public:
  DriveSet(const TierSetOptions& options, const SegmentTierParts& parts);
  DriveSet(const DriveSet&) = delete;
  DriveSet& operator=(const DriveSet&) = delete;
  // Waits until nothing is in flight.
  ~DriveSet() override;

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
  void WatchNotes(LearnNotes learn) override;
  void WatchChanges(LearnChanges learn) override;
  void List(const ListPlace& from,
            std::function<void(const ListPlace& next, std::vector<NamedBlock>)> done) override;
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
  // The first drive's; zero while it has never been open.
  [[nodiscard]] Digest128 uuid() const override;
  [[nodiscard]] std::vector<DriveView> Drives() const override;

 private:
  struct SetNote {
    std::string value;
    uint64_t version = 0;
  };
  // A call into a drive's tier, which keeps it from its end.
  struct Entered {
    uint32_t drive = 0;
    std::shared_ptr<MountedTier> mounted;  // as in DriveState
  };

  // ---- drive_set.cc: life
  absl::Status OpenDrive(uint32_t number);
  absl::Status OpenedDrive(uint32_t number, std::unique_ptr<SegmentTier> tier);
  absl::Status NotOpenedLocked(uint32_t number, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void HideDeleted(SegmentTier& tier, const std::vector<OwnedIdentity>& deleted);
  void MountLocked(uint32_t number, std::unique_ptr<SegmentTier> tier, AfterUnlock& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LookAtDrivesLocked(AfterUnlock& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveUpLocked(uint32_t number, std::string problem, AfterUnlock& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Closes it, and destroys it when it is closed and nobody is in it.
  void EndLocked(uint32_t number, std::shared_ptr<MountedTier> mounted, AfterUnlock& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunJobLocked(uint32_t number, std::function<void()> job, AfterUnlock& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::vector<Entered> EnterAllLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::vector<Entered> EnterAll() const;
  void Leave(const Entered& entered) const;
  void LeaveLocked(const Entered& entered) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool IdleLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeFigures(const std::vector<Entered>& all);

  // ---- drive_set_calls.cc
  // The drive that holds it, or -1; `hint` is asked first.
  [[nodiscard]] int HolderLocked(const BlockIdentity& identity,
                                 uint32_t hint,
                                 LowerBlock* out) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] int ChooseLocked(const SetWrite& write) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TryWrite(const std::shared_ptr<SetWrite>& write);
  void WriteEnded(const std::shared_ptr<SetWrite>& write,
                  const Entered& entered,
                  WriteOutcome outcome,
                  const LowerBlock& block);
  void RememberDeletesLocked(uint32_t number, absl::Span<const BlockIdentity> identities)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DeleteAgainLocked(uint32_t number, AfterUnlock& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Note> NewsLocked(const std::vector<Note>& notes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LearnNotesLocked(uint32_t number, const std::vector<Note>& notes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SpreadNotesLocked(uint32_t number, AfterUnlock& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- drive_set_list.cc
  // Of those that were mounted or asked for since the last call.
  void WatchTiers(const std::vector<Entered>& all);
  void TellUnnamed();

  // Deletes that one drive may owe; a drive that would owe more stays away.
  static constexpr size_t kMaxUndeleted = 65536;

  const TierSetOptions options_;
  const SegmentTierParts parts_;
  TurnJudge judge_;
  const uint64_t seed_;  // of the fingerprints of what is being written

  mutable absl::Mutex mutex_;
  std::vector<DriveState> drives_ ABSL_GUARDED_BY(mutex_);
  std::vector<Entered> leaving_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest128, std::shared_ptr<SetWrite>> writing_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, SetNote> notes_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_note_version_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration next_look_ ABSL_GUARDED_BY(mutex_);
  bool drives_changed_ ABSL_GUARDED_BY(mutex_) = false;  // one came or went, which is to be told
  uint32_t jobs_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable uint32_t calls_ ABSL_GUARDED_BY(mutex_) = 0;  // of all drives
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;

  // Held in shared mode while a watcher is asked, so that WatchNotes and WatchChanges can wait for
  // its end. Taken before whatever the watcher takes, and never beside mutex_.
  absl::Mutex watch_mutex_;
  LearnNotes learn_ ABSL_GUARDED_BY(watch_mutex_);
  LearnChanges learn_changes_ ABSL_GUARDED_BY(watch_mutex_);
  std::atomic<bool> changes_watched_{false};
};

}  // namespace terrace
