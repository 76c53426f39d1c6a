// One run of terraced under a service manager that the test plays, on folders of its own.
// Thread-compatible.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

#include "tiers/os/descriptor.h"

namespace terrace {

// A healthy daemon takes a fraction of a second; a sanitized one on a busy machine takes its time.
inline constexpr absl::Duration kPatience = absl::Seconds(60);

class DaemonRun {
 public:
  DaemonRun();
  DaemonRun(const DaemonRun&) = delete;
  DaemonRun& operator=(const DaemonRun&) = delete;
  // Kills what still runs and removes the folder.
  ~DaemonRun();

  // terraced with these arguments, NOTIFY_SOCKET and `environment`; standard error goes to err, or
  // to `err_fd`.
  void Start(const std::vector<std::string>& arguments,
             const std::vector<std::string>& environment = {},
             int err_fd = -1);
  // An embedded daemon of 64 MiB below the folder; returns when it says READY.
  bool StartSmall(const std::vector<std::string>& more = {},
                  const std::vector<std::string>& environment = {});

  // Whether the service manager is told `piece` within kPatience, once more than the last time.
  bool Told(const std::string& piece);
  // Whether standard error holds `piece` within kPatience.
  bool Logged(const std::string& piece) const;
  [[nodiscard]] std::string err() const;
  void Signal(int number) const;
  // Exit status as of WIFEXITED, 128 + signal otherwise; -1: not within `limit`.
  int End(absl::Duration limit = kPatience);

  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string data() const { return dir_ + "/data"; }
  [[nodiscard]] std::string runtime() const { return dir_ + "/data/run"; }
  // Writes DIR/NAME and returns its path.
  [[nodiscard]] std::string Write(const std::string& name, const std::string& text) const;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  std::string dir_;
  Descriptor notify_;
  std::string told_;  // what Told has not looked at yet
  pid_t pid_ = -1;
};

}  // namespace terrace
