#include "daemon/service_notify.h"

#include <systemd/sd-daemon.h>

#include <cstdint>
#include <ctime>

#include "daemon/concat.h"

namespace terrace {
namespace {

// A status is one line of the protocol; a line break in it would begin another variable.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') {
      c = ' ';
    }
  }
  return text;
}

void Send(const std::string& message) {
  sd_notify(0, message.c_str());
}

}  // namespace

ServiceNotify::ServiceNotify() {
  uint64_t interval_us = 0;
  if (sd_watchdog_enabled(0, &interval_us) > 0) {
    watchdog_interval_ = absl::Microseconds(interval_us);
  }
}

void ServiceNotify::Ready(const std::string& status) const {
  Send(Concat("READY=1\nSTATUS=", OneLine(status)));
}

void ServiceNotify::Stopping(const std::string& status) const {
  Send(Concat("STOPPING=1\nSTATUS=", OneLine(status)));
}

void ServiceNotify::Reloading() const {
  // CLOCK_MONOTONIC is what sd_notify(3) asks for with RELOADING=1.
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t microseconds = int64_t{now.tv_sec} * 1000000 + now.tv_nsec / 1000;
  Send(Concat("RELOADING=1\nMONOTONIC_USEC=", microseconds));
}

void ServiceNotify::Status(const std::string& status) const {
  Send(Concat("STATUS=", OneLine(status)));
}

void ServiceNotify::ExtendStart(absl::Duration by) const {
  Send(Concat("EXTEND_TIMEOUT_USEC=", absl::ToInt64Microseconds(by)));
}

void ServiceNotify::Watchdog() const {
  Send("WATCHDOG=1");
}

}  // namespace terrace
