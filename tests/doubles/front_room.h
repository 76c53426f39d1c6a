// A whole front for tests: listeners in a private folder, over a BlockStore whose slabs clients can
// map.
//
// The tenant of a peer is "uid-N". Time is real unless a test brings its own clock; a thread ticks
// the store.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "terrace/v1/cache.pb.h"

#include "daemon/block_store.h"
#include "daemon/call_observer.h"
#include "daemon/front.h"
#include "daemon/gpu_handoff.h"
#include "daemon/observer_relay.h"
#include "tests/doubles/frame_client.h"
#include "tiers/dram/arena.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace::doubles {

// Counts what the front reports. Thread-safe.
class CountingObserver final : public CallObserver {
 public:
  void Finished(const FinishedCall& call) override;
  void Connection(Carrier carrier, std::string_view kind) override;
  // Calls of the verb that ended with the status.
  [[nodiscard]] int Calls(std::string_view verb, absl::StatusCode status) const;
  [[nodiscard]] int Connections(Carrier carrier, std::string_view kind) const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::pair<std::string, absl::StatusCode>, int> calls_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<Carrier, std::string>, int> connections_ ABSL_GUARDED_BY(mutex_);
};

struct FrontRoomOptions {
  FrontLimits limits;
  uint64_t dram_bytes = uint64_t{128} << 20;
  const Clock* clock = nullptr;  // null: BootClock
  Executor* executor = nullptr;  // null: two threads
  std::vector<LowerTier*> lower_tiers = {};
  int io_threads = 2;
  mode_t socket_mode = 0660;
  AdminHooks hooks = {};
  std::optional<GpuDeviceOptions> gpus = std::nullopt;  // nullopt: GPU regions are not served
};

class FrontRoom {
 public:
  static absl::StatusOr<std::unique_ptr<FrontRoom>> Open(FrontRoomOptions options);
  static absl::StatusOr<std::unique_ptr<FrontRoom>> Open() { return Open(FrontRoomOptions()); }
  ~FrontRoom();
  FrontRoom(const FrontRoom&) = delete;
  FrontRoom& operator=(const FrontRoom&) = delete;

  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  Front& front() { return *front_; }
  void StopFront();
  BlockStore& store() { return *store_; }
  GpuHandoff& gpu() { return *gpu_; }
  // Whatever may go has gone from DRAM when this returns.
  void EvictAll() {
    absl::Notification evicted;
    store_->Evict("", 0, [&evicted](const absl::StatusOr<EvictResult>&) { evicted.Notify(); });
    evicted.WaitForNotification();
  }
  CountingObserver& observer() { return observer_; }
  // Connected, and Hello said.
  absl::StatusOr<std::unique_ptr<FrameClient>> NewSession();
  absl::StatusOr<std::unique_ptr<FrameClient>> Connect() {
    return FrameClient::Connect(path("session.sock"));
  }

 private:
  FrontRoom() = default;
  absl::Status Fill(FrontRoomOptions options);

  std::string folder_;
  CountingObserver observer_;
  ObserverRelay relay_;
  std::unique_ptr<SlabSource> slabs_;
  std::unique_ptr<Executor> own_executor_;
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<GpuHandoff> gpu_;
  std::unique_ptr<Front> front_;
  std::atomic<bool> stopping_{false};
  std::thread ticker_;
};

// True when `holds` becomes true within `limit`; looks once every `pause`.
template <typename Condition>
bool Eventually(Condition holds,
                absl::Duration limit = absl::Seconds(20),
                absl::Duration pause = absl::Milliseconds(1)) {
  const absl::Duration until = BootClock().Now() + limit;
  while (!holds()) {
    if (BootClock().Now() > until) {
      return false;
    }
    absl::SleepFor(pause);
  }
  return true;
}

// ---- small things that tests of the carriers say often
std::string TestKey(uint64_t n, uint32_t key_bytes = 32);
std::string TestPayload(uint64_t n, size_t bytes);
v1::NamespaceRecord TestRecord(uint64_t block_bytes);

}  // namespace terrace::doubles
