// An engine on a thread of its own that lives through what others do: it stores, probes, leases,
// keeps leases for a while, loads, and checks every byte that it is given, again when a lease ends.
// Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace terrace {

class Witness {
 public:
  enum class Expects : uint8_t {
    kNoFault,
    kOutages
  };  // kOutages: calls may end UNAVAILABLE and the like
  struct Options {
    std::string runtime_dir;
    std::string name;
    uint64_t seed = 0;
    uint32_t key_count = 0;  // ids 0 to key_count - 1 are shared by everyone
    Expects expects = Expects::kNoFault;
  };
  struct Account {
    uint64_t rounds = 0;
    uint64_t hits = 0;
    uint64_t stored = 0;
    uint64_t wrong_bytes = 0;  // blocks, not bytes
    uint64_t faults = 0;       // statuses that are not OK; calls that never ended count here too
    uint64_t hung = 0;         // calls that never ended
    uint64_t boot_id = 0;
    uint32_t reconnects = 0;
    std::string first_fault;
  };

  explicit Witness(Options options);
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;
  // Ends the thread and the client.
  ~Witness();

  Account account() const;
  // Returns when it holds nothing but its session and staging region, and stays so until Resume.
  bool Pause(absl::Duration limit);
  void Resume();
  // Waits until `enough` says so of the account. False: not within `limit`.
  bool WaitUntil(const std::function<bool(const Account&)>& enough, absl::Duration limit) const;

 private:
  class Work;
  void Run();

  const Options options_;
  mutable absl::Mutex mutex_;
  Account account_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool pause_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace terrace
