// The newest events of one tenant, numbered from 1 without holes, in bounded memory.
//
// Readers keep their place as a sequence and ask for the events behind it; what has fallen out of
// the ring is lost for them. An event grows by the keys of those that follow, as long as it says
// the same of them and nobody has seen it, so that a prompt is one event and not one a block.
//
// Recording can be off, and costs nothing then; all that happens meanwhile counts as one lost
// event.
//
// Thread-compatible: confined to the store's lock.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/time/time.h"

#include "daemon/store_events.h"

namespace terrace {

class EventJournal {
 public:
  struct Limits {
    size_t events = 65536;
    uint64_t bytes = uint64_t{16} << 20;
    uint64_t event_bytes = uint64_t{64} << 10;  // beyond it no keys are added to an event
  };
  EventJournal() = default;
  explicit EventJournal(const Limits& limits) : limits_(limits) {}

  [[nodiscard]] bool recording() const { return recording_; }
  // Does nothing while it is on.
  void Start();
  void Stop();

  // Only while recording. `event.sequence` is set here.
  void Add(StoreEvent event);
  // Something happened that cannot be told: it counts as one event, lost like all before it.
  void Lose();

  // The newest sequence, to be shown to somebody: from now on nothing is added to that event.
  uint64_t See() { return seen_ = newest_; }
  // Events from oldest() on can be read; newest + 1: there are none.
  [[nodiscard]] uint64_t oldest() const { return newest_ + 1 - events_.size(); }
  // `sequence` from oldest() to See().
  [[nodiscard]] const StoreEvent& at(uint64_t sequence) const {
    return events_[sequence - oldest()];
  }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  // Whether the newest event now says it, too.
  bool Join(StoreEvent& event);

  Limits limits_;
  std::deque<StoreEvent> events_;
  uint64_t newest_ = 0;
  uint64_t seen_ = 0;
  uint64_t bytes_ = 0;
  bool recording_ = false;
};

// The journals of a store, and who reads them. Guarded by the store's lock.
struct EventBook {
  struct OfTenant {
    EventJournal journal;
    uint32_t watchers = 0;
    uint32_t snapshots = 0;  // that are being told
    absl::Duration left_at;  // by the last watcher
  };
  uint64_t publisher_id = 0;
  bool recording = false;                          // of any tenant
  std::vector<std::unique_ptr<OfTenant>> tenants;  // by TenantId; nullptr: never watched

  // nullptr: not recording.
  EventJournal* JournalOf(TenantId tenant) {
    const auto index = static_cast<uint32_t>(tenant);
    return index < tenants.size() && tenants[index] != nullptr &&
                   tenants[index]->journal.recording()
               ? &tenants[index]->journal
               : nullptr;
  }
};

}  // namespace terrace
