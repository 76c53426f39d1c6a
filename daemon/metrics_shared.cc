#include "daemon/metrics_shared.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace terrace {
namespace {

// By the values of PoolState, PublishDrop and PoolOp.
constexpr std::array<std::string_view, 7> kStates = {
    "", "opening", "catching_up", "online", "suspended", "foreign", "closed"};
constexpr std::array<std::string_view, kPublishDrops> kDrops = {
    "evicted", "queue_full", "busy",     "fault",    "suspended", "too_large",
    "cleared", "deleted",    "no_space", "deadline", "closed"};
constexpr std::array<std::string_view, kPoolOps + 1> kOps = {
    "",       "read",        "write",         "sync", "make",  "create",    "replace",
    "remove", "make_folder", "remove_folder", "list", "space", "check_root"};

using Tiers = std::vector<SharedTierUsage>;

Labels Of(const SharedTierUsage& tier) {
  return {Label("tier", tier.name)};
}

template <typename Number>
void AddEach(const Tiers& tiers, const Number& number, Families* out) {
  for (const SharedTierUsage& tier : tiers) {
    out->Add(Of(tier), number(tier));
  }
}

void AddState(const Tiers& tiers, Families* out) {
  out->Gauge("shared_state", "1 for the state that the tier is in.");
  for (const SharedTierUsage& tier : tiers) {
    for (size_t state = 1; state < kStates.size(); ++state) {
      out->Add({Label("tier", tier.name), Label("state", kStates[state])},
               static_cast<size_t>(tier.figures.state) == state ? 1 : 0);
    }
  }
  const auto add = [&](auto SharedTierFigures::*member) {
    AddEach(
        tiers, [member](const SharedTierUsage& tier) { return tier.figures.*member; }, out);
  };
  out->Gauge("shared_capacity_bytes", "Bytes that the pool's files may take, of all nodes.");
  add(&SharedTierFigures::capacity_bytes);
  out->Gauge("shared_pool_bytes", "Bytes of the pool's files, as far as known here.");
  add(&SharedTierFigures::pool_bytes);
  out->Gauge("shared_own_bytes", "Of them, of files that this node wrote.");
  add(&SharedTierFigures::own_bytes);
  out->Gauge("shared_nodes", "Nodes of the pool that are known here.");
  add(&SharedTierFigures::nodes);
  out->Gauge("shared_segments", "Files of all nodes.");
  add(&SharedTierFigures::segments);
  out->Gauge("shared_records", "Blocks in the pool that a lookup finds.");
  add(&SharedTierFigures::records);
  out->Gauge("shared_catalogue_bytes", "Memory of the catalogue.");
  add(&SharedTierFigures::catalogue_bytes);
}

// Bounded whatever the fleet: the worst of the nodes, not each of them.
void AddLag(const Tiers& tiers, Families* out) {
  const auto largest = [&](const auto& number) {
    AddEach(
        tiers,
        [&number](const SharedTierUsage& tier) {
          double most = 0;
          for (const PoolNodeView& node : tier.nodes) {
            most = node.self ? most : std::max(most, number(node));
          }
          return most;
        },
        out);
  };
  out->Gauge("shared_lag_segments", "Files whose blocks are not known yet, of the worst node.");
  largest([](const PoolNodeView& node) { return static_cast<double>(node.behind_segments); });
  out->Gauge("shared_silence_seconds", "Since the node that is silent for longest said anything.");
  largest([](const PoolNodeView& node) { return absl::ToDoubleSeconds(node.silence); });
}

void AddPublishing(const Tiers& tiers, Families* out) {
  const auto add = [&](auto SharedTierUsage::*member) {
    AddEach(
        tiers, [member](const SharedTierUsage& tier) { return tier.*member; }, out);
  };
  out->Gauge("shared_queued_blocks", "Blocks that wait for their turn to be published.");
  add(&SharedTierUsage::queued);
  out->Gauge("shared_publishing_blocks", "Blocks that the tier has taken and not answered for.");
  add(&SharedTierUsage::publishing);
  out->Gauge("shared_unraised_generations", "Clears that the pool could not be told of yet.");
  add(&SharedTierUsage::unraised_generations);
  out->Counter("shared_published_total", "Blocks published.");
  add(&SharedTierUsage::published);
  out->Counter("shared_already_there_total", "Blocks that the pool held when their turn came.");
  add(&SharedTierUsage::already_there);
  out->Counter("shared_drops_total", "Blocks that were not published, by reason.");
  for (const SharedTierUsage& tier : tiers) {
    for (size_t i = 0; i < kDrops.size(); ++i) {
      out->Add({Label("tier", tier.name), Label("reason", kDrops[i])}, tier.drops[i]);
    }
  }
  out->Counter("shared_hits_total", "Keys that a get delivered from the tier.");
  add(&SharedTierUsage::hits);
}

void AddTraffic(const Tiers& tiers, Families* out) {
  const auto add = [&](auto SharedTierFigures::*member) {
    AddEach(
        tiers, [member](const SharedTierUsage& tier) { return tier.figures.*member; }, out);
  };
  out->Counter("shared_reads_total", "Records read.");
  add(&SharedTierFigures::reads);
  out->Counter("shared_read_bytes_total", "Bytes of them.");
  add(&SharedTierFigures::read_bytes);
  out->Counter("shared_read_calls_total", "Calls that read them: neighbours share one.");
  add(&SharedTierFigures::read_calls);
  out->Counter("shared_published_bytes_total", "Payload bytes published.");
  add(&SharedTierFigures::published_bytes);
  out->Counter("shared_written_bytes_total", "Bytes written for that in all.");
  add(&SharedTierFigures::written_bytes);
  out->Counter("shared_faults_total", "Reads and writes that the mount failed.");
  for (const SharedTierUsage& tier : tiers) {
    out->Add({Label("tier", tier.name), Label("kind", "read")}, tier.figures.read_faults);
    out->Add({Label("tier", tier.name), Label("kind", "write")}, tier.figures.write_faults);
  }
  out->Counter("shared_corrupt_records_total", "Records that were damaged, foreign or stale.");
  add(&SharedTierFigures::corrupt);
  out->Counter("shared_forged_records_total",
               "Corrupt records that are sound, and were sealed by no node of the pool.");
  add(&SharedTierFigures::forged);
  out->Counter("shared_catalogue_reads_total",
               "Looks at what other nodes wrote, by what was read.");
  for (const SharedTierUsage& tier : tiers) {
    const auto of = [&](std::string_view what, uint64_t count) {
      out->Add({Label("tier", tier.name), Label("what", what)}, count);
    };
    of("head", tier.figures.heads_read);
    of("footer", tier.figures.footers_read);
    of("segment", tier.figures.segments_scanned);
  }
  out->Counter("shared_reclaimed_segments_total", "Own files given up for room.");
  add(&SharedTierFigures::reclaimed_segments);
  out->Counter("shared_adopted_nodes_total", "Dead nodes whose folder this one took over.");
  add(&SharedTierFigures::adopted_nodes);
}

void AddWorker(const Tiers& tiers, Families* out) {
  const auto add = [&](auto PoolFilesFigures::*member) {
    AddEach(
        tiers,
        [member](const SharedTierUsage& tier) {
          return static_cast<uint64_t>(tier.figures.files.*member);
        },
        out);
  };
  out->Gauge("shared_worker_serving", "1 while a worker serves the mount.");
  add(&PoolFilesFigures::serving);
  out->Gauge("shared_worker_suspended", "1 while none is started, because too many are stuck.");
  add(&PoolFilesFigures::suspended);
  out->Counter("shared_worker_starts_total", "Workers started.");
  add(&PoolFilesFigures::starts);
  out->Counter("shared_worker_abandoned_total", "Workers that did not answer.");
  add(&PoolFilesFigures::abandoned);
  out->Gauge("shared_worker_stuck", "Of them, still there.");
  add(&PoolFilesFigures::stuck);
  out->Gauge("shared_worker_calls_in_flight", "Calls of the mount under way.");
  add(&PoolFilesFigures::calls_in_flight);
  out->Counter("shared_worker_faults_total", "Calls that the mount failed.");
  add(&PoolFilesFigures::faults);
  out->Counter("shared_worker_deadlines_total", "Calls that were not answered in time.");
  add(&PoolFilesFigures::deadlines);
  out->Gauge("shared_worker_buffer_bytes_used", "Memory that calls read into and write from.");
  add(&PoolFilesFigures::buffer_bytes_used);
  out->Counter("shared_worker_calls_total", "Calls of the mount, by kind.");
  for (const SharedTierUsage& tier : tiers) {
    for (size_t op = 1; op < kOps.size(); ++op) {
      out->Add({Label("tier", tier.name), Label("op", kOps[op])}, tier.figures.files.calls[op]);
    }
  }
}

}  // namespace

void AddSharedTiers(const StoreUsage& usage, Families* out) {
  if (usage.shared_tiers.empty()) {
    return;
  }
  AddState(usage.shared_tiers, out);
  AddLag(usage.shared_tiers, out);
  AddPublishing(usage.shared_tiers, out);
  AddTraffic(usage.shared_tiers, out);
  AddWorker(usage.shared_tiers, out);
}

}  // namespace terrace
