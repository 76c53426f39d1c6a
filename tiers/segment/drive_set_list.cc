// A set of drives: what lies on them by name.
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "tiers/segment/drive_set.h"

namespace terrace {

void DriveSet::WatchChanges(LearnChanges learn) {
  {
    absl::MutexLock lock(&watch_mutex_);
    changes_watched_ = learn != nullptr;
    learn_changes_ = std::move(learn);
  }
  std::vector<Entered> all;
  {
    absl::MutexLock lock(&mutex_);
    all = EnterAllLocked();
    drives_changed_ = false;  // nobody has a list yet
  }
  WatchTiers(all);
  for (const Entered& entered : all) {
    Leave(entered);
  }
}

void DriveSet::WatchTiers(const std::vector<Entered>& all) {
  for (const Entered& entered : all) {
    const bool watched = changes_watched_;
    if (entered.mounted->watched.exchange(watched) == watched) {
      continue;
    }
    LearnChanges tell;
    if (watched) {
      tell = [this](const std::vector<NamedBlock>& changed, Unnamed unnamed) {
        absl::ReaderMutexLock lock(&watch_mutex_);
        if (learn_changes_) {
          learn_changes_(changed, unnamed);
        }
      };
    }
    entered.mounted->tier->WatchChanges(std::move(tell));
  }
}

// A drive came with blocks that nobody knows here, or went with them.
void DriveSet::TellUnnamed() {
  absl::ReaderMutexLock lock(&watch_mutex_);
  if (learn_changes_) {
    learn_changes_({}, Unnamed::kMore);
  }
}

void DriveSet::List(const ListPlace& from,
                    std::function<void(const ListPlace& next, std::vector<NamedBlock>)> done) {
  ListPlace place = from;
  Entered entered;
  {
    absl::MutexLock lock(&mutex_);
    while (place.drive < drives_.size() &&
           (closing_ || drives_[place.drive].mounted == nullptr || place.over)) {
      place = {place.drive + 1, 0, 0, false};
    }
    if (place.drive < drives_.size()) {
      entered = {place.drive, drives_[place.drive].mounted};
      ++entered.mounted->calls;
      ++calls_;
    }
  }
  if (entered.mounted == nullptr) {
    place.over = true;
    done(place, {});
    return;
  }
  entered.mounted->tier->List(place, [this, entered, done = std::move(done)](
                                         const ListPlace& next, std::vector<NamedBlock> blocks) {
    done(next.over ? ListPlace{entered.drive + 1, 0, 0, false} : next, std::move(blocks));
    Leave(entered);
  });
}

}  // namespace terrace
