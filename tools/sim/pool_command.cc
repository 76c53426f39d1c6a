#include "tools/sim/pool_command.h"

#include <cstdio>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "tools/bench/progress.h"
#include "tools/sim/pool_report.h"

namespace terrace::sim {

CLI::App* AddPoolCommand(CLI::App& app, PoolCommandLine& line) {
  CLI::App* pool = app.add_subcommand(
      "pool",
      "A fleet of nodes on one shared pool, in virtual time: calls of the file system, time until "
      "a block is visible, memory, reclaim and adoption. 1,000 nodes take about 6 GiB and some "
      "minutes at the default rate.");
  PoolPlan& plan = line.plan;
  pool->add_option("--nodes", line.nodes, "how many nodes; a line of the table each")
      ->delimiter(',')
      ->capture_default_str();
  pool->add_option("--seconds", plan.seconds, "of virtual time; default: 240")
      ->check(CLI::Range(1.0, 1e6));
  pool->add_option("--blocks-per-second", plan.blocks_per_second,
                   "that each node publishes; default: 4, or as many as make 512 of all nodes")
      ->check(CLI::Range(0.001, 1000.0));
  pool->add_option("--block-bytes", plan.block_bytes, "default: 16 KiB")
      ->transform(CLI::AsSizeValue(false));
  pool->add_option("--segment-bytes", plan.segment_bytes, "default: what is published in 16 s")
      ->transform(CLI::AsSizeValue(false));
  pool->add_option("--capacity", plan.capacity_bytes,
                   "bytes of the pool; default: seven segments a node")
      ->transform(CLI::AsSizeValue(false));
  pool->add_option("--grace", plan.grace_seconds,
                   "seconds from a segment's retirement to its removal; default: 10")
      ->check(CLI::Range(0.1, 1e6));
  pool->add_option("--dead-after", plan.dead_after_seconds,
                   "seconds of silence after which a node is adopted; default: 60")
      ->check(CLI::Range(1.0, 1e6));
  pool->add_option("--bulletins-from", plan.bulletins_from,
                   "in fleets of more nodes a few tell of the others; default: the tier's")
      ->check(CLI::Range(1U, 1'000'000U));
  pool->add_option("--seed", plan.seed, "the same seed gives the same figures")
      ->capture_default_str();
  pool->add_flag("--json", line.json, "one JSON object on standard output, nothing else");
  return pool;
}

absl::Status RunPoolCommand(const PoolCommandLine& line) {
  // The distributions build Abseil with a graph of all locks, and of the locks taken under them:
  // with 300 a node it takes more time than all else.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  bench::CatchInterrupts();
  bench::Progress progress(line.json ? bench::Progress::Show::kNever
                                     : bench::Progress::Show::kOnTerminal);
  constexpr double kUnits = 1000;
  std::vector<PoolFigures> results;
  for (const uint32_t nodes : line.nodes) {
    PoolPlan plan = line.plan;
    plan.nodes = nodes;
    progress.Begin(absl::StrCat("simulating ", nodes, " nodes"), static_cast<uint64_t>(kUnits));
    absl::StatusOr<PoolFigures> figures = SimulatePool(plan, [&progress](double part) {
      progress.Advance(static_cast<uint64_t>(part * kUnits));
      return !bench::Interrupted();
    });
    progress.Clear();
    if (!figures.ok()) {
      return figures.status();
    }
    results.push_back(*std::move(figures));
  }
  const std::string text = line.json ? PoolJson(results) : PoolTableText(results);
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? absl::OkStatus() : absl::UnavailableError("standard output cannot be written");
}

}  // namespace terrace::sim
