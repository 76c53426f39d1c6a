// A set of drives: how they come, go and come back.
#include "tiers/segment/drive_set.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/os/descriptor.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(500);

uint64_t RandomSeed() {
  uint64_t seed = 0;
  FillRandom({reinterpret_cast<char*>(&seed), sizeof(seed)});
  return seed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentTier>> OpenTierSet(const TierSetOptions& options,
                                                         const SegmentTierParts& parts) {
  if (options.drives.empty() || options.drives.size() > kMaxDrives) {
    return absl::InvalidArgumentError(absl::StrCat("drives: 1 to ", kMaxDrives));
  }
  for (size_t i = 0; i < options.drives.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (options.drives[i].options.path == options.drives[j].options.path) {
        return absl::InvalidArgumentError(
            absl::StrCat("drives: ", options.drives[i].options.path, " is there twice"));
      }
    }
  }
  auto set = std::make_unique<DriveSet>(options, parts);
  if (absl::Status started = set->Start(); !started.ok()) {
    return started;
  }
  return set;
}

DriveSet::DriveSet(const TierSetOptions& options, const SegmentTierParts& parts)
    : options_(options), parts_(parts), judge_(parts.judge), seed_(RandomSeed()) {
  drives_.resize(options.drives.size());
  for (size_t i = 0; i < options.drives.size(); ++i) {
    drives_[i].drive = options.drives[i];
    drives_[i].drive.options.name = options.name;
    if (drives_[i].drive.maintenance == nullptr) {
      drives_[i].drive.maintenance = parts.maintenance;
    }
  }
}

DriveSet::~DriveSet() {
  std::vector<std::shared_ptr<MountedTier>> all;
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    const auto no_jobs = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return jobs_ == 0; };
    mutex_.Await(absl::Condition(&no_jobs));
    for (DriveState& state : drives_) {
      if (state.mounted != nullptr) {
        all.push_back(std::move(state.mounted));
        state.mounted = nullptr;
      }
    }
    for (Entered& leaving : leaving_) {
      all.push_back(std::move(leaving.mounted));
    }
    leaving_.clear();
  }
  for (const std::shared_ptr<MountedTier>& mounted : all) {
    mounted->tier.reset();
  }
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &DriveSet::IdleLocked));
}

bool DriveSet::IdleLocked() const {
  return jobs_ == 0 && calls_ == 0;
}

absl::Status DriveSet::Start() {
  absl::Status first_failure;
  absl::Status refusal;  // which time does not heal
  uint32_t open = 0;
  for (uint32_t number = 0; number < options_.drives.size(); ++number) {
    absl::Status opened = OpenDrive(number);
    if (absl::IsInvalidArgument(opened)) {
      return opened;
    }
    open += opened.ok() ? 1 : 0;
    first_failure.Update(opened);
    if (absl::IsFailedPrecondition(opened)) {
      refusal.Update(opened);
    }
  }
  if (open > 0) {
    return absl::OkStatus();
  }
  return !refusal.ok() || options_.opens_without_drives ? refusal : first_failure;
}

absl::Status DriveSet::OpenDrive(uint32_t number) {
  SegmentTierOptions options;
  SegmentTierParts parts = parts_;
  {
    absl::MutexLock lock(&mutex_);
    options = drives_[number].drive.options;
    parts.io = drives_[number].drive.io;
    parts.index = drives_[number].drive.index;
    parts.open_index = drives_[number].drive.open_index;
    parts.maintenance = drives_[number].drive.maintenance;
    parts.judge = parts_.judge == nullptr ? nullptr : &judge_;
  }
  absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenSegmentTier(options, parts);
  if (opened.ok()) {
    return OpenedDrive(number, *std::move(opened));
  }
  absl::MutexLock lock(&mutex_);
  return NotOpenedLocked(number, opened.status());
}

absl::Status DriveSet::NotOpenedLocked(uint32_t number, const absl::Status& why) {
  DriveState& state = drives_[number];
  state.busy = false;
  state.next_open = parts_.clock->Now() + options_.reopen_interval;
  state.problem = std::string(why.message());
  return why;
}

absl::Status DriveSet::OpenedDrive(uint32_t number, std::unique_ptr<SegmentTier> tier) {
  const std::vector<Note> notes = tier->Notes();
  std::vector<Note> news;
  {
    absl::MutexLock lock(&mutex_);
    // From now on this tier and no other: an empty folder where it was is an absent drive.
    drives_[number].drive.options.expected_uuid = tier->uuid();
    news = NewsLocked(notes);
  }
  if (!news.empty()) {
    absl::Status learnt;
    {
      absl::ReaderMutexLock lock(&watch_mutex_);
      learnt = learn_ ? learn_(news) : absl::OkStatus();
    }
    if (!learnt.ok()) {
      AfterUnlock after;
      absl::MutexLock lock(&mutex_);
      EndLocked(number, std::make_shared<MountedTier>(std::move(tier)), after);
      return NotOpenedLocked(number, learnt);
    }
  }
  for (size_t hidden = 0;;) {
    std::vector<OwnedIdentity> more;
    {
      AfterUnlock after;
      absl::MutexLock lock(&mutex_);
      DriveState& state = drives_[number];
      if (hidden == state.undeleted.size()) {
        state.busy = false;
        LearnNotesLocked(number, notes);
        MountLocked(number, std::move(tier), after);
        return absl::OkStatus();
      }
      more.assign(state.undeleted.begin() + static_cast<ptrdiff_t>(hidden), state.undeleted.end());
    }
    HideDeleted(*tier, more);
    hidden += more.size();
  }
}

void DriveSet::WatchNotes(LearnNotes learn) {
  absl::MutexLock lock(&watch_mutex_);
  learn_ = std::move(learn);
}

void DriveSet::HideDeleted(SegmentTier& tier, const std::vector<OwnedIdentity>& deleted) {
  // Before anybody can look: a delete takes effect in memory before it returns. Whether it is
  // durable is found out by DeleteAgainLocked, which deletes them once more.
  for (size_t at = 0; at < deleted.size(); at += SegmentTier::kMaxDeletes) {
    std::vector<BlockIdentity> views;
    for (size_t i = at; i < std::min(deleted.size(), at + SegmentTier::kMaxDeletes); ++i) {
      views.push_back(deleted[i].view());
    }
    tier.Delete(views, [](WriteOutcome, uint32_t) {});
  }
}

void DriveSet::MountLocked(uint32_t number, std::unique_ptr<SegmentTier> tier, AfterUnlock& after) {
  DriveState& state = drives_[number];
  state.problem.clear();
  state.faulty_since = absl::InfiniteDuration();
  ++state.opening_number;
  state.figures = SegmentTierFigures();
  state.sent_bytes = 0;
  state.mounted = std::make_shared<MountedTier>(std::move(tier));
  drives_changed_ = true;
  for (uint32_t other = 0; other < drives_.size(); ++other) {
    SpreadNotesLocked(other, after);
  }
}

void DriveSet::RunJobLocked(uint32_t number, std::function<void()> job, AfterUnlock& after) {
  ++jobs_;
  after.Add([this, executor = drives_[number].drive.maintenance, job = std::move(job)] {
    executor->Run(Priority::kLow, [this, job] {
      job();
      absl::MutexLock lock(&mutex_);
      --jobs_;
    });
  });
}

std::vector<DriveSet::Entered> DriveSet::EnterAllLocked() const {
  std::vector<Entered> all;
  for (uint32_t number = 0; number < drives_.size(); ++number) {
    if (drives_[number].mounted != nullptr) {
      all.push_back({number, drives_[number].mounted});
      ++drives_[number].mounted->calls;
      ++calls_;
    }
  }
  return all;
}

std::vector<DriveSet::Entered> DriveSet::EnterAll() const {
  absl::MutexLock lock(&mutex_);
  return EnterAllLocked();
}

void DriveSet::Leave(const Entered& entered) const {
  absl::MutexLock lock(&mutex_);
  LeaveLocked(entered);
}

void DriveSet::LeaveLocked(const Entered& entered) const {
  --entered.mounted->calls;
  --calls_;
}

void DriveSet::Tick() {
  std::vector<Entered> all;
  bool changed = false;
  {
    absl::MutexLock lock(&mutex_);
    all = EnterAllLocked();
    changed = std::exchange(drives_changed_, false);
  }
  WatchTiers(all);
  for (const Entered& entered : all) {
    entered.mounted->tier->Tick();
  }
  bool look = false;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = parts_.clock->Now();
    look = now >= next_look_;
    next_look_ = look ? now + kLookInterval : next_look_;
  }
  if (look) {
    TakeFigures(all);
  }
  AfterUnlock after;
  absl::MutexLock lock(&mutex_);
  for (const Entered& entered : all) {
    LeaveLocked(entered);
  }
  if (changed && changes_watched_) {
    RunJobLocked(
        0, [this] { TellUnnamed(); }, after);
  }
  if (look && !closing_) {
    LookAtDrivesLocked(after);
  }
}

void DriveSet::TakeFigures(const std::vector<Entered>& all) {
  for (const Entered& entered : all) {
    SegmentTierFigures figures = entered.mounted->tier->figures();
    absl::MutexLock lock(&mutex_);
    DriveState& state = drives_[entered.drive];
    if (state.mounted == entered.mounted) {
      state.figures = std::move(figures);
      state.sent_bytes = 0;
    }
  }
}

void DriveSet::LookAtDrivesLocked(AfterUnlock& after) {
  const absl::Duration now = parts_.clock->Now();
  for (uint32_t number = 0; number < drives_.size(); ++number) {
    DriveState& state = drives_[number];
    if (state.mounted != nullptr) {
      const bool faulty = state.figures.state == TierState::kFaulty;
      // What can be read is worth more than a new opening, which has to write.
      if (!faulty) {
        state.faulty_since = absl::InfiniteDuration();
      } else if (state.faulty_since > now || state.figures.reads > state.reads_by_then) {
        state.faulty_since = now;
      }
      state.reads_by_then = state.figures.reads;
      if (state.figures.state == TierState::kDetached) {
        GiveUpLocked(number, "the path leads elsewhere", after);
      } else if (faulty && now - state.faulty_since >= options_.reopen_after) {
        GiveUpLocked(number, state.figures.last_fault, after);
      } else {
        state.problem = faulty ? state.figures.last_fault : "";
        DeleteAgainLocked(number, after);
        SpreadNotesLocked(number, after);
      }
    } else if (!state.busy && now >= state.next_open && !state.owes_too_much) {
      state.busy = true;
      RunJobLocked(
          number, [this, number] { OpenDrive(number).IgnoreError(); }, after);
    }
  }
  for (auto at = leaving_.begin(); at != leaving_.end();) {
    if (at->mounted->closed && at->mounted->calls == 0) {
      RunJobLocked(
          at->drive, [mounted = std::move(at->mounted)] { mounted->tier.reset(); }, after);
      at = leaving_.erase(at);
    } else {
      ++at;
    }
  }
}

void DriveSet::GiveUpLocked(uint32_t number, std::string problem, AfterUnlock& after) {
  DriveState& state = drives_[number];
  drives_changed_ = true;
  EndLocked(number, std::exchange(state.mounted, nullptr), after);
  state.problem = std::move(problem);
  state.next_open = parts_.clock->Now() + options_.reopen_interval;
  AddCounters(state.figures, &state.past);
  state.figures = SegmentTierFigures();
  state.note_versions.clear();
}

void DriveSet::EndLocked(uint32_t number,
                         std::shared_ptr<MountedTier> mounted,
                         AfterUnlock& after) {
  const Entered entered = {number, std::move(mounted)};
  leaving_.push_back(entered);
  ++entered.mounted->calls;
  ++calls_;
  after.Add([this, entered] {
    entered.mounted->tier->Close([this, entered](const absl::Status&) {
      absl::MutexLock lock(&mutex_);
      entered.mounted->closed = true;
      LeaveLocked(entered);
    });
  });
}

void DriveSet::Close(std::function<void(absl::Status)> done) {
  struct Closing {
    absl::Mutex mutex;
    uint32_t left ABSL_GUARDED_BY(mutex) = 1;
    absl::Status status ABSL_GUARDED_BY(mutex);
    std::function<void(absl::Status)> done;
  };
  std::vector<Entered> all;
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    all = EnterAllLocked();
  }
  auto closing = std::make_shared<Closing>();  // this call and the drives' callbacks
  closing->done = std::move(done);
  const auto end = [closing](const absl::Status& status) {
    absl::Status result;
    {
      absl::MutexLock lock(&closing->mutex);
      closing->status.Update(status);
      if (--closing->left > 0) {
        return;
      }
      result = closing->status;
    }
    closing->done(result);
  };
  for (const Entered& entered : all) {
    {
      absl::MutexLock lock(&closing->mutex);
      ++closing->left;
    }
    entered.mounted->tier->Close([this, entered, end](const absl::Status& status) {
      end(status);
      Leave(entered);
    });
  }
  end(absl::OkStatus());
}

std::vector<DriveView> DriveSet::Drives() const {
  std::vector<DriveView> views;
  std::vector<Entered> all;
  {
    absl::MutexLock lock(&mutex_);
    all = EnterAllLocked();
    for (const DriveState& state : drives_) {
      DriveView view;
      view.path = state.drive.options.path;
      view.open = state.mounted != nullptr;
      view.problem = state.problem;
      view.pending_deletes = state.undeleted.size();
      view.figures = state.past;
      view.figures.state = TierState::kDetached;
      view.figures.capacity_bytes = state.drive.options.capacity_bytes;
      views.push_back(std::move(view));
    }
  }
  for (const Entered& entered : all) {
    DriveView& view = views[entered.drive];
    SegmentTierFigures figures = entered.mounted->tier->figures();
    Leave(entered);
    AddCounters(view.figures, &figures);
    view.figures = std::move(figures);
  }
  return views;
}

Digest128 DriveSet::uuid() const {
  absl::MutexLock lock(&mutex_);
  return drives_.front().drive.options.expected_uuid;
}

}  // namespace terrace
