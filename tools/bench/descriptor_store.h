// Of a service manager in small: the socket that a daemon notifies, the descriptors that it stores
// there, and what the next start is handed, as systemd does it (sd_notify(3), sd_listen_fds(3)).
// Thread-safe; the socket is read by a thread of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/os/descriptor.h"
#include "tools/bench/child_process.h"

namespace terrace::bench {

class DescriptorStore {
 public:
  using Stored = std::multimap<std::string, Descriptor>;  // by FDNAME

  // Its socket is `folder`/notify. Errors: INTERNAL (no socket there).
  static absl::StatusOr<std::unique_ptr<DescriptorStore>> Create(const std::string& folder);
  ~DescriptorStore();
  DescriptorStore(const DescriptorStore&) = delete;
  DescriptorStore& operator=(const DescriptorStore&) = delete;

  // For a start: all that is stored, which stays stored and open until that start has been made.
  // The daemon before is taken to be gone: WaitReady waits for the next one.
  Handover NextStart();
  bool WaitReady(absl::Duration limit) const;

  [[nodiscard]] size_t count() const;
  // Whether `condition` came true of what is stored.
  bool Wait(const std::function<bool(const Stored&)>& condition, absl::Duration limit) const;
  // For tests that tamper with it, while no daemon runs.
  Stored TakeAll();
  void Put(std::string name, Descriptor descriptor);

 private:
  DescriptorStore(std::string path, Descriptor socket, EventDescriptor stop);
  void Loop();
  void Receive();
  void Heard(const std::string& message, std::vector<Descriptor> descriptors);

  const std::string path_;
  const Descriptor socket_;
  EventDescriptor stop_;
  mutable absl::Mutex mutex_;
  Stored stored_ ABSL_GUARDED_BY(mutex_);
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace terrace::bench
