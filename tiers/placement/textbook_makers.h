// The two families that textbook.cc makes policies from. Private to the room.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/textbook.h"

namespace terrace {

// nullptr: not of the family.
std::unique_ptr<EvictionPolicy> MakeQueuePolicy(std::string_view name, uint64_t capacity);
std::unique_ptr<EvictionPolicy> MakeRankedPolicy(std::string_view name,
                                                 const TextbookOptions& options);

}  // namespace terrace
