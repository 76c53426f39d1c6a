// `terrace-sim pool`: its options, and its run.
#pragma once

#include <cstdint>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

#include "tools/sim/pool_simulation.h"

namespace terrace::sim {

struct PoolCommandLine {
  std::vector<uint32_t> nodes = {2, 8, 32, 128, 1000};
  PoolPlan plan;  // but for the nodes
  bool json = false;
};

// The subcommand; `line` is written to when the command line is parsed.
CLI::App* AddPoolCommand(CLI::App& app, PoolCommandLine& line);

// INVALID_ARGUMENT: what was asked for cannot be simulated. CANCELLED: a signal.
absl::Status RunPoolCommand(const PoolCommandLine& line);

}  // namespace terrace::sim
