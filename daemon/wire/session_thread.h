// One I/O thread of the session sockets: an epoll set of connections and of the processes behind
// them.
//
// A connection that ends gives its session back to the store; the leases of the session end when
// its process does, so the pidfd stays watched after the socket has gone. Sessions of one process
// share one watch (by pid while it lives).
//
// Fair: an event is one read and a bounded number of frames; what is left comes after everybody
// else's turn. Thread-safe unless said otherwise.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/arena.h"

#include "daemon/wire/session.h"
#include "tiers/os/descriptor.h"

namespace terrace {

class SessionThread {
 public:
  // poll: how long a turn polls for the next request before it sleeps, as long as that pays.
  static absl::StatusOr<std::unique_ptr<SessionThread>> Start(std::shared_ptr<FrontShared> shared,
                                                              const std::string& name,
                                                              absl::Duration poll);
  // Ends all sessions and joins.
  ~SessionThread();
  SessionThread(const SessionThread&) = delete;
  SessionThread& operator=(const SessionThread&) = delete;

  void Adopt(AcceptedSession accepted);
  // Rises with each turn of the loop, ten times a second at least.
  [[nodiscard]] uint64_t turns() const { return turns_.load(std::memory_order_relaxed); }
  // Processes that are watched though their sessions have ended.
  [[nodiscard]] size_t watched() const { return watched_.load(std::memory_order_relaxed); }

 private:
  // A process whose sessions' leases wait for its end.
  struct Departed {
    PidDescriptor process;
    int pid = 0;  // 0: unknown here
    std::vector<SessionId> sessions;
  };
  enum class Source : uint8_t { kWake = 0, kSocket = 1, kProcess = 2 };

  SessionThread(std::shared_ptr<FrontShared> shared,
                Descriptor epoll,
                EventDescriptor wake,
                absl::Duration poll);

  void Loop();
  // Events that are there or come within a tick; polls first where that pays.
  int Wait(absl::Span<epoll_event> events);
  int Poll(absl::Span<epoll_event> events);
  void TakeAdopted();
  void OnEvent(uint64_t key, uint32_t events);
  void AfterTurn(uint64_t id, Session& session, Session::Turn turn);
  void ContinueAll();
  void TickAll();
  void EndSession(uint64_t id);
  void OnProcessGone(uint64_t id);
  // Keeps the process watched under `id`.
  void Depart(uint64_t id, PidDescriptor process, SessionId session);
  bool WatchProcess(uint64_t id, int pidfd);
  void UnwatchProcess(const PidDescriptor& process);

  const std::shared_ptr<FrontShared> shared_;
  const Descriptor epoll_;
  const EventDescriptor wake_;
  const absl::Duration poll_;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> turns_{0};
  std::atomic<size_t> watched_{0};

  absl::Mutex mutex_;
  std::vector<AcceptedSession> adopted_ ABSL_GUARDED_BY(mutex_);

  // Confined to the thread. Ids are never reused, so that an event that comes late finds nobody.
  uint64_t next_id_ = 1;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Session>> sessions_;
  absl::flat_hash_map<uint64_t, Departed> departed_;
  absl::flat_hash_map<int, uint64_t> departed_by_pid_;
  absl::flat_hash_set<uint64_t> more_;
  bool worked_ = false;         // in the last turn
  uint32_t polls_skipped_ = 0;  // after the last poll in vain: doubled by each such one
  uint32_t polls_to_skip_ = 0;
  absl::Duration contended_until_;  // somebody else wanted the core: no polls
  std::vector<char> scratch_;
  google::protobuf::Arena arena_;

  std::thread thread_;
};

}  // namespace terrace
