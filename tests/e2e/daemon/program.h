// A program that was started: its standard streams, its pid, its end. Thread-compatible.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/os/descriptor.h"

namespace terrace {

struct Ran {
  int exit_status = -1;  // of WIFEXITED; 128 + signal otherwise
  std::string out;
  std::string err;
};

// Runs to its end with `input` on standard input. `environment` entries ("NAME=VALUE") are added to
// this process's; "NAME" alone removes one. Killed after a minute: exit_status is then 137.
Ran RunProgram(const std::vector<std::string>& command,
               const std::string& input = "",
               const std::vector<std::string>& environment = {});

// A program on a terminal of its own (a pty of 24 rows and 100 columns): all three streams.
class TerminalProgram {
 public:
  static absl::StatusOr<TerminalProgram> Start(const std::vector<std::string>& command,
                                               const std::vector<std::string>& environment = {});
  TerminalProgram(TerminalProgram&&) = default;
  TerminalProgram& operator=(TerminalProgram&&) = delete;
  ~TerminalProgram();

  // Reads until `piece` has appeared `times` times in all that was shown; false when it hasn't
  // within `limit`.
  bool WaitFor(const std::string& piece, int times, absl::Duration limit);
  void Type(const std::string& keys);
  void Signal(int number);
  // Reads to the end; the exit status as in Ran. -1: still running after `limit`.
  int WaitForEnd(absl::Duration limit);
  [[nodiscard]] const std::string& shown() const { return shown_; }

 private:
  TerminalProgram(Descriptor master, pid_t pid) : master_(std::move(master)), pid_(pid) {}
  bool ReadSome(absl::Time until);

  Descriptor master_;
  pid_t pid_ = -1;
  std::string shown_;
};

// Waits for a child of this process; -1: still running after `limit`.
int WaitForChild(pid_t pid, absl::Duration limit);

// fork and exec with these three descriptors as standard streams; in a session of its own.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& command,
                            const std::vector<std::string>& environment,
                            int in,
                            int out,
                            int err);

}  // namespace terrace
