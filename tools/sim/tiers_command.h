// `terrace-sim tiers`: its options, and its run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

#include "tools/sim/timing_line.h"

namespace terrace::sim {

struct TiersCommandLine {
  std::vector<std::string> traces;
  std::vector<std::string> policies = {"lru", "phl"};
  std::vector<std::string> local_policies = {"log"};
  std::vector<std::string> rules = {"commit", "eviction", "priced"};
  std::vector<double> budgets = {50};
  bool matched = false;
  std::vector<double> dram = {2};
  std::vector<double> local = {20};
  uint64_t max_requests = 0;
  uint32_t block_tokens = 0;
  std::string plot;
  bool json = false;
  bool timed = false;  // loads take time, as `timing` says
  std::vector<double> shared = {0};
  TimingLine timing;
  std::vector<std::string> loads = {"worth"};
  std::vector<std::string> prefetches = {"none"};
};

// The subcommand; `line` is written to when the command line is parsed.
CLI::App* AddTiersCommand(CLI::App& app, TiersCommandLine& line);

// INVALID_ARGUMENT: what was asked for cannot be simulated. CANCELLED: a signal. UNAVAILABLE: a
// trace cannot be read, or the picture or standard output written.
absl::Status RunTiersCommand(const TiersCommandLine& line);

}  // namespace terrace::sim
