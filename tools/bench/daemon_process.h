// The daemon that a scenario measures: one that runs, or one of the bench's own on a private
// folder, which is stopped and removed when this goes, and which the kernel kills should the bench
// be killed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/child_process.h"
#include "tools/bench/client_session.h"
#include "tools/bench/scenario.h"

namespace terrace::bench {

// local.max_block of an own daemon that Start starts.
inline constexpr uint64_t kOwnLocalMaxBlock = uint64_t{16} << 20;

// Confined to the main thread.
class DaemonProcess {
 public:
  // Attaches to options.runtime_dir, or starts a daemon with `dram_bytes` and `local_bytes` (those
  // of the options, when given, win; local_bytes 0: no local tier) and waits until a session with
  // it stands. The program: options.terraced, else $TERRACE_TERRACED, else ../daemon/terraced or
  // terraced beside this program. Errors: NOT_FOUND (no program), FAILED_PRECONDITION (it ended;
  // the end of its log is in the message), DEADLINE_EXCEEDED (not ready within two minutes and a
  // minute a GiB), CANCELLED.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(const BenchOptions& options,
                                                              uint64_t dram_bytes,
                                                              uint64_t local_bytes = 0);
  // An own daemon's folders and command line, with further settings (SECTION.KEY=VALUE), and no
  // process yet. config_text: what its configuration file says; "": it has none.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Prepare(
      const BenchOptions& options,
      uint64_t dram_bytes,
      uint64_t local_bytes,
      const std::vector<std::string>& settings = {},
      const std::string& config_text = "");
  // The same as Start, and a session with it.
  struct Connected;
  static absl::StatusOr<Connected> StartConnected(const BenchOptions& options,
                                                  uint64_t dram_bytes,
                                                  uint64_t local_bytes = 0);
  // Stops an own daemon with SIGTERM, and SIGKILL after ten seconds; removes its folder.
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;
  DaemonProcess(DaemonProcess&&) = delete;
  DaemonProcess& operator=(DaemonProcess&&) = delete;

  [[nodiscard]] const std::string& runtime_dir() const { return runtime_dir_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // The own daemon's private folder; "": attached.
  [[nodiscard]] const std::string& folder() const { return folder_; }
  // Of the own daemon; the folder of its local tier and that of the tier's index.
  [[nodiscard]] std::string local_dir() const { return folder_ + "/data/local"; }
  [[nodiscard]] std::string index_dir() const { return folder_ + "/data/local-index"; }
  // Ends an own daemon, and starts it again on the same folders. Start waits as the first one did.
  void Stop() { child_.Stop(); }
  void Kill() { child_.Kill(); }
  absl::Status StartAgain(const Handover& handover = {});
  // The same without the wait.
  absl::Status Launch(const Handover& handover = {});
  // Whether an own daemon, which was started, is not there any more.
  [[nodiscard]] bool HasEnded() { return !folder_.empty() && !child_.Running(); }
  // The last lines of the own daemon's log.
  [[nodiscard]] std::string LogEnd() const;

  // Of the own daemon's DRAM; 0: attached to one that was running.
  [[nodiscard]] uint64_t own_dram_bytes() const { return dram_bytes_; }

  // Processor time that the process has used, seconds. Negative: cannot be read.
  [[nodiscard]] double CpuSeconds() const;
  // Resident memory of the process without its arena and without files (RssAnon), bytes; 0: cannot
  // be read.
  [[nodiscard]] uint64_t PrivateBytes() const;
  // Bytes that the process has had written to its drives (write_bytes of proc(5)); 0: cannot be
  // read.
  [[nodiscard]] uint64_t DeviceWrittenBytes() const;

 private:
  DaemonProcess() = default;
  absl::Status WaitReady();
  absl::Status Attach();

  std::string folder_;  // private; "": attached
  std::string runtime_dir_;
  std::vector<std::string> args_;  // of the own daemon
  ChildProcess child_;
  pid_t pid_ = 0;
  uint64_t dram_bytes_ = 0;
};

struct DaemonProcess::Connected {
  std::unique_ptr<DaemonProcess> daemon;
  std::unique_ptr<ClientSession> session;  // ends before the daemon
};

// The folder of this program.
std::string ProgramFolder();
// A fresh folder below `parent` ("": $TMPDIR, else /tmp).
absl::StatusOr<std::string> MakePrivateFolder(const std::string& parent);

}  // namespace terrace::bench
