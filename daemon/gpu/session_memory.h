// Which sessions have memory of GPUs that may still be touched, and who waits until they have none.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/block_store.h"

namespace terrace {

// Runs `done` when all copies of it are gone.
inline std::shared_ptr<const void> AtEnd(std::function<void()> done) {
  return {nullptr, [done = std::move(done)](const void* /*nothing*/) { done(); }};
}

// Thread-safe. What runs when a session's memory is free runs on the thread that lets go of it
// last, without any lock.
class SessionMemory {
 public:
  // Owners: the session's regions, and the callbacks of those that are being closed.
  using Use = std::shared_ptr<std::vector<std::shared_ptr<const void>>>;

  Use Begin(SessionId session) {
    const absl::MutexLock lock(&mutex_);
    auto& known = uses_[session];
    Use use = known.lock();
    if (use == nullptr) {
      known = use = std::make_shared<Use::element_type>();
    }
    return use;
  }

  // The session begins no more. `free` is let go of when all uses have ended.
  void End(SessionId session, std::shared_ptr<const void> free) {
    Use use;  // outlives the lock
    const absl::MutexLock lock(&mutex_);
    const auto known = uses_.find(session);
    if (known == uses_.end()) {
      return;
    }
    use = known->second.lock();
    uses_.erase(known);
    if (use != nullptr) {
      use->push_back(std::move(free));
    }
  }

 private:
  absl::Mutex mutex_;
  std::map<SessionId, std::weak_ptr<Use::element_type>> uses_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
