// How much of a pool a node may use, and which of its segments go. Pure.
//
// Each node keeps to its share, so that all together keep to the capacity without asking each
// other. Files stay for a grace period after their segment was retired, and count until they are
// removed: so segments are retired while there still is room for some.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tiers/shared/pool_format.h"

namespace terrace {

struct SpaceSegment {
  SegmentName name;
  uint64_t bytes = 0;
  // Reads by all nodes, fading. nullopt: too young to be judged; goes after all others.
  std::optional<double> heat = 0;
  bool empty = false;
  uint32_t records = 0;  // published in it
};

struct SpaceView {
  uint64_t capacity_bytes = 0;
  uint64_t share_bytes = 0;  // 0: the capacity divided by the nodes that are alive
  uint64_t segment_bytes = 0;
  uint64_t free_reserve_bytes = 0;
  uint64_t available_bytes = 0;  // of the file system
  uint64_t own_bytes = 0;        // files, those of retired segments included
  uint64_t others_bytes = 0;
  uint32_t other_nodes = 0;            // that are alive
  std::vector<SpaceSegment> segments;  // own ones that may be retired
};

struct SpacePlan {
  bool there_is_room = false;       // for one more segment
  std::vector<SegmentName> retire;  // coldest first
};

SpacePlan PlanSpace(const SpaceView& view);

// In the order in which they are retired when space is needed: empty ones, then the coldest, of
// equally cold ones the older.
void SortForReclaim(std::vector<SpaceSegment>& segments);

}  // namespace terrace
