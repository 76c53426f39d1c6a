// The door between the store and whoever keeps slabs beyond the life of the process: in the daemon
// the service manager's store of descriptors (kept_memory.h).
//
// A life begins so: the store takes what the last one left (Take), puts what it can use of it into
// a fresh directory, and hands that over (Begin); until then the old directory is what counts, and
// from then on only the new one. Slabs are announced when they are given to a tenant, and given up
// before their memory counts as free.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tiers/dram/arena.h"
#include "tiers/dram/slab_directory.h"
#include "tiers/os/descriptor.h"

namespace terrace {

struct KeptDram {
  DirectoryContent content;
  // One a slab of `content`; nullptr where it did not come, or is not to be used.
  std::vector<std::unique_ptr<SlabMemory>> memory;
  // Zeroed, for the directory of this life; lives as long as the keeper. Empty: nothing is kept.
  absl::Span<char> fresh;
  DirectoryGeometry geometry;  // of `fresh`
  uint64_t life = 1;
};

// Thread-safe but for Take and Begin, which are called once, in this order, before all others.
// Outlives the store.
class DramKeeper {
 public:
  virtual ~DramKeeper() = default;

  virtual KeptDram Take() = 0;
  // The fresh directory is complete. Blocks until it is safe with whoever keeps it, seconds at
  // most. Whatever the answer is, the old one does not count any more. UNAVAILABLE: nothing is kept
  // from now on.
  virtual absl::Status Begin() = 0;
  // The slab holds blocks from now on. Never blocks; `descriptor` lives until SlabGivenUp.
  virtual void SlabInUse(uint64_t serial, const Descriptor& descriptor) = 0;
  // Nothing of it is kept when this returns, or it was not possible within a second. Called without
  // a lock.
  virtual void SlabGivenUp(uint64_t serial) = 0;
};

}  // namespace terrace
