// terrace-sim: the placement code over traces, many policies and capacities in one run; DRAM over a
// local tier; and a pool's fleet in virtual time.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"

#include "tools/bench/progress.h"
#include "tools/sim/hit_plot.h"
#include "tools/sim/pool_command.h"
#include "tools/sim/report.h"
#include "tools/sim/simulation.h"
#include "tools/sim/synthetic_traces.h"
#include "tools/sim/tiers_command.h"

namespace terrace::sim {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct CommandLine {
  std::vector<std::string> traces;
  std::vector<std::string> generated;
  std::vector<std::string> policies = {"all"};
  std::vector<double> capacities = {1, 2, 5, 10, 20, 40};
  std::string plot;
  uint64_t seed = 1;
  uint64_t max_requests = 0;
  uint32_t block_tokens = 0;
  uint32_t jobs = 0;
  double restart_at = 100;
  bool forget = false;
  bool cost = false;
  bool json = false;
};

std::string Joined(const std::vector<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) {
    out.append(out.empty() ? "" : ", ").append(name);
  }
  return out;
}

void AddOptions(CLI::App& app, CommandLine& line) {
  app.add_option("--trace", line.traces, "request traces: JSON lines, plain or gzip")
      ->delimiter(',');
  app.add_option("--generate", line.generated, "made traces: " + Joined(SyntheticTraceNames()))
      ->delimiter(',');
  app.add_option("--policy", line.policies, "all, or some of: " + Joined(ReplayPolicyNames()))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--capacity", line.capacities, "in % of a trace's distinct blocks")
      ->delimiter(',')
      ->check(CLI::Range(1e-6, 100.0))
      ->capture_default_str();
  app.add_option("--plot", line.plot, "write hit ratio over capacity to this SVG file");
  app.add_option("--seed", line.seed, "of generated traces; everything else is the same each time")
      ->capture_default_str();
  app.add_option("--requests", line.max_requests, "only so many of each trace")
      ->check(CLI::Range(1U, 10'000'000U));
  app.add_option("--block-tokens", line.block_tokens,
                 "tokens of a block; found out from the trace otherwise")
      ->check(CLI::Range(1U, 65'536U));
  app.add_option("--restart-at", line.restart_at,
                 "start the process again after this share of the requests, in %; 100: never")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_flag("--forget", line.forget, "a restart forgets what the policy has learnt, too");
  app.add_option("--jobs", line.jobs, "cells simulated at a time; default: one a CPU")
      ->check(CLI::Range(1U, 256U));
  app.add_flag("--cost", line.cost, "CPU and memory too; best with --jobs 1");
  app.add_flag("--json", line.json, "one JSON object on standard output, nothing else");
}

// nullopt-like: "" when the line can be run, else what is wrong with it.
std::string CheckLine(CommandLine& line) {
  if (line.traces.empty() && line.generated.empty()) {
    return "--trace or --generate is needed";
  }
  const std::vector<std::string_view> known = ReplayPolicyNames();
  if (line.policies == std::vector<std::string>{"all"}) {
    line.policies.assign(known.begin(), known.end());
  }
  for (const std::string& policy : line.policies) {
    if (std::find(known.begin(), known.end(), policy) == known.end()) {
      return "--policy: " + policy + " is unknown; there is: all, " + Joined(known);
    }
  }
  const std::vector<std::string_view> made = SyntheticTraceNames();
  for (const std::string& name : line.generated) {
    if (std::find(made.begin(), made.end(), name) == made.end()) {
      return "--generate: " + name + " is unknown; there is: " + Joined(made);
    }
  }
  return "";
}

absl::StatusOr<std::vector<PreparedTrace>> ReadAll(const CommandLine& line) {
  std::vector<PreparedTrace> traces;
  for (const std::string& path : line.traces) {
    absl::StatusOr<RequestTrace> trace =
        ReadRequestTrace(path, {.max_requests = line.max_requests});
    if (!trace.ok()) {
      return absl::Status(trace.status().code(),
                          "--trace " + path + ": " + std::string(trace.status().message()));
    }
    traces.push_back(Prepare(*trace, line.block_tokens));
    if (traces.back().distinct_blocks == 0) {
      return absl::InvalidArgumentError("--trace " + path + ": no blocks");
    }
  }
  for (const std::string& name : line.generated) {
    absl::StatusOr<RequestTrace> trace = MakeSyntheticTrace(name, line.seed);
    if (!trace.ok()) {
      return trace.status();
    }
    traces.push_back(Prepare(*trace, line.block_tokens));
  }
  return traces;
}

absl::StatusOr<std::vector<CellResult>> RunAll(const CommandLine& line,
                                               const std::vector<Cell>& cells,
                                               bench::Progress& progress) {
  std::vector<CellResult> results(cells.size());
  std::vector<absl::Status> statuses(cells.size());
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < cells.size(); i = next.fetch_add(1)) {
      absl::StatusOr<CellResult> result =
          bench::Interrupted() ? absl::CancelledError("interrupted") : Simulate(cells[i]);
      statuses[i] = result.status();
      if (result.ok()) {
        results[i] = *std::move(result);
      }
      done.fetch_add(1);
    }
  };
  const size_t cpus = std::max(1U, std::thread::hardware_concurrency());
  const size_t jobs = std::min(cells.size(), line.jobs != 0 ? size_t{line.jobs} : cpus);
  progress.Begin("simulating", cells.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < jobs; ++i) {
    threads.emplace_back(work);
  }
  while (done.load() < cells.size()) {
    progress.Advance(done.load());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  progress.Clear();
  for (const absl::Status& status : statuses) {
    if (!status.ok()) {
      return status;
    }
  }
  return results;
}

absl::Status WritePlot(const std::string& path, const std::vector<CellResult>& results) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << ToSvg(results);
  file.close();
  return file.good() ? absl::OkStatus()
                     : absl::UnavailableError("--plot " + path + ": cannot be written");
}

absl::Status Run(const CommandLine& line) {
  bench::CatchInterrupts();
  bench::Progress progress(line.json ? bench::Progress::Show::kNever
                                     : bench::Progress::Show::kOnTerminal);
  progress.Begin("reading traces", 1);
  const absl::StatusOr<std::vector<PreparedTrace>> traces = ReadAll(line);
  progress.Clear();
  if (!traces.ok()) {
    return traces.status();
  }
  std::vector<Cell> cells;
  for (const PreparedTrace& trace : *traces) {
    for (const std::string& policy : line.policies) {
      for (const double capacity : line.capacities) {
        cells.push_back(
            {&trace, policy, capacity, line.restart_at,
             line.forget ? PlacementReplay::Learnt::kForgotten : PlacementReplay::Learnt::kKept});
      }
    }
  }
  const absl::StatusOr<std::vector<CellResult>> results = RunAll(line, cells, progress);
  if (!results.ok()) {
    return results.status();
  }
  if (!line.plot.empty()) {
    if (absl::Status status = WritePlot(line.plot, *results); !status.ok()) {
      return status;
    }
  }
  const ShowCost cost = line.cost ? ShowCost::kYes : ShowCost::kNo;
  const std::string text = line.json ? ToJson(*results, cost) : ToTable(*results, cost);
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? absl::OkStatus() : absl::UnavailableError("standard output cannot be written");
}

int Main(int argc, char** argv) {
  CLI::App app("Simulates what a cache with a policy and a capacity would have hit on a trace.",
               "terrace-sim");
  app.set_version_flag("--version", std::string("terrace-sim ") + TERRACE_VERSION);
  CommandLine line;
  AddOptions(app, line);
  PoolCommandLine pool_line;
  const CLI::App* pool = AddPoolCommand(app, pool_line);
  TiersCommandLine tiers_line;
  const CLI::App* tiers = AddTiersCommand(app, tiers_line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  const bool is_command = pool->parsed() || tiers->parsed();
  const std::string problem = is_command ? "" : CheckLine(line);
  if (!problem.empty()) {
    std::fprintf(stderr, "terrace-sim: %s\n", problem.c_str());
    return kExitUsage;
  }
  if (const absl::Status status = pool->parsed()    ? RunPoolCommand(pool_line)
                                  : tiers->parsed() ? RunTiersCommand(tiers_line)
                                                    : Run(line);
      !status.ok()) {
    std::fprintf(stderr, "terrace-sim: %s\n", std::string(status.message()).c_str());
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace
}  // namespace terrace::sim

int main(int argc, char** argv) {
  return terrace::sim::Main(argc, argv);
}
