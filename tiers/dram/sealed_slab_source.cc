// Slabs from sealed memory.
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

class SealedSlab final : public SlabMemory {
 public:
  explicit SealedSlab(SealedMemory sealed) : sealed_(std::move(sealed)) {}

  [[nodiscard]] absl::Span<char> memory() const override { return sealed_.memory(); }
  [[nodiscard]] const Descriptor& descriptor() const override { return sealed_.descriptor(); }
  [[nodiscard]] PageKind page_kind() const override { return sealed_.page_kind(); }

 private:
  SealedMemory sealed_;
};

class SealedSlabSource final : public SlabSource {
 public:
  SealedSlabSource(bool huge_pages, int touch_threads)
      : huge_pages_(huge_pages), touch_threads_(touch_threads) {}

  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    absl::StatusOr<SealedMemory> sealed = SealedMemory::Create(
        {.bytes = bytes, .huge_pages = huge_pages_, .touch_threads = touch_threads_});
    if (!sealed.ok()) {
      return sealed.status();
    }
    return std::make_unique<SealedSlab>(*std::move(sealed));
  }

 private:
  const bool huge_pages_;
  const int touch_threads_;
};

}  // namespace

std::unique_ptr<SlabSource> MakeSealedSlabSource(bool huge_pages, int touch_threads) {
  return std::make_unique<SealedSlabSource>(huge_pages, touch_threads);
}

absl::StatusOr<std::unique_ptr<SlabMemory>> AdoptSealedSlab(Descriptor descriptor) {
  absl::StatusOr<SealedMemory> sealed =
      SealedMemory::Adopt(std::move(descriptor), SealedMemory::Writers::kHereAlone);
  if (!sealed.ok()) {
    return sealed.status();
  }
  return std::make_unique<SealedSlab>(*std::move(sealed));
}

}  // namespace terrace
