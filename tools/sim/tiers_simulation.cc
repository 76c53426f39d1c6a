#include "tools/sim/tiers_simulation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"

#include "tiers/placement/local_pool.h"

namespace terrace::sim {
namespace {

// By the values of LocalRule.
constexpr std::array<std::string_view, 5> kRules = {"eviction", "commit", "second-touch", "priced",
                                                    "oracle"};
constexpr std::string_view kThreshold = "threshold:";
constexpr uint32_t kSegments = 64;  // of a log, where there are as many blocks
constexpr uint32_t kKeptFree = 3;
constexpr uint64_t kBlockBytes = uint64_t{1} << 20;  // so that a budget is not rounded
constexpr double kSecondsADay = 86'400;
constexpr double kLeastBudgetPercent = 0.01;
constexpr double kMatchedPercent = 0.1;  // of what commit writes
constexpr int kMatchTries = 6;

absl::StatusOr<std::unique_ptr<LocalContents>> MakeContents(const std::string& policy,
                                                            uint64_t blocks) {
  if (policy != "log") {
    const std::vector<std::string_view> known = EvictionPolicyNames();
    if (std::find(known.begin(), known.end(), policy) == known.end()) {
      return absl::InvalidArgumentError("local policy " + policy + " is unknown");
    }
    return MakeLocalPool(policy, blocks);
  }
  SegmentLog::Options log;
  log.segments = static_cast<uint32_t>(std::min<uint64_t>(kSegments, blocks));
  log.kept_free = kKeptFree;
  if (log.segments <= log.kept_free + 1) {
    return absl::InvalidArgumentError("the local tier has too few blocks for a log of segments");
  }
  log.segment_records = static_cast<uint32_t>(blocks / log.segments);
  return std::make_unique<SegmentLog>(log);
}

double SpanSeconds(const PreparedTrace& trace) {
  return trace.requests.empty()
             ? 0
             : absl::ToDoubleSeconds(trace.requests.back().now - trace.requests.front().now);
}

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

double AllWrites(const TiersResult& result) {
  return static_cast<double>(result.local.appended + result.local.rewritten);
}

void Summarise(TiersResult& result) {
  const uint64_t blocks = result.counts.blocks;
  result.prefix_hit_percent = Percent(result.counts.hits, blocks);
  const uint64_t shared_hits = result.timed.hit_blocks[static_cast<size_t>(Place::kShared)];
  result.local_hit_percent = Percent(result.counts.local_hits - shared_hits, blocks);
  result.shared_hit_percent = Percent(shared_hits, blocks);
  result.dram_hit_percent = Percent(result.counts.hits - result.counts.local_hits, blocks);
  const uint64_t all = result.local.appended + result.local.rewritten;
  result.writes_per_stored = Percent(result.local.appended, result.counts.stored) / 100;
  result.device_writes_per_stored = Percent(all, result.counts.stored) / 100;
  if (result.budget_blocks > 0) {
    result.budget_spent_percent = 100 * static_cast<double>(all) / result.budget_blocks;
  }
}

double Quantile(std::vector<double>& values, double share) {
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

void SummariseTimes(TiersResult& result) {
  std::vector<double> times = result.timed.first_token_seconds;
  if (times.empty()) {
    return;
  }
  for (const double seconds : times) {
    result.mean_first_token_seconds += seconds / static_cast<double>(times.size());
  }
  result.p50_first_token_seconds = Quantile(times, 0.5);
  result.p99_first_token_seconds = Quantile(times, 0.99);
  const TimingOptions& timing = *result.cell.timing;
  const std::array<uint64_t, kPlaces> written = {result.counts.stored + result.counts.local_hits,
                                                 result.local.appended + result.local.rewritten,
                                                 result.shared.appended + result.shared.rewritten};
  const double span = std::max(1.0, SpanSeconds(*result.cell.trace));
  for (size_t place = 0; place < kPlaces; ++place) {
    result.written_bytes[place] = written[place] * timing.block_bytes;
    const auto bytes =
        static_cast<double>(result.timed.read_bytes[place] + result.written_bytes[place]);
    result.busy_percent[place] = 100 * bytes / timing.speeds[place].bytes_per_second / span;
  }
}

// budget_blocks: of kPriced, over the trace, and what kThreshold has its horizon from.
absl::StatusOr<LocalReplay> MakeLocalReplay(const TiersCell& cell,
                                            WriteRule writes,
                                            double budget_blocks) {
  const uint64_t blocks = CapacityBlocks(*cell.trace, cell.local_percent);
  absl::StatusOr<std::unique_ptr<LocalContents>> contents = MakeContents(cell.local_policy, blocks);
  if (!contents.ok()) {
    return contents.status();
  }
  LocalReplay local;
  local.contents = *std::move(contents);
  local.rule = writes.rule;
  local.least_chance = writes.least_chance;
  local.blocks = blocks;
  local.block_bytes = kBlockBytes;
  const double a_second = budget_blocks / std::max(1.0, SpanSeconds(*cell.trace));
  local.budget.bytes_per_day =
      static_cast<uint64_t>(a_second * kSecondsADay * static_cast<double>(kBlockBytes));
  return local;
}

// Puts the pool, if any, beside the local tier, and the timer over both.
absl::StatusOr<LowerTiers*> AddTiming(const TiersCell& cell,
                                      RequestTimer& timer,
                                      LocalReplay& local) {
  std::unique_ptr<LocalContents> shared;
  if (cell.shared_percent > 0) {
    absl::StatusOr<std::unique_ptr<LocalContents>> made =
        MakeContents(cell.local_policy, CapacityBlocks(*cell.trace, cell.shared_percent));
    if (!made.ok()) {
      return made.status();
    }
    shared = *std::move(made);
  }
  auto tiers = std::make_unique<LowerTiers>(std::move(local.contents), std::move(shared),
                                            [&timer](uint64_t name) { timer.Left(name); });
  local.seconds_saved = [timing = *cell.timing](uint32_t depth) {
    const uint64_t first = depth * timing.block_tokens;
    const TierSpeed& speed = timing.speeds[static_cast<size_t>(Place::kLocal)];
    const double loading = absl::ToDoubleSeconds(speed.latency) +
                           static_cast<double>(timing.block_bytes) / speed.bytes_per_second;
    return std::max(0.0, timing.recompute.Seconds(first, first + timing.block_tokens) - loading);
  };
  LowerTiers* both = tiers.get();
  timer.PutOver(both);
  local.contents = std::move(tiers);
  local.gate = &timer;
  return both;
}

void RunRequests(const TiersCell& cell,
                 KnownFuture* future,
                 RequestTimer* timer,
                 PlacementReplay& replay) {
  uint64_t declined = 0;
  for (const PreparedTrace::Request& request : cell.trace->requests) {
    if (future != nullptr) {
      future->Reach(request);
    }
    if (timer != nullptr) {
      timer->Begin(request.now);
    }
    const uint64_t hits = replay.Request({request.now, cell.trace->Chain(request), request.hints});
    if (timer != nullptr) {
      timer->Finish(request, hits, request.count - (replay.counts().declined - declined));
    }
    declined = replay.counts().declined;
  }
}

absl::StatusOr<TiersResult> Replay(const TiersCell& cell, WriteRule writes, double budget_blocks) {
  TiersResult result;
  result.cell = cell;
  result.budget_blocks = writes.rule == LocalRule::kPriced ? budget_blocks : 0;
  result.dram_blocks = CapacityBlocks(*cell.trace, cell.dram_percent);
  absl::StatusOr<LocalReplay> local = MakeLocalReplay(cell, writes, budget_blocks);
  if (!local.ok()) {
    return local.status();
  }
  result.local_blocks = local->blocks;
  std::optional<RequestTimer> timer;
  LowerTiers* tiers = nullptr;
  if (cell.timing.has_value()) {
    timer.emplace(*cell.timing, *cell.trace);
    const absl::StatusOr<LowerTiers*> both = AddTiming(cell, *timer, *local);
    if (!both.ok()) {
      return both.status();
    }
    tiers = *both;
  }
  KnownFuture future(*cell.trace);
  const bool looks_ahead = writes.rule == LocalRule::kOracle || cell.policy == "min";
  absl::StatusOr<std::unique_ptr<PlacementReplay>> replay = PlacementReplay::CreateAnyOver(
      cell.policy, {.capacity_blocks = result.dram_blocks, .future = &future}, *std::move(local));
  if (!replay.ok()) {
    return replay.status();
  }
  RunRequests(cell, looks_ahead ? &future : nullptr, timer.has_value() ? &*timer : nullptr,
              **replay);
  result.counts = (*replay)->counts();
  result.local = (*replay)->local()->counts();
  if ((*replay)->budget() != nullptr) {
    result.price_at_end = (*replay)->budget()->price() * static_cast<double>(kBlockBytes);
  }
  if (timer.has_value()) {
    result.shared = tiers->shared_counts();
    result.timed = timer->End();
    SummariseTimes(result);
  }
  Summarise(result);
  return result;
}

}  // namespace

std::optional<WriteRule> WriteRuleNamed(std::string_view name) {
  if (name.substr(0, kThreshold.size()) == kThreshold) {
    name.remove_prefix(kThreshold.size());
    double chance = 0;
    if (!absl::SimpleAtod({name.data(), name.size()}, &chance) || !(chance >= 0 && chance <= 1)) {
      return std::nullopt;
    }
    return WriteRule{LocalRule::kThreshold, chance};
  }
  const auto* found = std::find(kRules.begin(), kRules.end(), name);
  if (found == kRules.end()) {
    return std::nullopt;
  }
  return WriteRule{static_cast<LocalRule>(found - kRules.begin())};
}

absl::StatusOr<TiersResult> TiersSimulator::Simulate(const TiersCell& cell) {
  const std::optional<WriteRule> writes = WriteRuleNamed(cell.rule);
  if (!writes.has_value()) {
    return absl::InvalidArgumentError("there is no rule of writes named " + cell.rule);
  }
  const bool is_judged =
      writes->rule == LocalRule::kPriced || writes->rule == LocalRule::kThreshold;
  if (!is_judged) {
    const bool is_known = writes->rule == LocalRule::kOnCommit && !cell.timing.has_value();
    return is_known ? Commit(cell) : Replay(cell, *writes, 0);
  }
  const absl::StatusOr<TiersResult> commit = Commit(cell);
  if (!commit.ok()) {
    return commit.status();
  }
  const double most = AllWrites(*commit);
  const double share = writes->rule == LocalRule::kPriced ? cell.budget_percent / 100 : 1;
  absl::StatusOr<TiersResult> result = Replay(cell, *writes, share * most);
  if (result.ok() && most > 0) {
    result->of_commit_percent = 100 * AllWrites(*result) / most;
  }
  return result;
}

// A budget is spread over the trace and not all of it is asked for, so that what is written falls
// short of it by a share that changes little with it.
absl::StatusOr<TiersResult> TiersSimulator::SimulateMatched(const TiersCell& cell,
                                                            double of_commit_percent) {
  TiersCell priced = cell;
  priced.rule = "priced";
  priced.budget_percent = std::max(kLeastBudgetPercent, of_commit_percent);
  absl::StatusOr<TiersResult> nearest = Simulate(priced);
  absl::StatusOr<TiersResult> result = nearest;
  const auto off = [&](const TiersResult& one) {
    return std::abs(one.of_commit_percent - of_commit_percent);
  };
  for (int i = 1; i < kMatchTries && result.ok() && result->of_commit_percent > 0 &&
                  off(*nearest) > kMatchedPercent;
       ++i) {
    priced.budget_percent *= std::clamp(of_commit_percent / result->of_commit_percent, 0.5, 2.0);
    result = Simulate(priced);
    if (result.ok() && off(*result) < off(*nearest)) {
      nearest = result;
    }
  }
  return result.ok() ? nearest : result;
}

absl::StatusOr<TiersResult> TiersSimulator::Commit(const TiersCell& cell) {
  const Tiers tiers{cell.trace, cell.policy, cell.local_policy, cell.dram_percent,
                    cell.local_percent};
  const auto known = commits_.find(tiers);
  if (known != commits_.end()) {
    return known->second;
  }
  TiersCell through = cell;
  through.rule = "commit";
  through.budget_percent = 100;
  through.shared_percent = 0;
  through.timing.reset();
  absl::StatusOr<TiersResult> result = Replay(through, {LocalRule::kOnCommit}, 0);
  if (result.ok()) {
    result->of_commit_percent = 100;
    commits_.emplace(tiers, *result);
  }
  return result;
}

}  // namespace terrace::sim
