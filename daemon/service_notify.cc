#include "daemon/service_notify.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
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
  if (std::getenv("NOTIFY_SOCKET") != nullptr) {
    const char* const limit = std::getenv("FDSTORE");  // systemd 254
    keep_limit_ = limit == nullptr ? UINT64_MAX : std::strtoull(limit, nullptr, 10);
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

bool ServiceNotify::Keep(const std::string& name, const Descriptor& fd) const {
  const int number = fd.get();
  // Without FDPOLL=0 the end of what a pidfd names would take it away.
  return sd_pid_notify_with_fds(0, 0, Concat("FDSTORE=1\nFDPOLL=0\nFDNAME=", name).c_str(), &number,
                                1) > 0;
}

void ServiceNotify::Unkeep(const std::string& name) const {
  Send(Concat("FDSTOREREMOVE=1\nFDNAME=", name));
}

bool ServiceNotify::Barrier(absl::Duration limit) const {
  return sd_notify_barrier(0, static_cast<uint64_t>(absl::ToInt64Microseconds(limit))) > 0;
}

std::vector<KeptDescriptor> ServiceNotify::TakeKept() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(1, &names);
  std::vector<KeptDescriptor> kept;
  for (int i = 0; i < count; ++i) {
    kept.push_back({names[i], Descriptor(SD_LISTEN_FDS_START + i)});
    std::free(names[i]);
  }
  std::free(names);
  return kept;
}

}  // namespace terrace
