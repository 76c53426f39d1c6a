// What a BlockStore answered for a key, as the enums that the packed bytes stand for.
#pragma once

#include <cstddef>

#include "daemon/block_store.h"

namespace terrace::doubles {

inline GetOutcome OutcomeAt(const GetResult& result, size_t i) {
  return static_cast<GetOutcome>(result.outcomes[i]);
}
inline PutOutcome OutcomeAt(const PutResult& result, size_t i) {
  return static_cast<PutOutcome>(result.outcomes[i]);
}
inline Reason ReasonAt(const PutResult& result, size_t i) {
  return static_cast<Reason>(result.reasons[i]);
}
inline Level LevelAt(const PutResult& result, size_t i) {
  return static_cast<Level>(result.levels[i]);
}

}  // namespace terrace::doubles
