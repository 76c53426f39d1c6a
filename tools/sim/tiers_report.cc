#include "tools/sim/tiers_report.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace terrace::sim {
namespace {

constexpr std::array<const char*, kPlaces> kPlaceNames = {"dram", "local", "shared"};

std::string CapacityOf(const TiersCell& cell) {
  std::string text = absl::StrFormat("%g+%g", cell.dram_percent, cell.local_percent);
  return cell.shared_percent > 0 ? text + absl::StrFormat("+%g", cell.shared_percent) : text;
}

std::string_view LoadOf(const TiersCell& cell) {
  return kLoadRuleNames[static_cast<size_t>(cell.timing->load)];
}

std::string_view PrefetchOf(const TiersCell& cell) {
  return kPrefetchRuleNames[static_cast<size_t>(cell.timing->prefetch)];
}

double Share(double part, double whole) {
  return whole > 0 ? 100 * part / whole : 0;
}

std::string HitTable(const std::vector<const TiersResult*>& results) {
  std::string text = absl::StrFormat(
      "%s: prefix hits, %% of all blocks; writes for each block that is computed\n"
      "%-9s%-7s%12s  %-20s%8s%8s%8s%9s%9s%8s\n",
      results.front()->cell.trace->name, "dram", "local", "capacity, %", "writes", "hits", "dram",
      "local", "written", "on drive", "spent");
  for (const TiersResult* result : results) {
    const TiersCell& cell = result->cell;
    const std::string spent =
        cell.rule == "priced" ? absl::StrFormat("%.1f %%", result->budget_spent_percent) : "";
    // Which changes what is a hit; what is read ahead does not.
    const bool is_all_loaded = !cell.timing.has_value() || cell.timing->load == LoadRule::kAlways;
    const std::string rule =
        is_all_loaded ? WritesOf(cell) : WritesOf(cell) + ", " + std::string(LoadOf(cell));
    text += absl::StrFormat("%-9s%-7s%12s  %-20s%8.2f%8.2f%8.2f%9.3f%9.3f%8s\n", cell.policy,
                            cell.local_policy, CapacityOf(cell), rule, result->prefix_hit_percent,
                            result->dram_hit_percent, result->local_hit_percent,
                            result->writes_per_stored, result->device_writes_per_stored, spent);
  }
  return text;
}

std::string TimeTable(const std::vector<const TiersResult*>& results) {
  std::string text = absl::StrFormat(
      "%s: prefix hits by tier, %% of all blocks; computing saved, %%; seconds to the first token, "
      "and of them waited for loads;\nrequests that waited for a tier below DRAM, and those that "
      "would have been computed faster than loaded, %%; time that wires are busy, %%;\nread ahead "
      "of need in vain, %% of what was read ahead\n"
      "%-6s%-6s%12s  %-16s%-7s%-6s%7s%7s%7s%7s%7s%8s%8s%8s%7s%7s%8s%7s%7s\n",
      results.front()->cell.trace->name, "dram", "local", "capacity, %", "writes", "load", "ahead",
      "dram", "local", "shared", "saved", "mean", "p50", "p99", "loads", "waits", "slower", "local",
      "shared", "vain");
  for (const TiersResult* result : results) {
    const TiersCell& cell = result->cell;
    const TimedCounts& timed = result->timed;
    const auto requests = static_cast<double>(timed.first_token_seconds.size());
    text += absl::StrFormat(
        "%-6s%-6s%12s  %-16s%-7s%-6s%7.2f%7.2f%7.2f%7.2f%7.2f%8.2f%8.2f%8.3f%7.1f%7.1f%8.1f%7.1f%7."
        "1f\n",
        cell.policy, cell.local_policy, CapacityOf(cell), WritesOf(cell), LoadOf(cell),
        PrefetchOf(cell), result->dram_hit_percent, result->local_hit_percent,
        result->shared_hit_percent, Share(timed.saved_seconds, timed.prefill_seconds),
        result->mean_first_token_seconds, result->p50_first_token_seconds,
        result->p99_first_token_seconds, timed.waited_seconds / std::max(1.0, requests),
        Share(static_cast<double>(timed.below_waits), requests),
        Share(static_cast<double>(timed.slower), requests), result->busy_percent[1],
        result->busy_percent[2],
        Share(static_cast<double>(timed.wasted_bytes), static_cast<double>(timed.ahead_bytes)));
  }
  return text;
}

nlohmann::ordered_json TimesOf(const TiersResult& result) {
  const TimedCounts& timed = result.timed;
  nlohmann::ordered_json json = {
      {"shared_percent", result.cell.shared_percent},
      {"load", LoadOf(result.cell)},
      {"prefetch", PrefetchOf(result.cell)},
      {"lead_s", absl::ToDoubleSeconds(result.cell.timing->lead)},
      {"shared_hit_percent", result.shared_hit_percent},
      {"shared_written_blocks", result.shared.appended},
      {"shared_rewritten_blocks", result.shared.rewritten},
      {"prefill_s", timed.prefill_seconds},
      {"saved_prefill_s", timed.saved_seconds},
      {"first_token_s",
       {{"mean", result.mean_first_token_seconds},
        {"p50", result.p50_first_token_seconds},
        {"p99", result.p99_first_token_seconds}}},
      {"waited_s", timed.waited_seconds},
      {"waits_below", timed.below_waits},
      {"slower_than_computing", timed.slower},
      {"ahead_bytes", timed.ahead_bytes},
      {"wasted_bytes", timed.wasted_bytes},
  };
  for (size_t place = 0; place < kPlaces; ++place) {
    json["read_bytes"][kPlaceNames[place]] = timed.read_bytes[place];
    json["written_bytes"][kPlaceNames[place]] = result.written_bytes[place];
    json["busy_percent"][kPlaceNames[place]] = result.busy_percent[place];
  }
  return json;
}

}  // namespace

std::string WritesOf(const TiersCell& cell) {
  return cell.rule == "priced" ? absl::StrFormat("priced, %.4g %%", cell.budget_percent)
                               : cell.rule;
}

std::string ToTable(const std::vector<TiersResult>& results) {
  std::string text;
  for (size_t i = 0; i < results.size();) {
    std::vector<const TiersResult*> own;
    std::vector<const TiersResult*> timed;
    const std::string& trace = results[i].cell.trace->name;
    for (; i < results.size() && results[i].cell.trace->name == trace; ++i) {
      own.push_back(&results[i]);
      if (results[i].cell.timing.has_value()) {
        timed.push_back(&results[i]);
      }
    }
    text += (text.empty() ? "" : "\n") + HitTable(own);
    text += timed.empty() ? "" : "\n" + TimeTable(timed);
  }
  return text;
}

std::string ToJson(const std::vector<TiersResult>& results) {
  nlohmann::ordered_json out;
  out["results"] = nlohmann::ordered_json::array();
  for (const TiersResult& result : results) {
    nlohmann::ordered_json cell = {
        {"trace", result.cell.trace->name},
        {"policy", result.cell.policy},
        {"local_policy", result.cell.local_policy},
        {"dram_percent", result.cell.dram_percent},
        {"local_percent", result.cell.local_percent},
        {"writes", result.cell.rule},
        {"requests", result.counts.requests},
        {"blocks", result.counts.blocks},
        {"hit_blocks", result.counts.hits},
        {"prefix_hit_percent", result.prefix_hit_percent},
        {"dram_hit_percent", result.dram_hit_percent},
        {"local_hit_percent", result.local_hit_percent},
        {"stored_blocks", result.counts.stored},
        {"written_blocks", result.local.appended},
        {"rewritten_blocks", result.local.rewritten},
        {"writes_per_stored", result.writes_per_stored},
        {"device_writes_per_stored", result.device_writes_per_stored},
    };
    if (result.of_commit_percent > 0) {
      cell["of_commit_percent"] = result.of_commit_percent;
    }
    if (result.cell.rule == "priced") {
      cell["budget_percent"] = result.cell.budget_percent;
      cell["budget_blocks"] = result.budget_blocks;
      cell["budget_spent_percent"] = result.budget_spent_percent;
    }
    if (result.cell.timing.has_value()) {
      cell.update(TimesOf(result));
    }
    out["results"].push_back(std::move(cell));
  }
  return out.dump() + "\n";
}

}  // namespace terrace::sim
