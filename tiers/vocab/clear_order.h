// The order of clears that nodes of a fleet make without knowing of each other. A generation that a
// clear raises is, from the highest bit on,
//    24  number: one more than that of the generation before
//    20  tag of the generation before
//    20  its own tag, random
// so that whoever learns of one sees whether it was raised in knowledge of another. Where it was
// not, neither clear could mean what was stored under the other's generation, and a third
// generation, which both sides find alike, ends them both. Nodes without pools count in ones, which
// is all in the own tag. Pure.
#pragma once

#include <cstdint>

namespace terrace {

// Raised by a clear on a node that knew `known`; larger. tag: random, 20 bits of it count.
uint64_t ClearedAfter(uint64_t known, uint32_t tag);

// What ends both; larger than either. The same for the same two, in either order.
uint64_t EndOfBoth(uint64_t one, uint64_t other);

// Whether neither was raised in knowledge of the other, as far as they tell: where many lie between
// them they don't, and then the answer is `unknown`. Equal ones are one.
enum class WhenFarApart : bool { kOrdered, kConcurrent };
bool AreConcurrent(uint64_t one, uint64_t other, WhenFarApart unknown);

// Whether a node that knows `known` has learned of `raised`, too.
bool HasLearned(uint64_t known, uint64_t raised);

}  // namespace terrace
