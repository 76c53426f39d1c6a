// What one Watch sends, whichever the carrier: batches of the store's events as messages, and
// heartbeats while there are none. The carrier asks when it could send, at least every
// kWatchPollInterval; nothing waits here.
//
// Confined to one thread at a time. To be destroyed before the store.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "terrace/v1/cache.pb.h"

#include "daemon/store_events.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr absl::Duration kWatchPollInterval = absl::Milliseconds(50);

class WatchFeed {
 public:
  // call_id: of the session's frame; 0: over gRPC.
  WatchFeed(std::unique_ptr<StoreWatcher> watcher,
            const Clock& clock,
            absl::Duration heartbeat,
            uint64_t boot_id,
            uint64_t call_id);

  [[nodiscard]] uint64_t publisher_id() const { return watcher_->publisher_id(); }
  // kIdle: nothing is to be sent now. kBusy: nor yet, but it is worth asking again at once.
  enum class Step : uint8_t { kIdle, kBusy, kMessage };
  Step Next(v1::WatchReply* reply);

 private:
  const std::unique_ptr<StoreWatcher> watcher_;
  const Clock& clock_;
  const absl::Duration heartbeat_;
  const uint64_t boot_id_;
  const uint64_t call_id_;
  absl::Duration sent_at_;
};

}  // namespace terrace
