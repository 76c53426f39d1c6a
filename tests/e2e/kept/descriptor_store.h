// A service manager in small: the socket that a daemon notifies, the descriptors that it stores,
// and starts that hand them over as systemd does (sd_listen_fds(3), sd_notify(3)).
// Thread-compatible; the socket is read by a thread of its own.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/os/descriptor.h"

namespace terrace {

class DescriptorStore {
 public:
  DescriptorStore();
  DescriptorStore(const DescriptorStore&) = delete;
  DescriptorStore& operator=(const DescriptorStore&) = delete;
  // Kills what still runs and removes the folder.
  ~DescriptorStore();

  // terraced with an embedded configuration below dir() and these arguments; true when it says
  // READY.
  bool Start(const std::vector<std::string>& arguments);
  // SIGKILL or SIGTERM; returns when it is gone: the exit status, or 128 + signal.
  int End(int signal);

  // Whether `condition` of the stored descriptors came true within a minute.
  bool Eventually(
      const std::function<bool(const std::multimap<std::string, Descriptor>&)>& condition) const;
  [[nodiscard]] size_t count() const;
  // For tests that tamper with it, while no daemon runs.
  std::multimap<std::string, Descriptor> TakeAll();
  void Put(std::string name, Descriptor fd);

  [[nodiscard]] std::string runtime() const { return dir_ + "/data/run"; }
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string Log() const;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  void Loop();
  void Heard(const std::string& message, std::vector<Descriptor> descriptors);

  std::string dir_;
  Descriptor socket_;
  EventDescriptor stop_;
  pid_t pid_ = -1;
  mutable absl::Mutex mutex_;
  std::multimap<std::string, Descriptor> stored_ ABSL_GUARDED_BY(mutex_);
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace terrace
