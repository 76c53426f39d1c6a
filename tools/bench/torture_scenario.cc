// torture: daemons that are killed with SIGKILL, one after another on the same folders, while they
// start, serve and stop; and what the next one finds.
//
// A third of the kills hit a tier that is asked to hold twice what it can, where nothing must be
// there but nothing may be wrong; the others one in which everything has its place, so that every
// block that was reported to survive must be found. Before one life in eight the tier's index is
// deleted or damaged. Which call or instruction a life ends at follows from the seed, but threads
// share the calls as they like: a seed repeats the plan and not the run.
#include <algorithm>
#include <memory>
#include <string>

#include "tools/bench/scenario.h"
#include "tools/bench/torture_run.h"

namespace terrace::bench {
namespace {

constexpr double kReadyPromiseS = 2.0;

// Lives until so many were killed in all; stops that were over before are not. Then one that is not
// killed.
absl::Status LiveUntil(uint64_t kills,
                       TortureRun& run,
                       TortureFigures& figures,
                       Progress& progress) {
  for (; figures.kills < kills; ++figures.lives) {
    if (absl::Status status = run.Live(figures.lives); !status.ok()) {
      return status;
    }
    progress.Advance(figures.kills);
  }
  return run.Finish();
}

absl::Status RunKills(const BenchOptions& options,
                      Report& report,
                      TortureFigures& figures,
                      Progress& progress) {
  progress.Begin("filling the tier", 1);
  absl::StatusOr<std::unique_ptr<TortureRun>> run = TortureRun::Begin(options, report, figures);
  if (!run.ok()) {
    return run.status();
  }
  progress.Begin("killing daemons", options.kills);
  absl::Status status = LiveUntil(options.kills / 3, **run, figures, progress);
  if (status.ok()) {
    status = (*run)->Empty();
  }
  return status.ok() ? LiveUntil(options.kills, **run, figures, progress) : status;
}

void AddFigures(const TortureFigures& figures, Report& report) {
  const auto add = [&report](const char* name, const char* text, const char* unit, uint64_t value) {
    report.AddValue(name, text, unit, static_cast<double>(value));
  };
  add("kills", "daemons killed", "", figures.kills);
  add("kills_in_start", "of them while starting", "", figures.by_phase[0]);
  add("kills_under_load", "of them under load", "", figures.by_phase[1]);
  add("kills_in_stop", "of them after SIGTERM", "", figures.by_phase[2]);
  constexpr const char* kUnitNames[kKillUnits] = {"kills_at_call", "kills_at_file_call",
                                                  "kills_at_instruction", "kills_at_cpu_time",
                                                  "kills_at_time"};
  constexpr const char* kUnitTexts[kKillUnits] = {
      "of them at the n-th system call", "of them at the n-th system call that changes files",
      "of them after n instructions of a thread", "of them after some processor time of a thread",
      "of them after some time"};
  for (uint32_t unit = 0; unit < kKillUnits; ++unit) {
    add(kUnitNames[unit], kUnitTexts[unit], "", figures.by_unit[unit]);
  }
  add("stops", "stops that were over before the kill", "", figures.stops);
  add("indexes_damaged", "starts with a damaged or lost index", "", figures.damaged_indexes);
  add("checked", "blocks that gets answered and that were judged", "", figures.blocks.checked);
  add("lost", "blocks missing that were reported to survive", "", figures.blocks.lost);
  add("came_back", "deleted or cleared blocks found", "", figures.blocks.came_back);
  add("undecided", "blocks that could not be got for want of room", "", figures.blocks.undecided);
  add("puts", "blocks put", "", figures.blocks.puts);
  add("short_puts", "of them short of the level that was waited for", "",
      figures.blocks.short_puts);
  add("deletes", "keys deleted", "", figures.blocks.deletes);
  add("clears", "namespaces cleared", "", figures.blocks.clears);
  add("flushes", "flushes", "", figures.blocks.flushes);
  add("most_file_bytes", "largest size of the local tier's files", "B", figures.most_file_bytes);
  if (!figures.ready.empty()) {
    report.AddAgainst("ready", "from start to a session", "s", kReadyPromiseS, figures.ready);
  }
  if (figures.by_unit[static_cast<size_t>(KillUnit::kInstruction)] == 0) {
    report.AddNote("this host counts no instructions; processor time, or time, took their place");
  }
}

}  // namespace

absl::Status RunTorture(const BenchOptions& options, Report& report, Progress& progress) {
  if (!options.runtime_dir.empty()) {
    return absl::InvalidArgumentError(
        "--runtime: this scenario kills its daemons, so it needs its "
        "own");
  }
  TortureFigures figures;
  absl::Status status = RunKills(options, report, figures, progress);
  AddFigures(figures, report);
  return status;
}

}  // namespace terrace::bench
