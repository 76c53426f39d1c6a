// What all connections of a front share. Owners: the front and every session and gRPC call, so that an answer that comes
// after the front has stopped finds the gate shut instead of freed memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

#include "daemon/block_store.h"
#include "daemon/call_observer.h"
#include "daemon/front.h"
#include "daemon/wire/calls.h"

namespace terrace {

// Lets late completions in until it is shut; Shut returns when none is inside any more. Thread-safe.
class ShutGate {
 public:
  // True: the caller is inside until Leave.
  bool Enter() {
    if ((inside_.fetch_add(1) & kShut) == 0) {
      return true;
    }
    Leave();
    return false;
  }
  void Leave() { inside_.fetch_sub(1); }
  void Shut() {
    inside_.fetch_or(kShut);
    while (inside_.load() != kShut) {
      absl::SleepFor(absl::Microseconds(100));  // once, at the end of the process
    }
  }

 private:
  static constexpr uint64_t kShut = uint64_t{1} << 63;
  std::atomic<uint64_t> inside_{0};
};

class Session;

// Sessions by id, for what the store has to tell them. Thread-safe.
class SessionDirectory {
 public:
  void Add(SessionId id, std::weak_ptr<Session> session) {
    absl::MutexLock lock(&mutex_);
    sessions_[id] = std::move(session);
  }
  void Remove(SessionId id) {
    absl::MutexLock lock(&mutex_);
    sessions_.erase(id);
  }
  std::shared_ptr<Session> Find(SessionId id) {
    absl::MutexLock lock(&mutex_);
    const auto found = sessions_.find(id);
    return found == sessions_.end() ? nullptr : found->second.lock();
  }
  std::vector<std::shared_ptr<Session>> All() {
    absl::MutexLock lock(&mutex_);
    std::vector<std::shared_ptr<Session>> all;
    for (const auto& [id, session] : sessions_) {
      if (std::shared_ptr<Session> alive = session.lock()) {
        all.push_back(std::move(alive));
      }
    }
    return all;
  }

 private:
  absl::Mutex mutex_;
  absl::flat_hash_map<SessionId, std::weak_ptr<Session>> sessions_ ABSL_GUARDED_BY(mutex_);
};

struct FrontShared {
  FrontShared(BlockStore& block_store,
              const Clock& injected_clock,
              CallObserver& call_observer,
              const FrontLimits& front_limits,
              uint64_t boot)
      : store(block_store),
        clock(injected_clock),
        observer(call_observer),
        limits(front_limits),
        boot_id(boot),
        calls(block_store, front_limits, boot) {}

  // Only to be touched from threads of the front, or inside the gate.
  BlockStore& store;
  const Clock& clock;
  CallObserver& observer;
  const FrontLimits limits;
  const uint64_t boot_id;
  std::string version;
  Calls calls;
  SessionDirectory directory;
  ShutGate gate;
  std::atomic<uint64_t> calls_in_flight{0};  // whose answer has not been given
};

// What a safety answer waits beyond a call's deadline, so that the store's own answer per key goes first.
inline constexpr absl::Duration kSafetyMargin = absl::Seconds(1);

std::string_view VerbName(v1::Method method);

}  // namespace terrace
