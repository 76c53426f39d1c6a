// A local tier that gives up block by block, as an eviction policy says. No daemon has one: it
// shows what the log of segments costs, and what published figures of two tiers were measured with.
#pragma once

#include <memory>
#include <string_view>

#include "tiers/placement/local_contents.h"

namespace terrace {

// policy: a name that MakeEvictionPolicy knows (checked). capacity_blocks: from 1.
std::unique_ptr<LocalContents> MakeLocalPool(std::string_view policy, uint64_t capacity_blocks);

}  // namespace terrace
