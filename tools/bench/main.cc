// terrace-bench: the load generator. Its command line; the scenarios have a file each.
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"

#include "tiers/placement/eviction_policy.h"
#include "tools/bench/declared_models.h"
#include "tools/bench/empty_call.h"
#include "tools/bench/neighbour.h"
#include "tools/bench/scenario.h"

namespace terrace::bench {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr uint32_t kMinPairs = 9;

constexpr Scenario kScenarios[] = {
    {"dram", "leases, copies out of and into DRAM, each against the best copy of plain memory",
     RunDram},
    {"local", "gets from and puts through to the local tier, against raw transfers", RunLocal},
    {"shared",
     "publishing to a pool and gets of what another node published, against raw transfers",
     RunShared},
    {"gpu", "saves from and loads into the memory of a GPU, against copies of pinned memory",
     RunGpu},
    {"restart", "how soon a daemon serves again: with and without its index, and from kept DRAM",
     RunRestart},
    {"torture", "kill -9 at random instructions and system calls, and what is found afterwards",
     RunTorture},
    {"probe", "probes of 1,024 keys over a large index, against an empty gRPC call", RunProbe},
    {"rpc", "the smallest calls over both carriers, against an empty gRPC call", RunRpc},
    {"replay", "a recorded request trace: hit ratio, latencies, prefill saved", RunReplay},
    {"ttft", "time to first token: a prefix loaded from each tier, against computing it", RunTtft},
    {"neighbour", "what another tenant that stores as fast as it can costs one with a guarantee",
     RunNeighbour},
    {"peers", "2 MiB get and put against Redis and memcached, where they are installed", RunPeers},
};

struct CommandLine {
  BenchOptions bench;
  bool json = false;
  bool no_verify = false;
  bool in_process = false;
};

void AddOptions(CLI::App& app, CommandLine& line) {
  BenchOptions& bench = line.bench;
  app.add_option("--runtime", bench.runtime_dir, "use the daemon whose sockets lie in this folder");
  app.add_option("--data", bench.data_dir, "where the own daemon's private folder is made");
  app.add_option("--dram", bench.dram_bytes, "DRAM of the own daemon, e.g. 2GiB")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--local", bench.local_bytes, "local tier of the own daemon, e.g. 8GiB")
      ->transform(CLI::AsSizeValue(false));
  std::vector<std::string> policies;
  for (const std::string_view name : EvictionPolicyNames()) {
    policies.emplace_back(name);
  }
  app.add_option("--policy", bench.policy, "placement policy of the own daemon")
      ->check(CLI::IsMember(policies))
      ->capture_default_str();
  app.add_option("--terraced", bench.terraced, "the daemon's program")->envname("TERRACE_TERRACED");
  app.add_option("--copy-threads", bench.copy_threads,
                 "copy threads of the own daemon and of what it is compared with")
      ->check(CLI::Range(1U, 256U));
  app.add_option("--pairs", bench.pairs, "how often figure and limit alternate")
      ->check(CLI::Range(kMinPairs, 1000U))
      ->capture_default_str();
  app.add_option("--blocks", bench.blocks, "blocks to work on")
      ->check(CLI::Range(1U, 100'000'000U));
  app.add_option("--block-bytes", bench.block_bytes, "payload of a block, e.g. 64KiB")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--seed", bench.seed, "of namespaces, payloads and random choices")
      ->capture_default_str();
  app.add_flag("--no-verify", line.no_verify, "don't compare what is read with what was stored");
  app.add_flag("--json", line.json, "one JSON object on standard output, nothing else");
}

void AddReplayOptions(CLI::App& app, CommandLine& line) {
  BenchOptions& bench = line.bench;
  CLI::Option* in_process = app.add_flag(
      "--in-process", line.in_process,
      "no daemon: the store itself, in this process, on a clock that follows the trace");
  app.add_option("--trace", bench.trace, "JSON lines, plain or gzip")->required();
  CLI::Option* speed =
      app.add_option("--speed", bench.speed,
                     "1: the trace's own time, 2: twice as fast; 0: as fast as possible")
          ->check(CLI::Range(0.0, 1e6))
          ->capture_default_str();
  app.add_option("--returns", bench.return_spread,
                 "tell the daemon when conversations come back; 0: exactly, else wrong by a factor "
                 "of e to the power of so much")
      ->check(CLI::Range(0.0, 10.0))
      ->needs(speed)
      ->excludes(in_process);
  app.add_option("--kill-at", bench.kill_at,
                 "in % of the requests: the own daemon is killed then, and started again")
      ->check(CLI::Range(0.0, 100.0))
      ->excludes(in_process);
  app.add_option("--requests", bench.max_requests, "replay only so many")
      ->check(CLI::Range(1U, 10'000'000U));
  app.add_option("--block-tokens", bench.block_tokens,
                 "tokens of a block; found out from the trace otherwise")
      ->check(CLI::Range(1U, 65'536U));
}

int Run(const Scenario& scenario, const CommandLine& line) {
  CatchInterrupts();
  Report report(scenario.name);
  absl::Status status;
  {
    Progress progress(line.json ? Progress::Show::kNever : Progress::Show::kOnTerminal);
    status = scenario.run(line.bench, report, progress);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "terrace-bench %s: %s\n", scenario.name,
                 std::string(status.message()).c_str());
    if (!line.json || report.figures().empty()) {
      return kExitFailed;
    }
    report.AddError(std::string(status.message()));
  }
  std::printf("%s\n", (line.json ? report.ToJson() : report.ToText()).c_str());
  return report.errors() == 0 && report.wrong_bytes() == 0 ? kExitOk : kExitFailed;
}

int Main(int argc, char** argv) {
  // What the gRPC figure is measured against: this program, as a server in a process of its own.
  if (argc == 3 && std::string(argv[1]) == kEmptyServerVerb) {
    return ServeEmptyCalls(argv[2]);
  }
  if (argc > 1 && std::string(argv[1]) == kNeighbourVerb) {
    return BeNeighbour(argc - 2, argv + 2);
  }
  CLI::App app("Measures a Terrace daemon against what the machine can do.", "terrace-bench");
  app.set_version_flag("--version", std::string("terrace-bench ") + TERRACE_VERSION);
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default(false);
  CommandLine line;
  std::map<const CLI::App*, const Scenario*> scenarios;
  for (const Scenario& scenario : kScenarios) {
    CLI::App* sub = app.add_subcommand(scenario.name, scenario.summary);
    AddOptions(*sub, line);
    if (scenario.run == RunReplay) {
      AddReplayOptions(*sub, line);
    }
    if (scenario.run == RunTorture) {
      sub->add_option("--kills", line.bench.kills, "daemons to kill")
          ->check(CLI::Range(1U, 10'000'000U))
          ->capture_default_str();
    }
    if (scenario.run == RunShared) {
      sub->add_option("--auth", line.bench.auth, "how the pool is protected")
          ->check(CLI::IsMember({"none", "mac", "encrypt"}))
          ->capture_default_str();
    }
    if (scenario.run == RunTtft) {
      std::vector<std::string> models;
      for (const DeclaredModel& model : kDeclaredModels) {
        models.emplace_back(model.id);
      }
      sub->add_option("--model", line.bench.model, "what is served; its computing is declared")
          ->check(CLI::IsMember(models))
          ->capture_default_str();
    }
    scenarios[sub] = &scenario;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  line.bench.verify = line.no_verify ? BenchOptions::Verify::kNo : BenchOptions::Verify::kYes;
  line.bench.where =
      line.in_process ? BenchOptions::Where::kInProcess : BenchOptions::Where::kDaemon;
  if (line.bench.copy_threads == 0) {
    line.bench.copy_threads = std::max(1U, std::thread::hardware_concurrency());
  }
  return Run(*scenarios.at(app.get_subcommands().front()), line);
}

}  // namespace
}  // namespace terrace::bench

int main(int argc, char** argv) {
  return terrace::bench::Main(argc, argv);
}
