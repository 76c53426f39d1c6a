#include "tools/sim/pool_report.h"

#include <string>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace terrace::sim {
namespace {

constexpr double kMebibyte = 1 << 20;

double Of(const PoolFigures& figures, CallPurpose purpose) {
  return figures.calls_by_purpose[static_cast<size_t>(purpose)];
}

}  // namespace

std::string PoolTableText(const std::vector<PoolFigures>& results) {
  std::string text =
      "               calls a second a node: median, max, of them         visible after s        "
      "  catalogue            heads  pool's  adopted\n"
      "nodes blocks/s  all   max  writing following upkeep reading    p50   p99   max unseen"
      " records B/record   MiB  KiB/s  peak %  after s lost  wall s\n";
  for (const PoolFigures& row : results) {
    text += absl::StrFormat("%5u %8.2f %5.1f %5.1f %8.1f %9.1f %6.1f %7.1f %6.2f %5.2f %5.2f %6u",
                            row.plan.nodes, row.plan.blocks_per_second, row.calls_median,
                            row.calls_max, Of(row, CallPurpose::kWriting),
                            Of(row, CallPurpose::kFollowing), Of(row, CallPurpose::kUpkeep),
                            Of(row, CallPurpose::kReading), row.visible_seconds.p50,
                            row.visible_seconds.p99, row.visible_seconds.max, row.unseen);
    text += absl::StrFormat(" %7u %8.1f %5.2f %6.1f %7.1f %8.1f %4u %7.1f\n", row.records,
                            row.catalogue_bytes_per_record,
                            static_cast<double>(row.catalogue_bytes) / kMebibyte,
                            row.report_bytes_per_second / 1024, row.highest_fill * 100,
                            row.adopted_seconds, row.lost_blocks, row.wall_seconds);
  }
  return text;
}

std::string PoolJson(const std::vector<PoolFigures>& results) {
  nlohmann::ordered_json out;
  out["pools"] = nlohmann::ordered_json::array();
  for (const PoolFigures& row : results) {
    nlohmann::ordered_json purposes;
    for (size_t i = 0; i < kCallPurposes; ++i) {
      purposes[std::string(NameOf(static_cast<CallPurpose>(i)))] = row.calls_by_purpose[i];
    }
    nlohmann::ordered_json kinds;
    for (size_t i = 0; i < kFileCalls; ++i) {
      kinds[std::string(NameOf(static_cast<FileCall>(i)))] = row.calls_by_kind[i];
    }
    out["pools"].push_back({
        {"nodes", row.plan.nodes},
        {"seconds", row.plan.seconds},
        {"blocks_per_second", row.plan.blocks_per_second},
        {"block_bytes", row.plan.block_bytes},
        {"segment_bytes", row.plan.segment_bytes},
        {"capacity_bytes", row.plan.capacity_bytes},
        {"grace_seconds", row.plan.grace_seconds},
        {"dead_after_seconds", row.plan.dead_after_seconds},
        {"bulletins_from", row.plan.bulletins_from},
        {"seed", row.plan.seed},
        {"calls_median", row.calls_median},
        {"calls_max", row.calls_max},
        {"calls_by_purpose", std::move(purposes)},
        {"calls_by_kind", std::move(kinds)},
        {"report_bytes_per_second", row.report_bytes_per_second},
        {"visible_seconds_p50", row.visible_seconds.p50},
        {"visible_seconds_p99", row.visible_seconds.p99},
        {"visible_seconds_max", row.visible_seconds.max},
        {"samples", row.samples},
        {"unseen", row.unseen},
        {"catalogue_bytes_per_record", row.catalogue_bytes_per_record},
        {"catalogue_bytes", row.catalogue_bytes},
        {"records", row.records},
        {"published", row.published},
        {"refused", row.refused},
        {"reads", row.reads},
        {"reads_gone", row.reads_gone},
        {"reads_failed", row.reads_failed},
        {"highest_fill", row.highest_fill},
        {"reclaimed_segments", row.reclaimed_segments},
        {"adopted_seconds", row.adopted_seconds},
        {"killed_blocks", row.killed_blocks},
        {"lost_blocks", row.lost_blocks},
        {"living_adopted", row.living_adopted},
        {"wall_seconds", row.wall_seconds},
    });
  }
  return out.dump() + "\n";
}

}  // namespace terrace::sim
