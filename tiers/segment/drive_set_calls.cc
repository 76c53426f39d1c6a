// A set of drives: what is asked of it, and which drive answers.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/drive_set.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/set_note_format.h"

namespace terrace {
namespace {

// Locations: drive, then the tier's own. Tokens: drive + 1, its opening, then the tier's own.
constexpr uint32_t kDriveShift = 56;
constexpr uint32_t kOpeningShift = 48;

uint64_t SetLocation(uint32_t drive, uint64_t location) {
  return uint64_t{drive} << kDriveShift | location;
}
uint64_t SetToken(uint32_t drive, uint8_t opening, uint64_t token) {
  return uint64_t{drive + 1} << kDriveShift | uint64_t{opening} << kOpeningShift |
         (token & ((uint64_t{1} << kOpeningShift) - 1));
}

bool MayBeTriedElsewhere(WriteOutcome outcome) {
  return outcome == WriteOutcome::kNoSpace || outcome == WriteOutcome::kBusy ||
         outcome == WriteOutcome::kReadOnly || outcome == WriteOutcome::kFault ||
         outcome == WriteOutcome::kClosed;
}

bool TakesWrites(TierState state) {
  return state == TierState::kOnline || state == TierState::kRecovering;
}

// The answers of all drives to one call: what they have in common, or the worst.
struct WriteTally {
  absl::Mutex mutex;
  uint32_t left ABSL_GUARDED_BY(mutex) = 1;  // the call itself is one
  WriteOutcome outcome ABSL_GUARDED_BY(mutex) = WriteOutcome::kWritten;
  uint32_t deleted ABSL_GUARDED_BY(mutex) = 0;
  std::function<void(WriteOutcome, uint32_t deleted)> done;

  void Begin() {
    absl::MutexLock lock(&mutex);
    ++left;
  }
  void End(WriteOutcome ended, uint32_t more_deleted) {
    WriteOutcome result = WriteOutcome::kWritten;
    uint32_t all_deleted = 0;
    {
      absl::MutexLock lock(&mutex);
      outcome = outcome == WriteOutcome::kWritten ? ended : outcome;
      deleted += more_deleted;
      if (--left > 0) {
        return;
      }
      result = outcome;
      all_deleted = deleted;
    }
    done(result, all_deleted);
  }
};

}  // namespace

// A write until a drive has taken it, or none wants it.
struct SetWrite {
  OwnedIdentity identity;
  std::string parent;
  std::string metadata;
  WriteRequest request;  // its text is borrowed from the above
  Digest128 fingerprint;
  std::function<void(WriteOutcome, const LowerBlock&)> done;
  // Guarded by the set's lock:
  uint64_t tried = 0;  // drives, a bit each
  WriteOutcome last = WriteOutcome::kFault;
  bool deleted = false;
};

bool DriveSet::Lookup(const BlockIdentity& identity, LowerBlock* out) {
  absl::ReaderMutexLock lock(&mutex_);
  return HolderLocked(identity, 0, out) >= 0;
}

bool DriveSet::Holds(const BlockIdentity& identity) const {
  absl::ReaderMutexLock lock(&mutex_);
  return std::any_of(drives_.begin(), drives_.end(), [&identity](const DriveState& state) {
    return state.mounted != nullptr && state.mounted->tier->Holds(identity);
  });
}

bool DriveSet::NoteUse(const BlockIdentity& identity) {
  absl::ReaderMutexLock lock(&mutex_);
  return std::any_of(drives_.begin(), drives_.end(), [&identity](const DriveState& state) {
    return state.mounted != nullptr && state.mounted->tier->NoteUse(identity);
  });
}

int DriveSet::HolderLocked(const BlockIdentity& identity, uint32_t hint, LowerBlock* out) const {
  const auto count = static_cast<uint32_t>(drives_.size());
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t number = (hint + i) % count;
    const DriveState& state = drives_[number];
    if (state.mounted != nullptr && state.mounted->tier->Lookup(identity, out)) {
      out->location = SetLocation(number, out->location);
      return static_cast<int>(number);
    }
  }
  return -1;
}

uint64_t DriveSet::Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) {
  Entered entered;
  uint8_t opening = 0;
  ReadRequest forwarded = request;
  {
    absl::MutexLock lock(&mutex_);
    const auto hint = static_cast<uint32_t>(request.block.location >> kDriveShift);
    const int holder = HolderLocked(request.identity, hint, &forwarded.block);
    if (holder >= 0) {
      entered = {static_cast<uint32_t>(holder), drives_[static_cast<size_t>(holder)].mounted};
      opening = drives_[entered.drive].opening_number;
      ++entered.mounted->calls;
      ++calls_;
    }
  }
  if (entered.mounted == nullptr) {
    done(ReadOutcome::kGone);
    return 0;
  }
  // What the caller was promised, or nothing.
  forwarded.block.payload_bytes = request.block.payload_bytes;
  forwarded.block.checksum = request.block.checksum;
  const uint64_t token = entered.mounted->tier->Read(
      forwarded, [this, entered, done = std::move(done)](ReadOutcome outcome) {
        done(outcome);
        Leave(entered);
      });
  return SetToken(entered.drive, opening, token);
}

void DriveSet::Cancel(uint64_t token) {
  Entered entered;
  const uint64_t drive = token >> kDriveShift;
  {
    absl::MutexLock lock(&mutex_);
    if (drive == 0 || drive > drives_.size() || drives_[drive - 1].mounted == nullptr ||
        drives_[drive - 1].opening_number != (token >> kOpeningShift & 0xff)) {
      return;
    }
    entered = {static_cast<uint32_t>(drive - 1), drives_[drive - 1].mounted};
    ++entered.mounted->calls;
    ++calls_;
  }
  entered.mounted->tier->Cancel(token & ((uint64_t{1} << kOpeningShift) - 1));
  Leave(entered);
}

absl::Duration DriveSet::EstimateRead(uint64_t bytes) const {
  absl::Duration sum;
  int measured = 0;
  for (const Entered& entered : EnterAll()) {
    const absl::Duration estimate = entered.mounted->tier->EstimateRead(bytes);
    sum += estimate;
    measured += estimate > absl::ZeroDuration() ? 1 : 0;
    Leave(entered);
  }
  return measured == 0 ? sum : sum / measured;
}

void DriveSet::Write(const WriteRequest& request,
                     std::function<void(WriteOutcome, const LowerBlock&)> done) {
  auto write = std::make_shared<SetWrite>();
  write->identity = OwnedIdentity(request.identity);
  write->parent = std::string(request.parent);
  write->metadata = std::string(request.metadata);
  write->request = request;
  write->request.identity = write->identity.view();
  write->request.parent = write->parent;
  write->request.metadata = write->metadata;
  write->fingerprint =
      IdentityFingerprint(request.identity.namespace_digest, request.identity.generation,
                          request.identity.salt, request.identity.key, seed_);
  write->done = std::move(done);
  WriteOutcome refusal = WriteOutcome::kWritten;
  {
    absl::MutexLock lock(&mutex_);
    LowerBlock held;
    if (closing_) {
      refusal = WriteOutcome::kClosed;
    } else if (writing_.contains(write->fingerprint) ||
               HolderLocked(request.identity, 0, &held) >= 0) {
      refusal = WriteOutcome::kHeld;
    } else {
      writing_[write->fingerprint] = write;
    }
  }
  refusal == WriteOutcome::kWritten ? TryWrite(write) : write->done(refusal, {});
}

int DriveSet::ChooseLocked(const SetWrite& write) const {
  const auto usable = [&](size_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const DriveState& state = drives_[number];
    return state.mounted != nullptr && (write.tried >> number & 1) == 0;
  };
  uint64_t least_busy = UINT64_MAX;
  for (size_t number = 0; number < drives_.size(); ++number) {
    if (usable(number) && TakesWrites(drives_[number].figures.state)) {
      least_busy = std::min(least_busy, drives_[number].writing_bytes);
    }
  }
  int chosen = -1;
  double least_full = 0;
  for (size_t number = 0; number < drives_.size(); ++number) {
    const DriveState& state = drives_[number];
    if (!usable(number)) {
      continue;
    }
    // Drives that are not known to take writes come last, and only when no other is left.
    const bool behind = TakesWrites(state.figures.state) &&
                        state.writing_bytes > least_busy + options_.write_slack_bytes;
    const double full = static_cast<double>(state.figures.live_bytes + state.sent_bytes) /
                            static_cast<double>(state.drive.options.capacity_bytes) +
                        (behind ? 100 : 0) + (TakesWrites(state.figures.state) ? 0 : 1000);
    if (chosen < 0 || full < least_full) {
      chosen = static_cast<int>(number);
      least_full = full;
    }
  }
  return chosen;
}

void DriveSet::TryWrite(const std::shared_ptr<SetWrite>& write) {
  Entered entered;
  WriteOutcome ended = WriteOutcome::kWritten;
  {
    absl::MutexLock lock(&mutex_);
    const int chosen = write->deleted || closing_ ? -1 : ChooseLocked(*write);
    if (chosen < 0) {
      ended = write->deleted ? WriteOutcome::kDeleted
              : closing_     ? WriteOutcome::kClosed
                             : write->last;
      writing_.erase(write->fingerprint);
    } else {
      DriveState& state = drives_[static_cast<size_t>(chosen)];
      write->tried |= uint64_t{1} << chosen;
      state.sent_bytes += write->request.payload_bytes;
      state.writing_bytes += write->request.payload_bytes;
      entered = {static_cast<uint32_t>(chosen), state.mounted};
      ++entered.mounted->calls;
      ++calls_;
    }
  }
  if (entered.mounted == nullptr) {
    write->done(ended, {});
    return;
  }
  entered.mounted->tier->Write(
      write->request, [this, write, entered](WriteOutcome outcome, const LowerBlock& block) {
        WriteEnded(write, entered, outcome, block);
      });
}

void DriveSet::WriteEnded(const std::shared_ptr<SetWrite>& write,
                          const Entered& entered,
                          WriteOutcome outcome,
                          const LowerBlock& block) {
  const bool again = MayBeTriedElsewhere(outcome);
  {
    absl::MutexLock lock(&mutex_);
    drives_[entered.drive].writing_bytes -= write->request.payload_bytes;
    write->last = outcome;
    if (!again) {
      writing_.erase(write->fingerprint);
    }
  }
  if (again) {
    TryWrite(write);
  } else {
    LowerBlock placed = block;
    placed.location = SetLocation(entered.drive, block.location);
    write->done(outcome, outcome == WriteOutcome::kWritten ? placed : block);
  }
  Leave(entered);
}

void DriveSet::RememberDeletesLocked(uint32_t number, absl::Span<const BlockIdentity> identities) {
  DriveState& state = drives_[number];
  for (const BlockIdentity& identity : identities) {
    if (state.undeleted.size() >= kMaxUndeleted) {
      state.owes_too_much = true;
      return;
    }
    state.undeleted.emplace_back(identity);
  }
}

void DriveSet::Delete(absl::Span<const BlockIdentity> identities,
                      std::function<void(WriteOutcome, uint32_t)> done) {
  auto tally = std::make_shared<WriteTally>();  // this call and the drives' callbacks
  tally->done = std::move(done);
  auto owned = std::make_shared<std::vector<OwnedIdentity>>();  // the same
  std::vector<Entered> all;
  {
    absl::MutexLock lock(&mutex_);
    for (const BlockIdentity& identity : identities) {
      owned->emplace_back(identity);
      const auto writing = writing_.find(IdentityFingerprint(
          identity.namespace_digest, identity.generation, identity.salt, identity.key, seed_));
      if (writing != writing_.end()) {
        writing->second->deleted = true;
      }
    }
    for (uint32_t number = 0; number < drives_.size(); ++number) {
      if (drives_[number].mounted == nullptr) {
        RememberDeletesLocked(number, identities);
        tally->Begin();
      }
    }
    all = EnterAllLocked();
  }
  const size_t away = options_.drives.size() - all.size();
  for (const Entered& entered : all) {
    tally->Begin();
    entered.mounted->tier->Delete(
        identities, [this, tally, owned, entered](WriteOutcome outcome, uint32_t deleted) {
          if (outcome != WriteOutcome::kWritten) {
            std::vector<BlockIdentity> views;
            for (const OwnedIdentity& identity : *owned) {
              views.push_back(identity.view());
            }
            absl::MutexLock lock(&mutex_);
            RememberDeletesLocked(entered.drive, views);
          }
          tally->End(outcome, deleted);
          Leave(entered);
        });
  }
  for (size_t i = 0; i < away; ++i) {
    tally->End(WriteOutcome::kFault, 0);
  }
  tally->End(WriteOutcome::kWritten, 0);
}

void DriveSet::DeleteAgainLocked(uint32_t number, AfterUnlock& after) {
  DriveState& state = drives_[number];
  if (state.undeleted.empty() || state.deleting || !TakesWrites(state.figures.state)) {
    return;
  }
  state.deleting = true;
  const Entered entered = {number, state.mounted};
  ++entered.mounted->calls;
  ++calls_;
  const size_t count = std::min<size_t>(state.undeleted.size(), SegmentTier::kMaxDeletes);
  auto again = std::make_shared<std::vector<OwnedIdentity>>(  // the work below and its callback
      state.undeleted.begin(), state.undeleted.begin() + static_cast<ptrdiff_t>(count));
  after.Add([this, number, entered, again, count] {
    std::vector<BlockIdentity> views;
    for (const OwnedIdentity& identity : *again) {
      views.push_back(identity.view());
    }
    entered.mounted->tier->Delete(
        views, [this, number, entered, again, count](WriteOutcome outcome, uint32_t /*deleted*/) {
          absl::MutexLock lock(&mutex_);
          DriveState& ended = drives_[number];
          ended.deleting = false;
          // What came meanwhile stands behind these.
          if (outcome == WriteOutcome::kWritten) {
            ended.undeleted.erase(ended.undeleted.begin(),
                                  ended.undeleted.begin() + static_cast<ptrdiff_t>(count));
          }
          LeaveLocked(entered);
        });
  });
}

std::vector<SegmentTier::Note> DriveSet::NewsLocked(const std::vector<Note>& notes) {
  std::vector<Note> news;
  for (const Note& note : notes) {
    uint64_t version = 0;
    std::string_view value;
    DecodeSetNote(note.value, &version, &value);
    const auto known = notes_.find(note.name);
    if (known == notes_.end() || version > known->second.version) {
      news.push_back({note.name, std::string(value)});
    }
    // What is put from now on is later.
    last_note_version_ = std::max(last_note_version_, version);
  }
  return news;
}

void DriveSet::LearnNotesLocked(uint32_t number, const std::vector<Note>& notes) {
  for (const Note& note : notes) {
    uint64_t version = 0;
    std::string_view value;
    DecodeSetNote(note.value, &version, &value);
    drives_[number].note_versions[note.name] = version;
    const auto [known, added] = notes_.try_emplace(note.name);
    if (added || version > known->second.version) {
      known->second = {std::string(value), version};
    }
  }
}

void DriveSet::SpreadNotesLocked(uint32_t number, AfterUnlock& after) {
  DriveState& state = drives_[number];
  if (state.mounted == nullptr || !TakesWrites(state.figures.state)) {
    return;
  }
  for (const auto& [name, note] : notes_) {
    const auto known = state.note_versions.find(name);
    if (known != state.note_versions.end() && known->second >= note.version) {
      continue;
    }
    const bool absent = known == state.note_versions.end();
    const uint64_t before = absent ? 0 : known->second;
    state.note_versions[name] = note.version;  // so that it is not sent twice
    const Entered entered = {number, state.mounted};
    ++entered.mounted->calls;
    ++calls_;
    after.Add([this, entered, absent, before, name = name, version = note.version,
               encoded = EncodeSetNote(note.version, note.value)] {
      entered.mounted->tier->PutNote(
          name, encoded, [this, entered, absent, before, name, version](WriteOutcome outcome) {
            absl::MutexLock lock(&mutex_);
            DriveState& ended = drives_[entered.drive];
            if (outcome != WriteOutcome::kWritten && ended.mounted == entered.mounted &&
                ended.note_versions[name] == version) {
              absent ? (void)ended.note_versions.erase(name)
                     : (void)(ended.note_versions[name] = before);
            }
            LeaveLocked(entered);
          });
    });
  }
}

void DriveSet::PutNote(std::string_view name,
                       std::string_view value,
                       std::function<void(WriteOutcome)> done) {
  auto tally = std::make_shared<WriteTally>();  // this call and the drives' callbacks
  tally->done = [done = std::move(done)](WriteOutcome outcome, uint32_t /*deleted*/) {
    done(outcome);
  };
  std::vector<Entered> all;
  uint64_t version = 0;
  {
    absl::MutexLock lock(&mutex_);
    all = EnterAllLocked();
    version = ++last_note_version_;
  }
  const std::string encoded = EncodeSetNote(version, value);
  for (const Entered& entered : all) {
    tally->Begin();
    entered.mounted->tier->PutNote(name, encoded,
                                   [this, tally, entered, version, name = std::string(name),
                                    value = std::string(value)](WriteOutcome outcome) {
                                     if (outcome == WriteOutcome::kWritten) {
                                       absl::MutexLock lock(&mutex_);
                                       SetNote& known = notes_[name];
                                       if (version > known.version) {
                                         known = {value, version};
                                       }
                                       DriveState& state = drives_[entered.drive];
                                       if (state.mounted == entered.mounted) {
                                         uint64_t& held = state.note_versions[name];
                                         held = std::max(held, version);
                                       }
                                     }
                                     tally->End(outcome, 0);
                                     Leave(entered);
                                   });
  }
  tally->End(all.empty() ? WriteOutcome::kFault : WriteOutcome::kWritten, 0);
}

std::vector<SegmentTier::Note> DriveSet::Notes() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Note> notes;
  for (const auto& [name, note] : notes_) {
    notes.push_back({name, note.value});
  }
  return notes;
}

void DriveSet::ReadMetadata(const BlockIdentity& identity,
                            absl::Duration deadline,
                            std::function<void(ReadOutcome, const RecordMetadata&)> done) {
  Entered entered;
  {
    absl::MutexLock lock(&mutex_);
    LowerBlock block;
    const int holder = HolderLocked(identity, 0, &block);
    if (holder >= 0) {
      entered = {static_cast<uint32_t>(holder), drives_[static_cast<size_t>(holder)].mounted};
      ++entered.mounted->calls;
      ++calls_;
    }
  }
  if (entered.mounted == nullptr) {
    done(ReadOutcome::kGone, {});
    return;
  }
  entered.mounted->tier->ReadMetadata(
      identity, deadline,
      [this, entered, done = std::move(done)](ReadOutcome outcome, const RecordMetadata& metadata) {
        done(outcome, metadata);
        Leave(entered);
      });
}

}  // namespace terrace
