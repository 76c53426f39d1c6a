// Calls of a pool that no worker has begun: by priority, oldest first, each with its deadline.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "tiers/shared/pool_files.h"

namespace terrace {

struct PendingCall {
  PoolCall call;
  std::function<void(PoolReply)> done;
  // In its place where the call's own buffer is not of the memory that the worker sees.
  std::shared_ptr<PoolBuffer> staged;
  std::vector<FolderEntry> entries;  // of the parts of a listing that have come

  void End(PoolReply reply) {
    // Whoever waits for `done` may look at what is left of the room.
    staged.reset();
    call.buffer.reset();
    done(std::move(reply));
  }
  void End(absl::Status status) { End({std::move(status), 0, {}, {}}); }
};

// Thread-compatible. Its owner bounds it.
class CallQueue {
 public:
  void Push(PendingCall pending) {
    earliest_ = std::min(earliest_, pending.call.deadline);
    queues_[static_cast<size_t>(pending.call.priority) - 1].push_back(std::move(pending));
  }

  std::optional<PendingCall> Pop() {
    for (auto queue = queues_.rbegin(); queue != queues_.rend(); ++queue) {
      if (!queue->empty()) {
        PendingCall pending = std::move(queue->front());
        queue->pop_front();
        return pending;
      }
    }
    return std::nullopt;
  }

  // Those whose deadline has passed. Looks at all of them no more often than one may have.
  std::vector<PendingCall> TakeExpired(absl::Duration now) {
    return now < earliest_ ? std::vector<PendingCall>() : TakeUntil(now);
  }
  std::vector<PendingCall> TakeAll() { return TakeUntil(absl::InfiniteDuration()); }

  // None passes before; one that is gone already may be meant.
  [[nodiscard]] absl::Duration earliest_deadline() const { return earliest_; }

 private:
  std::vector<PendingCall> TakeUntil(absl::Duration now) {
    std::vector<PendingCall> taken;
    earliest_ = absl::InfiniteDuration();
    for (std::deque<PendingCall>& queue : queues_) {
      std::deque<PendingCall> kept;
      for (PendingCall& pending : queue) {
        if (pending.call.deadline <= now) {
          taken.push_back(std::move(pending));
        } else {
          earliest_ = std::min(earliest_, pending.call.deadline);
          kept.push_back(std::move(pending));
        }
      }
      queue = std::move(kept);
    }
    return taken;
  }

  std::array<std::deque<PendingCall>, 3> queues_;
  absl::Duration earliest_ = absl::InfiniteDuration();
};

}  // namespace terrace
