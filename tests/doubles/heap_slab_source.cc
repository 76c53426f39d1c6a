#include "tests/doubles/heap_slab_source.h"

#include <cstdint>
#include <cstdlib>
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

struct FreeDeleter {
  void operator()(char* memory) const { std::free(memory); }
};

class HeapSlab final : public SlabMemory {
 public:
  HeapSlab(std::unique_ptr<char, FreeDeleter> memory,
           uint64_t bytes,
           std::shared_ptr<const int> alive)
      : alive_(std::move(alive)), memory_(std::move(memory)), bytes_(bytes) {}

  [[nodiscard]] absl::Span<char> memory() const override {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return {memory_.get() + (RoundUpToPage(address) - address), bytes_};
  }
  [[nodiscard]] const Descriptor& descriptor() const override { return none_; }
  [[nodiscard]] PageKind page_kind() const override { return PageKind::kSmall; }

 private:
  const std::shared_ptr<const int>
      alive_;  // owned together with the source, which counts the owners
  const std::unique_ptr<char, FreeDeleter> memory_;
  const uint64_t bytes_;
  const Descriptor none_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SlabMemory>> HeapSlabSource::Make(uint64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  constexpr uint64_t kMaxBytes = uint64_t{1}
                                 << 40;  // calloc would lend address space for more than there is
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
  // calloc, because large memory then comes zeroed and untouched, with room to align it.
  std::unique_ptr<char, FreeDeleter> memory(
      static_cast<char*>(std::calloc(1, rounded + kPageBytes)));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError("heap slab");
  }
  ++made_;
  return std::make_unique<HeapSlab>(std::move(memory), rounded, owners_);
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
