#include "tools/sim/tiers_command.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

#include "tools/bench/progress.h"
#include "tools/sim/tiers_plot.h"
#include "tools/sim/tiers_report.h"
#include "tools/sim/tiers_simulation.h"
#include "tools/trace/prefill_model.h"
#include "tools/trace/request_trace.h"

namespace terrace::sim {
namespace {

std::vector<std::string> Texts(const std::vector<std::string_view>& names) {
  return {names.begin(), names.end()};
}

// Each of `cells` with each of `values`, the latter changing fastest.
template <typename T, typename Set>
std::vector<TiersCell> Times(const std::vector<TiersCell>& cells,
                             const std::vector<T>& values,
                             const Set& set) {
  std::vector<TiersCell> out;
  for (const TiersCell& cell : cells) {
    for (const T& value : values) {
      out.push_back(cell);
      set(out.back(), value);
    }
  }
  return out;
}

template <typename Rule, size_t kCount>
Rule RuleOf(const std::array<std::string_view, kCount>& names, std::string_view name) {
  return static_cast<Rule>(std::find(names.begin(), names.end(), name) - names.begin());
}

std::vector<TiersCell> WithWrites(const std::vector<TiersCell>& cells,
                                  const TiersCommandLine& line) {
  std::vector<TiersCell> out;
  for (const TiersCell& cell :
       Times(cells, line.rules, [](TiersCell&c, const std::string&rule) { c.rule = rule; })) {
    const std::vector<double> none = {100};
    for (const double budget : cell.rule == "priced" ? line.budgets : none) {
      out.push_back(cell);
      out.back().budget_percent = budget;
    }
  }
  return out;
}

absl::StatusOr<std::vector<TiersCell>> CellsOf(const TiersCommandLine& line,
                                               const PreparedTrace& trace) {
  std::vector<TiersCell> cells(1);
  cells.front().trace = &trace;
  if (line.timed) {
    absl::StatusOr<TimingOptions> timing = TimingOf(line.timing, trace.block_tokens);
    if (!timing.ok()) {
      return timing.status();
    }
    cells.front().timing = *std::move(timing);
  }
  cells = Times(cells, line.dram, [](TiersCell& c, double dram) { c.dram_percent = dram; });
  cells = Times(cells, line.local, [](TiersCell& c, double local) { c.local_percent = local; });
  cells = Times(cells, line.shared, [](TiersCell& c, double shared) { c.shared_percent = shared; });
  cells = Times(cells, line.policies,
                [](TiersCell& c, const std::string& policy) { c.policy = policy; });
  cells = Times(cells, line.local_policies,
                [](TiersCell& c, const std::string& policy) { c.local_policy = policy; });
  cells = WithWrites(cells, line);
  if (line.timed) {
    cells = Times(cells, line.loads, [](TiersCell& c, const std::string& load) {
      c.timing->load = RuleOf<LoadRule>(kLoadRuleNames, load);
    });
    cells = Times(cells, line.prefetches, [](TiersCell& c, const std::string& prefetch) {
      c.timing->prefetch = RuleOf<PrefetchRule>(kPrefetchRuleNames, prefetch);
    });
  }
  return cells;
}

void AddTimingOptions(CLI::App& tiers, TiersCommandLine& line) {
  TimingLine& timing = line.timing;
  CLI::Option_group* group = tiers.add_option_group(
      "Time",
      "Where one of these is given, loads take time, and it is told what requests wait for");
  group->add_flag("--timed", line.timed, "with all of these as they are by default");
  group
      ->add_option("--shared", line.shared,
                   "a pool below, in % of a trace's distinct blocks; 0: none")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  group
      ->add_option("--bandwidth", timing.bandwidths,
                   "of tiers, in GB/s (10^9 bytes); default " + DefaultBandwidths())
      ->delimiter(',');
  group
      ->add_option("--latency", timing.latencies, "of a read, in ms; default " + DefaultLatencies())
      ->delimiter(',');
  group
      ->add_option("--prefill", timing.prefill,
                   "how long prompts take to compute, TOKENS=SECONDS, one or two; default: " +
                       std::string(kPrefillModelName))
      ->delimiter(',');
  group
      ->add_option(
          "--token-bytes", timing.token_bytes,
          "bytes of KV a token; default " + std::to_string(kPrefillTokenBytes) + ", of that model")
      ->check(CLI::Range(1U, 1U << 30U));
  group
      ->add_option("--load", line.loads,
                   "from below DRAM: worth (as far as it is faster than computing, by the advice "
                   "of a probe), always, never")
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>(kLoadRuleNames.begin(), kLoadRuleNames.end())))
      ->capture_default_str();
  group
      ->add_option("--prefetch", line.prefetches,
                   "ahead of need: probe (what a probe finds below DRAM, from the probe on), none")
      ->delimiter(',')
      ->check(CLI::IsMember(
          std::vector<std::string>(kPrefetchRuleNames.begin(), kPrefetchRuleNames.end())))
      ->capture_default_str();
  group->add_option("--lead", timing.lead_s, "from a request's probe to its loads, in s")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  group
      ->add_option("--stray", timing.stray_percent,
                   "with --prefetch probe: further probes after which nothing is run here, in % "
                   "of the requests")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  group->add_option("--seed", timing.seed, "of stray probes; everything else is the same each time")
      ->capture_default_str();
}

}  // namespace

CLI::App* AddTiersCommand(CLI::App& app, TiersCommandLine& line) {
  CLI::App* tiers = app.add_subcommand(
      "tiers",
      "DRAM over a local tier, and perhaps a pool: hits by tier, and what is written for them. "
      "Writes are one of: "
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
  tiers->add_option("--plot", line.plot,
                    "write hits, and times to the first token, over the capacity that varies to "
                    "this SVG file");
  tiers->add_flag("--json", line.json, "one JSON object on standard output, nothing else");
  AddTimingOptions(*tiers, line);
  tiers->callback([tiers, &line] {
    for (const CLI::Option* option : tiers->get_option_group("Time")->get_options()) {
      line.timed = line.timed || option->count() > 0;
    }
  });
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
    const absl::StatusOr<std::vector<TiersCell>> cells = CellsOf(line, *traces.back());
    if (!cells.ok()) {
      return cells.status();
    }
    progress.Begin("simulating " + trace->name, cells->size());
    size_t done = 0;
    for (const TiersCell& cell : *cells) {
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
  if (!line.plot.empty()) {
    std::ofstream file(line.plot, std::ios::binary | std::ios::trunc);
    file << ToSvg(results);
    file.close();
    if (!file.good()) {
      return absl::UnavailableError("--plot " + line.plot + ": cannot be written");
    }
  }
  const std::string text = line.json ? ToJson(results) : ToTable(results);
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? absl::OkStatus() : absl::UnavailableError("standard output cannot be written");
}

}  // namespace terrace::sim
