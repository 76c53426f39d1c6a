// What the policy of one pool has learnt, as it is kept over restarts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace terrace {

struct LearntPolicy {
  std::string tenant;  // alias
  uint64_t slot_bytes = 0;
  std::string bytes;  // for Lesson::Load of the same policy

  friend bool operator==(const LearntPolicy&, const LearntPolicy&) = default;
};

// More are not kept: they begin anew.
inline constexpr size_t kMaxLearntPolicies = 32;

}  // namespace terrace
