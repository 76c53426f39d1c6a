#include "tiers/shared/pool_space.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace terrace {
namespace {

constexpr uint64_t kHeadroomShare = 16;  // of a share, but at least two segments

}  // namespace

void SortForReclaim(std::vector<SpaceSegment>& segments) {
  std::sort(segments.begin(), segments.end(), [](const SpaceSegment& a, const SpaceSegment& b) {
    if (a.empty != b.empty) {
      return a.empty;
    }
    if (a.heat.has_value() != b.heat.has_value()) {
      return a.heat.has_value();
    }
    return a.heat != b.heat ? a.heat < b.heat : a.name < b.name;  // the older one first
  });
}

SpacePlan PlanSpace(const SpaceView& view) {
  const uint64_t share = view.share_bytes > 0
                             ? std::min(view.share_bytes, view.capacity_bytes)
                             : view.capacity_bytes / (uint64_t{view.other_nodes} + 1);
  SpacePlan plan;
  const bool disk_has_room = view.available_bytes >= view.free_reserve_bytes + view.segment_bytes;
  plan.there_is_room =
      disk_has_room && view.own_bytes + view.segment_bytes <= share &&
      view.own_bytes + view.others_bytes + view.segment_bytes <= view.capacity_bytes;

  std::vector<SpaceSegment> order = view.segments;
  SortForReclaim(order);
  uint64_t live = 0;
  for (const SpaceSegment& segment : order) {
    live += segment.bytes;
  }
  const uint64_t headroom =
      std::min(std::max(2 * view.segment_bytes, share / kHeadroomShare), share / 2);
  const uint64_t target = share - headroom;
  // Retired ones that are not removed yet; up to two are open.
  const bool room_will_come = view.own_bytes > live + 2 * view.segment_bytes;
  for (const SpaceSegment& segment : order) {
    const bool over = live > target;
    // Where others fill the disk, one at a time goes as long as that lasts.
    const bool pressed = !disk_has_room && !room_will_come && plan.retire.empty();
    if (!segment.empty && !over && !pressed) {
      break;
    }
    plan.retire.push_back(segment.name);
    live -= segment.bytes;
  }
  return plan;
}

}  // namespace terrace
