// What lies below DRAM, for the replay one tier and in truth two: the local one, and a pool of
// which this node is the only one. What leaves DRAM is published to the pool unless it lies there;
// whether it is written to the local tier too, the replay's rule of writes says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "tiers/placement/local_contents.h"

namespace terrace::sim {

enum class Place : uint8_t { kDram = 0, kLocal = 1, kShared = 2 };
inline constexpr size_t kPlaces = 3;

// Thread-compatible.
class LowerTiers final : public LocalContents {
 public:
  // `shared` nullptr: there is no pool. `left` is told each block that leaves DRAM.
  LowerTiers(std::unique_ptr<LocalContents> local,
             std::unique_ptr<LocalContents> shared,
             std::function<void(uint64_t name)> left);

  // Of a block that lies here, the faster one of its places.
  [[nodiscard]] Place PlaceOf(uint64_t name) const;

  void Begin(absl::Duration now,
             absl::Span<const uint64_t> chain,
             const RequestHints& hints) override;
  [[nodiscard]] bool Holds(uint64_t name) const override;
  bool NoteUse(uint64_t name) override;
  void NoteReads(absl::Span<const uint64_t> names) override;
  void Append(uint64_t name) override { local_->Append(name); }
  void ForgetUse() override;
  // Of the local tier.
  [[nodiscard]] const Counts& counts() const override { return local_->counts(); }
  // Of the pool; nothing where there is none.
  [[nodiscard]] Counts shared_counts() const;

 private:
  const std::unique_ptr<LocalContents> local_;
  const std::unique_ptr<LocalContents> shared_;
  const std::function<void(uint64_t name)> left_;
};

}  // namespace terrace::sim
