#include "daemon/wire/pool_view.h"

#include <array>
#include <string>
#include <string_view>

namespace terrace {
namespace {

// By the values of PoolState and PublishDrop.
constexpr std::array<std::string_view, 7> kStates = {"",          "opening", "catching-up", "ready",
                                                     "suspended", "foreign", "closed"};
constexpr std::array<std::string_view, kPublishDrops> kDrops = {
    "evicted", "queue-full", "busy",     "fault",    "suspended", "too-large",
    "cleared", "deleted",    "no-space", "deadline", "closed"};

std::string StateName(PoolState state) {
  return std::string(kStates[static_cast<size_t>(state)]);
}

void FillWorker(const PoolFilesFigures& files, v1::PoolWorker* worker) {
  worker->set_serving(files.serving);
  worker->set_suspended(files.suspended);
  worker->set_last_fault(files.last_fault);
  worker->set_pid(files.pid);
  worker->set_starts(files.starts);
  worker->set_abandoned(files.abandoned);
  worker->set_stuck(files.stuck);
  worker->set_calls_in_flight(files.calls_in_flight);
  for (const uint64_t calls : files.calls) {
    worker->set_calls(worker->calls() + calls);
  }
  worker->set_faults(files.faults);
  worker->set_deadlines(files.deadlines);
}

void FillNode(const PoolNodeView& view, v1::PoolNode* node) {
  node->set_node(view.node.ToBytes());
  node->set_self(view.self);
  node->set_epoch(view.epoch);
  node->set_segments(view.segments);
  node->set_bytes(view.bytes);
  node->set_records(view.records);
  node->set_silence_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(view.silence)));
  node->set_behind_segments(view.behind_segments);
}

}  // namespace

void FillSharedTier(const SharedTierUsage& usage, v1::TierStatus* tier) {
  const SharedTierFigures& figures = usage.figures;
  tier->set_name(usage.name);
  tier->set_kind("shared");
  tier->set_state(StateName(figures.state));
  tier->set_capacity_bytes(figures.capacity_bytes);
  tier->set_used_bytes(figures.pool_bytes);
  tier->set_blocks(figures.records);
  tier->set_hits(usage.hits);
  tier->set_segment_bytes(figures.pool_bytes);
  tier->set_segments(figures.segments);
  tier->set_written_bytes(figures.published_bytes);
  tier->set_device_written_bytes(figures.written_bytes);
  tier->set_corrupt(figures.corrupt);
  tier->set_last_fault(figures.last_fault);
}

void FillPool(const SharedTierUsage& usage, v1::PoolStatus* pool) {
  const SharedTierFigures& figures = usage.figures;
  pool->set_tier(usage.name);
  pool->set_state(StateName(figures.state));
  pool->set_last_fault(figures.last_fault);
  if (!figures.pool_uuid.IsZero()) {
    pool->set_pool_uuid(figures.pool_uuid.ToBytes());
  }
  pool->set_capacity_bytes(figures.capacity_bytes);
  pool->set_pool_bytes(figures.pool_bytes);
  pool->set_own_bytes(figures.own_bytes);
  pool->set_segments(figures.segments);
  pool->set_records(figures.records);
  pool->set_catalogue_bytes(figures.catalogue_bytes);
  pool->set_hits(usage.hits);
  pool->set_queued(usage.queued);
  pool->set_publishing(usage.publishing);
  pool->set_published(usage.published);
  pool->set_already_there(usage.already_there);
  for (size_t i = 0; i < kDrops.size(); ++i) {
    if (usage.drops[i] > 0) {
      v1::PoolDrop* drop = pool->add_drops();
      drop->set_reason(std::string(kDrops[i]));
      drop->set_blocks(usage.drops[i]);
    }
  }
  pool->set_unraised_generations(usage.unraised_generations);
  pool->set_read_faults(figures.read_faults);
  pool->set_write_faults(figures.write_faults);
  pool->set_corrupt(figures.corrupt);
  pool->set_auth(std::string(AuthText(figures.auth)));
  pool->set_forged(figures.forged);
  pool->set_reclaimed_segments(figures.reclaimed_segments);
  pool->set_adopted_nodes(figures.adopted_nodes);
  FillWorker(figures.files, pool->mutable_worker());
  for (const PoolNodeView& node : usage.nodes) {
    FillNode(node, pool->add_nodes());
  }
}

void FillReclaim(const std::vector<PoolSegmentView>& order, uint64_t bytes, v1::PoolStatus* pool) {
  uint64_t sum = 0;
  for (const PoolSegmentView& view : order) {
    if (sum >= bytes) {
      break;
    }
    sum += view.bytes;
    v1::PoolSegment* segment = pool->add_reclaim();
    segment->set_path(view.path);
    segment->set_bytes(view.bytes);
    segment->set_records(view.records);
    if (view.heat.has_value()) {
      segment->set_heat(*view.heat);
    }
  }
}

}  // namespace terrace
