// Slabs on the plain heap: the arena and what stands on it, without memfds, descriptors and
// touching.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tiers/dram/arena.h"

namespace terrace {

// Thread-safe. Slabs may outlive it. The memory is 4096-aligned and zeroed; its size is rounded up
// to 4096 bytes.
class HeapSlabSource final : public SlabSource {
 public:
  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override;

  // The next `count` calls of Make fail with RESOURCE_EXHAUSTED.
  void FailNext(int count);
  // Slabs made so far.
  [[nodiscard]] int made() const;
  // Slabs made that are still alive.
  [[nodiscard]] int alive() const;

 private:
  mutable absl::Mutex mutex_;
  int failures_left_ ABSL_GUARDED_BY(mutex_) = 0;
  int made_ ABSL_GUARDED_BY(mutex_) = 0;
  // Owned by every slab too, each of which may outlive the source: who is left is counted by it.
  std::shared_ptr<const int> owners_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const int>(0);
};

}  // namespace terrace
