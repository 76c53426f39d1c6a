#include "tools/ctl/pool_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

namespace terrace::ctl {
namespace {

Table::Column Left(const char* title) {
  return {title, Table::Align::kLeft};
}
Table::Column Right(const char* title) {
  return {title, Table::Align::kRight};
}

std::string DropsText(const v1::PoolStatus& pool) {
  std::vector<std::string> parts;
  for (const v1::PoolDrop& drop : pool.drops()) {
    parts.push_back(absl::StrCat(FormatCount(drop.blocks()), " ", Printable(drop.reason())));
  }
  return parts.empty() ? "none" : absl::StrJoin(parts, ", ");
}

std::string WorkerText(const v1::PoolWorker& worker) {
  std::string text = worker.serving()     ? absl::StrCat("process ", worker.pid(), " serves")
                     : worker.suspended() ? "suspended: too many are stuck"
                                          : "none serves";
  absl::StrAppend(
      &text, "; ", FormatCount(worker.starts()), " started, ", FormatCount(worker.abandoned()),
      " abandoned, ", FormatCount(worker.stuck()), " stuck; ", FormatCount(worker.calls()),
      " calls, ", FormatCount(worker.calls_in_flight()), " under way, ",
      FormatCount(worker.faults()), " failed, ", FormatCount(worker.deadlines()), " late");
  if (!worker.last_fault().empty()) {
    absl::StrAppend(&text, "; ", Printable(worker.last_fault()));
  }
  return text;
}

std::string FactsText(const v1::PoolStatus& pool, const Style& style) {
  const bool sick = pool.worker().stuck() > 0 || !pool.worker().serving();
  const std::vector<Fact> facts = {
      {"state", Printable(pool.state()), pool.state() == "ready" ? Tone::kGood : Tone::kWarning},
      {"pool", pool.pool_uuid().empty() ? "not found yet" : Hex(pool.pool_uuid())},
      {"auth", Printable(pool.auth())},
      {"used",
       absl::StrCat(FormatBytes(pool.pool_bytes()), " of ", FormatBytes(pool.capacity_bytes()),
                    " in ", FormatCount(pool.segments()), " segments, ",
                    FormatBytes(pool.own_bytes()), " by this node")},
      {"blocks", absl::StrCat(FormatCount(pool.records()), ", catalogue ",
                              FormatBytes(pool.catalogue_bytes()))},
      {"hits", FormatCount(pool.hits())},
      {"published",
       absl::StrCat(FormatCount(pool.published()), ", ", FormatCount(pool.already_there()),
                    " were there already; ", FormatCount(pool.publishing()), " under way, ",
                    FormatCount(pool.queued()), " wait")},
      {"dropped", DropsText(pool)},
      {"clears", absl::StrCat(FormatCount(pool.unraised_generations()), " not told yet"),
       pool.unraised_generations() > 0 ? Tone::kWarning : Tone::kPlain},
      {"faults",
       absl::StrCat(FormatCount(pool.read_faults()), " of reads, ",
                    FormatCount(pool.write_faults()), " of writes; ", FormatCount(pool.corrupt()),
                    " bad records, ", FormatCount(pool.forged()), " of them forged")},
      {"reclaimed", absl::StrCat(FormatCount(pool.reclaimed_segments()), " segments, ",
                                 FormatCount(pool.adopted_nodes()), " nodes adopted")},
      {"worker", WorkerText(pool.worker()), sick ? Tone::kWarning : Tone::kPlain},
      {"last fault", pool.last_fault().empty() ? "-" : Printable(pool.last_fault())},
  };
  return RenderFacts(facts, style);
}

std::string NodesText(const v1::PoolStatus& pool, const Style& style) {
  if (pool.nodes().empty()) {
    return "no node is known\n";
  }
  Table table({Left("NODE"), Left("SELF"), Right("EPOCH"), Right("SEGMENTS"), Right("BYTES"),
               Right("BLOCKS"), Right("BEHIND"), Right("SILENT")});
  for (const v1::PoolNode& node : pool.nodes()) {
    table.Add({Hex(node.node()), node.self() ? "yes" : "", FormatCount(node.epoch()),
               FormatCount(node.segments()), FormatBytes(node.bytes()), FormatCount(node.records()),
               Table::Cell(FormatCount(node.behind_segments()),
                           node.behind_segments() > 0 ? Tone::kWarning : Tone::kPlain),
               node.self() ? "-" : FormatElapsed(absl::Milliseconds(node.silence_ms()))});
  }
  return table.Render(style);
}

std::string ReclaimText(const v1::PoolStatus& pool, const Style& style) {
  if (pool.reclaim().empty()) {
    return "this node has no file that may go\n";
  }
  Table table({Left("WOULD GO"), Right("BYTES"), Right("BLOCKS"), Right("HEAT")});
  uint64_t bytes = 0;
  for (const v1::PoolSegment& segment : pool.reclaim()) {
    bytes += segment.bytes();
    table.Add({Printable(segment.path()), FormatBytes(segment.bytes()),
               FormatCount(segment.records()),
               segment.has_heat() ? absl::StrFormat("%.1f", segment.heat()) : "young"});
  }
  return absl::StrCat(table.Render(style), "together ", FormatBytes(bytes),
                      "; nothing was given up\n");
}

}  // namespace

std::string PoolText(const v1::PoolReply& reply, Reclaim reclaim, const Style& style) {
  if (reply.pools().empty()) {
    return "no shared tier is configured\n";
  }
  std::string text;
  for (const v1::PoolStatus& pool : reply.pools()) {
    absl::StrAppend(&text, text.empty() ? "" : "\n",
                    style.Paint(Tone::kStrong, Printable(pool.tier())), "\n",
                    FactsText(pool, style), NodesText(pool, style),
                    reclaim == Reclaim::kAskedFor ? ReclaimText(pool, style) : "");
  }
  return text;
}

}  // namespace terrace::ctl
