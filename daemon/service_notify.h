// What the service manager is told: ready, stopping, status, and that the daemon is alive. Without
// a service manager (no NOTIFY_SOCKET) every call does nothing.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace terrace {

// Thread-safe; no call blocks for long, and none reports: a service manager that does not listen is
// its own problem.
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
  // Time within which Watchdog must be called; zero: no watchdog.
  [[nodiscard]] absl::Duration watchdog_interval() const { return watchdog_interval_; }

 private:
  absl::Duration watchdog_interval_;
};

}  // namespace terrace
