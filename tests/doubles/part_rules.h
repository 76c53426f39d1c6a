// Which token boundary is legal for the parts of a request: the rules of cache.proto, written as
// plainly as possible. Pure; an oracle for faster implementations. Cost: keys x keys in the worst
// case.
#pragma once

#include <cstdint>
#include <vector>

#include "terrace/v1/cache.pb.h"

namespace terrace::doubles {

// A part as its rule sees it. Vectors are parallel, one element a key.
struct RuledKeys {
  v1::Rule rule = v1::RULE_PREFIX;
  uint64_t first_token = 0;
  std::vector<uint64_t> end_tokens;  // rising
  std::vector<bool> held;            // READY, PENDING or LOWER
  uint64_t window_tokens = 0;

  [[nodiscard]] uint64_t BeginOf(size_t key) const {
    return key == 0 ? first_token : end_tokens[key - 1];
  }
};

// Whether the keys of this part that a boundary at `boundary` needs are held.
bool IsLegalBoundary(const RuledKeys& part, uint64_t boundary);

// Positions of the keys that must be loaded to go on from `boundary`. Of an INDEPENDENT part: every
// held key.
std::vector<size_t> NeededKeys(const RuledKeys& part, uint64_t boundary);

// The largest end of a key that is legal for all parts; 0: there is none.
uint64_t LargestLegalBoundary(const std::vector<RuledKeys>& parts);

// Number of leading keys that end at or before the boundary; of an INDEPENDENT part: all.
uint32_t KeysUnder(const RuledKeys& part, uint64_t boundary);

// Leading run of held keys in a PREFIX part, else the number of held keys.
uint32_t CountHits(const RuledKeys& part);

}  // namespace terrace::doubles
