// What the service manager is told, and what it keeps for the next start: ready, stopping, status,
// and that the daemon is alive. Without a service manager (no NOTIFY_SOCKET) every call does
// nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "tiers/os/descriptor.h"

namespace terrace {

// A descriptor that the service manager kept from an earlier start.
struct KeptDescriptor {
  std::string name;
  Descriptor fd;
};

// Thread-safe; no call but Barrier blocks for long, and none reports: a service manager that does
// not listen is its own problem.
class ServiceNotify {
 public:
  // Reads NOTIFY_SOCKET and WATCHDOG_USEC once.
  ServiceNotify();

  void Ready(const std::string& status) const;
  void Stopping(const std::string& status) const;
  // RELOADING=1 and READY=1 around a reload.
  void Reloading() const;
  void Status(const std::string& status) const;
  // Start-up takes this much longer than now, at most.
  void ExtendStart(absl::Duration by) const;
  void Watchdog() const;

  // ---- the store of descriptors (sd_notify(3): FDSTORE=1). Names are of letters and digits.
  // Whether there may be one.
  [[nodiscard]] bool may_keep() const { return keep_limit_ > 0; }
  // Descriptors that it has room for; where the service manager does not tell, many.
  [[nodiscard]] uint64_t keep_limit() const { return keep_limit_; }
  // False: not even sent. Whether it was stored nobody tells.
  [[nodiscard]] bool Keep(const std::string& name, const Descriptor& fd) const;
  void Unkeep(const std::string& name) const;  // all of this name
  // Until all that was sent before has been dealt with. False: not within `limit`.
  [[nodiscard]] bool Barrier(absl::Duration limit) const;
  // What it kept, once, and before other threads or processes are started.
  static std::vector<KeptDescriptor> TakeKept();
  // Time within which Watchdog must be called; zero: no watchdog.
  [[nodiscard]] absl::Duration watchdog_interval() const { return watchdog_interval_; }

 private:
  absl::Duration watchdog_interval_;
  uint64_t keep_limit_ = 0;
};

}  // namespace terrace
