// Which blocks a local tier would hold, as numbers, for the replay of two tiers: a log of segments
// as the daemon's (segment_log.h), or a pool of blocks under any policy (local_pool.h).
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {

class LocalContents {
 public:
  struct Counts {
    uint64_t appended = 0;  // new blocks
    uint64_t rewritten = 0;
    uint64_t dropped = 0;  // while they were live
  };

  virtual ~LocalContents() = default;

  // A request begins; before anything else that it does.
  virtual void Begin(absl::Duration /*now*/,
                     absl::Span<const uint64_t> /*chain*/,
                     const RequestHints& /*hints*/) {}

  // Whether the block lies here.
  [[nodiscard]] virtual bool Holds(uint64_t name) const = 0;
  // A faster tier lets go of it. False: it does not lie here.
  virtual bool NoteUse(uint64_t name) = 0;
  // They were read, in chain order; all lie here.
  virtual void NoteReads(absl::Span<const uint64_t> names) = 0;
  // A block that does not lie here (checked). May drop others, or the block itself where all others
  // are worth more.
  virtual void Append(uint64_t name) = 0;
  // What lies here was of use long ago.
  virtual void ForgetUse() = 0;

  [[nodiscard]] virtual const Counts& counts() const = 0;
};

}  // namespace terrace
