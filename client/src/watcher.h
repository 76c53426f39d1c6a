// The watch behind watch.h: a session of its own that asks for events, hands them out as they lie
// in the receive buffer, and asks again where a connection or the daemon was lost.
//
// A subscription either goes on behind the last event that was taken, which the daemon answers with
// a GAP where it cannot, or begins with a snapshot. It is asked for a snapshot as long as there is
// no whole picture to go on from: before the first SNAPSHOT_END, and after a GAP.
//
// Thread-compatible. What throws (std::bad_alloc alone) says so.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/watch.h"

#include "client/src/instant.h"
#include "client/src/jitter.h"
#include "client/src/link.h"
#include "client/src/process_mark.h"
#include "client/src/verdict.h"
#include "client/src/wakeup.h"
#include "client/src/watch_messages.h"
#include "client/src/watched_record.h"

namespace terrace::client {

struct WatchOptions {
  std::string socket_path;
  std::string client_name;
  uint32_t reconnect_ms = 1000;
  uint32_t heartbeat_ms = 1000;
  bool snapshots = false;
  uint64_t publisher_id = 0;
  uint64_t after_sequence = 0;
  std::string namespaces;  // 16 bytes each, end to end
};

class Watcher {
 public:
  // Throws.
  explicit Watcher(WatchOptions options);
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Makes the event descriptor and tries to connect once. RESOURCE_EXHAUSTED: out of descriptors.
  // Throws.
  Verdict Open();
  // False in a forked child, which must not use the watch.
  [[nodiscard]] bool SameProcess() const { return mark_.SameProcess(); }

  // As terrace_watch_next.
  uint32_t Next(const terrace_event** events, uint32_t timeout_ms) noexcept;
  [[nodiscard]] int event_descriptor() const { return wakeup_.fd(); }
  [[nodiscard]] terrace_watch_state State() const;

 private:
  enum class Stage { kDown, kGreeting, kAsking, kServing };
  enum class Why { kLost, kOwnWish };

  void Advance(Instant now);
  // All of these throw, but for what ends a connection.
  void AdvanceOrThrow(Instant now);
  void Connect(Instant now);
  void Send(Method method, std::string_view message);
  void Greet();
  void Ask();
  // Until something was handed out or nothing is there.
  void Receive(Instant now);
  // False: the connection is of no use any more.
  bool TakeFrames(Instant now);
  bool TakeReply(const ReceivedFrame& frame, Instant now);
  bool TakeEvents(std::string_view message);
  void TakeEvent(const WatchEvent& event);
  void TakeNamespace(const WatchedNamespaceMessage& message);
  terrace_event& HandOut(uint32_t kind);
  const char* TierName(std::string_view name);
  void Lose(std::string_view why, Instant now);
  void Close(Why why, Instant now);
  void HandOutOwed();
  [[nodiscard]] bool WantsSnapshot() const { return options_.snapshots && !whole_; }
  [[nodiscard]] Instant SilentAt() const;
  [[nodiscard]] Instant NextWake() const;

  const WatchOptions options_;
  const ProcessMark mark_;
  Link link_;
  Wakeup wakeup_;
  Jitter jitter_;

  Stage stage_ = Stage::kDown;
  uint64_t next_call_id_ = 1;
  uint64_t watch_call_id_ = 0;
  Instant next_attempt_ = 0;
  Instant heard_at_ = 0;  // the last time that it said anything
  bool told_up_ = false;  // UP was handed out, and no DOWN since
  bool owes_down_ = false;
  bool ask_again_ = false;  // with a snapshot
  Instant own_wish_at_ = -kNever / 2;
  uint32_t served_ = 0;  // connections
  std::array<char, 160> trouble_{};

  // From where to go on.
  uint64_t publisher_id_ = 0;
  uint64_t sequence_ = 0;
  bool whole_ = false;

  std::vector<terrace_event> batch_;  // handed out last; points into the link's buffer
  std::vector<std::unique_ptr<WatchedRecord>> records_;  // of the batch
  std::set<std::string, std::less<>> tiers_;
};

}  // namespace terrace::client
