#include "tests/doubles/heap_slab_source.h"

#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kPageBytes = 4096;

constexpr uint64_t RoundUpToPage(uint64_t value) {
  return (value + kPageBytes - 1) / kPageBytes * kPageBytes;
}

class HeapSlab final : public SlabMemory {
 public:
  HeapSlab(char* memory, uint64_t bytes, std::shared_ptr<const int> alive)
      : alive_(std::move(alive)), memory_(memory), bytes_(bytes) {}
  HeapSlab(const HeapSlab&) = delete;
  HeapSlab& operator=(const HeapSlab&) = delete;
  ~HeapSlab() override { munmap(memory_, bytes_); }

  [[nodiscard]] absl::Span<char> memory() const override { return {memory_, bytes_}; }
  [[nodiscard]] const Descriptor& descriptor() const override { return none_; }
  [[nodiscard]] PageKind page_kind() const override { return PageKind::kSmall; }

 private:
  const std::shared_ptr<const int>
      alive_;  // owned together with the source, which counts the owners
  char* const memory_;
  const uint64_t bytes_;
  const Descriptor none_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SlabMemory>> HeapSlabSource::Make(uint64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  // Address space is lent for more than there is.
  constexpr uint64_t kMaxBytes = uint64_t{1} << 40;
  if (bytes == 0) {
    return absl::InvalidArgumentError("slab bytes: 1 or more");
  }
  if (bytes > kMaxBytes) {
    return absl::ResourceExhaustedError("heap slab");
  }
  if (failures_left_ > 0) {
    --failures_left_;
    return absl::ResourceExhaustedError("scripted failure");
  }
  const uint64_t rounded = RoundUpToPage(bytes);
  // Zeroed and 4096-aligned without being touched: most tests use little of a slab.
  void* const memory = mmap(nullptr, rounded, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError("heap slab");
  }
  ++made_;
  return std::make_unique<HeapSlab>(static_cast<char*>(memory), rounded, owners_);
}

void HeapSlabSource::FailNext(int count) {
  const absl::MutexLock lock(&mutex_);
  failures_left_ = count;
}

int HeapSlabSource::made() const {
  const absl::MutexLock lock(&mutex_);
  return made_;
}

int HeapSlabSource::alive() const {
  const absl::MutexLock lock(&mutex_);
  return static_cast<int>(owners_.use_count()) - 1;
}

}  // namespace terrace
