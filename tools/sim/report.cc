#include "tools/sim/report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace terrace::sim {
namespace {

constexpr size_t kNameColumns = 12;

template <typename T, typename Pick>
std::vector<T> InOrder(const std::vector<CellResult>& results, const Pick& pick) {
  std::vector<T> out;
  for (const CellResult& result : results) {
    if (std::find(out.begin(), out.end(), pick(result)) == out.end()) {
      out.push_back(pick(result));
    }
  }
  return out;
}

template <typename Figure>
std::string OneTable(const std::vector<CellResult>& results,
                     const std::string& heading,
                     const Figure& figure) {
  std::string text = heading + "\n";
  const auto capacities =
      InOrder<double>(results, [](const CellResult& r) { return r.capacity_percent; });
  text += absl::StrFormat("%-*s", kNameColumns, "policy");
  for (const double capacity : capacities) {
    text += absl::StrFormat("%9s", absl::StrFormat("%g %%", capacity));
  }
  text += "\n";
  for (const std::string& policy :
       InOrder<std::string>(results, [](const CellResult& r) { return r.policy; })) {
    text += absl::StrFormat("%-*s", kNameColumns, policy);
    for (const double capacity : capacities) {
      for (const CellResult& result : results) {
        if (result.policy == policy && result.capacity_percent == capacity) {
          text += figure(result);
        }
      }
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string ToTable(const std::vector<CellResult>& results, ShowCost cost) {
  std::string text;
  for (const std::string& trace :
       InOrder<std::string>(results, [](const CellResult& r) { return r.trace; })) {
    std::vector<CellResult> own;
    std::copy_if(results.begin(), results.end(), std::back_inserter(own),
                 [&](const CellResult& r) { return r.trace == trace; });
    text += OneTable(
        own, trace + ": prefix hits, % of all blocks, by capacity",
        [](const CellResult& r) { return absl::StrFormat("%9.2f", r.prefix_hit_percent); });
    if (cost == ShowCost::kYes) {
      text += OneTable(own, trace + ": CPU, microseconds a request", [](const CellResult& r) {
        return absl::StrFormat("%9.2f", r.cpu_us_per_request);
      });
      text += OneTable(
          own, trace + ": policy's memory, bytes a block of capacity", [](const CellResult& r) {
            return absl::StrFormat("%9.1f", static_cast<double>(r.memory_bytes) /
                                                static_cast<double>(r.capacity_blocks));
          });
    }
    text += "\n";
  }
  for (const std::string& policy :
       InOrder<std::string>(results, [](const CellResult& r) { return r.policy; })) {
    const double closed = MeanGapClosed(results, policy);
    if (!std::isnan(closed) && policy != "lru" && policy != "min") {
      text += absl::StrFormat("%s closes %.1f %% of the gap between lru and min on average\n",
                              policy, closed);
    }
  }
  return text;
}

std::string ToJson(const std::vector<CellResult>& results, ShowCost cost) {
  nlohmann::ordered_json out;
  out["results"] = nlohmann::ordered_json::array();
  for (const CellResult& result : results) {
    nlohmann::ordered_json cell = {
        {"trace", result.trace},
        {"policy", result.policy},
        {"capacity_percent", result.capacity_percent},
        {"capacity_blocks", result.capacity_blocks},
        {"requests", result.counts.requests},
        {"blocks", result.counts.blocks},
        {"hit_blocks", result.counts.hits},
        {"prefix_hit_percent", result.prefix_hit_percent},
        {"stored_blocks", result.counts.stored},
        {"evicted_blocks", result.counts.evicted},
        {"declined_blocks", result.counts.declined},
    };
    if (cost == ShowCost::kYes) {
      cell["cpu_us_per_request"] = result.cpu_us_per_request;
      cell["policy_bytes"] = result.memory_bytes;
    }
    out["results"].push_back(std::move(cell));
  }
  out["mean_gap_closed_percent"] = nlohmann::ordered_json::object();
  for (const std::string& policy :
       InOrder<std::string>(results, [](const CellResult& r) { return r.policy; })) {
    const double closed = MeanGapClosed(results, policy);
    if (!std::isnan(closed)) {
      out["mean_gap_closed_percent"][policy] = closed;
    }
  }
  return out.dump() + "\n";
}

}  // namespace terrace::sim
