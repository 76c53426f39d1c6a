// What a scenario of terrace-bench is given and what it gives back. One file a scenario; main.cc
// has the list.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "tools/bench/progress.h"
#include "tools/bench/report.h"

namespace terrace::bench {

struct BenchOptions {
  // Where the daemon is.
  std::string runtime_dir;    // of a daemon that runs; "": the scenario starts one of its own
  std::string data_dir;       // parent of the own daemon's private folder; "": $TMPDIR, else /tmp
  std::string terraced;       // program; "": beside terrace-bench, see DaemonProcess
  uint64_t dram_bytes = 0;    // of the own daemon; 0: what the scenario needs
  uint64_t local_bytes = 0;   // of the own daemon's local tier; 0: what the scenario needs
  uint32_t copy_threads = 0;  // of the own daemon, and of what it is compared with; 0: one a core
  // What is measured.
  uint32_t pairs = 11;       // figure and limit alternate so often, at least 9
  uint64_t blocks = 0;       // 0: the scenario's own
  uint64_t block_bytes = 0;  // 0: the scenario's own
  uint64_t seed = 1;         // of namespaces and of every random choice
  enum class Verify : uint8_t { kYes, kNo } verify = Verify::kYes;
  // replay
  std::string trace;
  double speed = 0;           // 1: the trace's own time; 0: as fast as possible
  uint64_t max_requests = 0;  // 0: all
  uint32_t block_tokens = 0;  // 0: found out from the trace
  double kill_at = 0;  // in % of the requests: the daemon is killed and started again; 0: not
  // The daemon is told when conversations come back; negative: it is not. 0: exactly, else times
  // e to the power of so much, up and down at random.
  double return_spread = -1;
  enum class Where : uint8_t { kDaemon, kInProcess } where = Where::kDaemon;
  std::string policy = "phl";  // of the own daemon, or of the store in process
  // torture
  uint64_t kills = 300;
  // ttft
  std::string model = "llama-3-8b";  // of declared_models.h
  // shared
  std::string auth = "none";  // of the pool, as terraced is configured
};

struct Scenario {
  const char* name;
  const char* summary;
  // Errors: what kept it from being measured. CANCELLED: interrupted.
  absl::Status (*run)(const BenchOptions& options, Report& report, Progress& progress);
};

absl::Status RunDram(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunProbe(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunRpc(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunReplay(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunLocal(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunShared(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunRestart(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunTorture(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunGpu(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunTtft(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunNeighbour(const BenchOptions& options, Report& report, Progress& progress);
absl::Status RunPeers(const BenchOptions& options, Report& report, Progress& progress);

}  // namespace terrace::bench
