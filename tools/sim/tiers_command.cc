#include "tools/sim/tiers_command.h"

#include <cstdio>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

#include "tools/bench/progress.h"
#include "tools/sim/tiers_simulation.h"
#include "tools/trace/request_trace.h"

namespace terrace::sim {
namespace {

std::vector<std::string> Texts(const std::vector<std::string_view>& names) {
  return {names.begin(), names.end()};
}

std::vector<TiersCell> CellsOf(const TiersCommandLine& line, const PreparedTrace& trace) {
  std::vector<TiersCell> cells;
  TiersCell cell;
  cell.trace = &trace;
  for (const double dram : line.dram) {
    cell.dram_percent = dram;
    for (const double local : line.local) {
      cell.local_percent = local;
      for (const std::string& policy : line.policies) {
        cell.policy = policy;
        for (const std::string& local_policy : line.local_policies) {
          cell.local_policy = local_policy;
          for (const std::string& rule : line.rules) {
            cell.rule = rule;
            for (const double budget : rule == "priced" ? line.budgets : std::vector<double>{100}) {
              cell.budget_percent = budget;
              cells.push_back(cell);
            }
          }
        }
      }
    }
  }
  return cells;
}

}  // namespace

CLI::App* AddTiersCommand(CLI::App& app, TiersCommandLine& line) {
  CLI::App* tiers = app.add_subcommand(
      "tiers",
      "DRAM over a local tier: hits by tier, and what is written for them. Writes are one of: "
      "eviction (all that DRAM evicts), commit (all that is stored), second-touch (what is evicted "
      "and was asked for twice), priced (what is evicted and worth its price within a budget), "
      "threshold:CHANCE (what is evicted and is asked for again with that chance, 0 to 1, or more, "
      "by the forecast that priced has), oracle (what is evicted and will be asked for again).");
  std::vector<std::string> local_policies = Texts(EvictionPolicyNames());
  local_policies.insert(local_policies.begin(), "log");
  std::vector<std::string> policies = Texts(ReplayPolicyNames());
  tiers->add_option("--trace", line.traces, "request traces: JSON lines, plain or gzip")
      ->delimiter(',')
      ->required();
  tiers->add_option("--policy", line.policies, "of DRAM")
      ->delimiter(',')
      ->check(CLI::IsMember(policies))
      ->capture_default_str();
  tiers
      ->add_option("--local-policy", line.local_policies,
                   "of the local tier; log: segments, as the daemon has them")
      ->delimiter(',')
      ->check(CLI::IsMember(local_policies))
      ->capture_default_str();
  tiers->add_option("--writes", line.rules, "what is written to the local tier")
      ->delimiter(',')
      ->check(CLI::Validator(
          [](const std::string& rule) {
            return WriteRuleNamed(rule).has_value() ? "" : "there is no rule named " + rule;
          },
          "RULE"))
      ->capture_default_str();
  tiers->add_option("--budget", line.budgets, "of priced writes, in % of what commit writes")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  tiers->add_flag(
      "--matched", line.matched,
      "after each threshold, priced writes with a budget with which they come to as many");
  tiers->add_option("--dram", line.dram, "in % of a trace's distinct blocks")
      ->delimiter(',')
      ->check(CLI::Range(1e-6, 100.0))
      ->capture_default_str();
  tiers->add_option("--local", line.local, "likewise")
      ->delimiter(',')
      ->check(CLI::Range(1e-6, 1000.0))
      ->capture_default_str();
  tiers->add_option("--requests", line.max_requests, "only so many of each trace")
      ->check(CLI::Range(1U, 10'000'000U));
  tiers
      ->add_option("--block-tokens", line.block_tokens,
                   "tokens of a block; found out from the trace otherwise")
      ->check(CLI::Range(1U, 65'536U));
  tiers->add_flag("--json", line.json, "one JSON object on standard output, nothing else");
  return tiers;
}

absl::Status RunTiersCommand(const TiersCommandLine& line) {
  bench::CatchInterrupts();
  bench::Progress progress(line.json ? bench::Progress::Show::kNever
                                     : bench::Progress::Show::kOnTerminal);
  TiersSimulator simulator;
  std::vector<TiersResult> results;
  std::vector<std::unique_ptr<PreparedTrace>> traces;
  for (const std::string& path : line.traces) {
    const absl::StatusOr<RequestTrace> trace =
        ReadRequestTrace(path, {.max_requests = line.max_requests});
    if (!trace.ok()) {
      return absl::Status(trace.status().code(),
                          "--trace " + path + ": " + std::string(trace.status().message()));
    }
    traces.push_back(std::make_unique<PreparedTrace>(Prepare(*trace, line.block_tokens)));
    if (traces.back()->distinct_blocks == 0) {
      return absl::InvalidArgumentError("--trace " + path + ": no blocks");
    }
    const std::vector<TiersCell> cells = CellsOf(line, *traces.back());
    progress.Begin("simulating " + trace->name, cells.size());
    size_t done = 0;
    for (const TiersCell& cell : cells) {
      absl::StatusOr<TiersResult> result =
          bench::Interrupted() ? absl::CancelledError("interrupted") : simulator.Simulate(cell);
      if (!result.ok()) {
        return result.status();
      }
      results.push_back(*std::move(result));
      if (line.matched && WriteRuleNamed(cell.rule)->rule == LocalRule::kThreshold) {
        absl::StatusOr<TiersResult> matched =
            simulator.SimulateMatched(cell, results.back().of_commit_percent);
        if (!matched.ok()) {
          return matched.status();
        }
        results.push_back(*std::move(matched));
      }
      progress.Advance(++done);
    }
    progress.Clear();
  }
  const std::string text = line.json ? ToJson(results) : ToTable(results);
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? absl::OkStatus() : absl::UnavailableError("standard output cannot be written");
}

}  // namespace terrace::sim
