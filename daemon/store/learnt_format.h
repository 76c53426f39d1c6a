// The file of what policies have learnt, little-endian:
//    0   8  magic, "TRLEARNT"
//    8   4  version, 1
//   12   4  entries, at most kMaxLearntPolicies
//   16      an entry: 2 bytes length of the alias, the alias, 8 bytes slot size, 4 bytes length of
//           what was learnt, and that
//    end 8  XXH3-64 of everything before
// A file of another version is not read: what was learnt is learnt again. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "daemon/learnt_policy.h"

namespace terrace {

// A longer file is not read, nor written.
inline constexpr uint64_t kMaxLearntBytes = uint64_t{96} << 20;

// What is beyond the limits is left out, from the end.
std::string EncodeLearnt(absl::Span<const LearntPolicy> policies);

// DATA_LOSS: cut short, damaged, or no such file. FAILED_PRECONDITION: of another version.
absl::StatusOr<std::vector<LearntPolicy>> DecodeLearnt(absl::string_view bytes);

}  // namespace terrace
