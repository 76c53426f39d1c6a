// Random operations on the arena against plain maps.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/heap_slab_source.h"
#include "tiers/dram/arena.h"
#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

constexpr uint64_t kSizes[] = {SlotBytesFor(300 << 10), SlotBytesFor(1 << 20),
                               SlotBytesFor(5 << 20), SlotBytesFor(9 << 20)};
constexpr uint32_t kTenants = 3;
constexpr uint64_t kCapacity = 12 * kMinSlabBytes;

struct ModelSlot {
  char* begin = nullptr;
  uint64_t stamp = 0;  // lies at both ends of the payload
};

struct ModelSlab {
  TenantId tenant{0};
  uint64_t slot_bytes = 0;
  uint64_t bytes = 0;
  bool retired = false;
  std::map<uint32_t, ModelSlot> used;
};

class Comparison {
 public:
  explicit Comparison(uint64_t seed) : random_(seed) {}

  void Run(int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
      SCOPED_TRACE(step);
      Step();
      CheckTotals();
    }
    EXPECT_GT(allocated_, steps / 10) << "the mix of operations starves what is tested";
    EXPECT_GT(recut_, 0);
    EXPECT_GT(dropped_, 0);
  }

 private:
  uint64_t Pick(uint64_t choices) { return random_() % choices; }
  TenantId AnyTenant() { return TenantId{static_cast<uint32_t>(1 + Pick(kTenants))}; }
  uint64_t AnySize() { return kSizes[Pick(std::size(kSizes))]; }

  void Step() {
    switch (Pick(16)) {
      case 0:
        return Install();
      case 1:
        return Take();
      case 2:
        return Recut();
      case 3:
        return Pick(4) == 0 ? Retire() : Drop();
      case 4:
        return Pick(10) == 0 ? RemoveFree() : EmptyOne();
      case 5:
      case 6:
      case 7:
      case 8:
        return Free();
      default:
        return Allocate();
    }
  }

  void Install() {
    const uint64_t bytes = SlabBytesFor(AnySize());
    ASSERT_EQ(arena_->HeadroomBytes(), kCapacity - SlabBytes());
    if (arena_->HeadroomBytes() >= bytes) {
      arena_->InstallFree(*source_.Make(bytes));
      ++free_[bytes];
    }
  }

  void Take() {
    const TenantId tenant = AnyTenant();
    const uint64_t slot_bytes = AnySize();
    const auto fit = free_.lower_bound(SlabBytesFor(slot_bytes));
    const bool expected = fit != free_.end();
    ASSERT_EQ(arena_->TakeFreeSlab(tenant, slot_bytes), expected);
    if (!expected) {
      return;
    }
    const std::vector<SlabView> views = arena_->Slabs();
    const auto fresh = std::find_if(views.begin(), views.end(),
                                    [&](const SlabView& v) { return !slabs_.contains(v.id); });
    ASSERT_NE(fresh, views.end());
    ASSERT_EQ(fresh->tenant, tenant);
    ASSERT_EQ(fresh->bytes, fit->first);
    slabs_[fresh->id] = {tenant, slot_bytes, fresh->bytes, false, {}};
    ASSERT_TRUE(ids_.insert({fresh->id, true}).second) << "a slab id was used again";
    if (--fit->second == 0) {
      free_.erase(fit);
    }
  }

  void Allocate() {
    const TenantId tenant = AnyTenant();
    const uint64_t slot_bytes = AnySize();
    const bool expected = std::any_of(slabs_.begin(), slabs_.end(), [&](const auto& entry) {
      const ModelSlab& slab = entry.second;
      return !slab.retired && slab.tenant == tenant && slab.slot_bytes == slot_bytes &&
             slab.used.size() < slab.bytes / slot_bytes;
    });
    const std::optional<SlotRef> slot = arena_->Allocate(tenant, slot_bytes);
    ASSERT_EQ(slot.has_value(), expected);
    if (!slot.has_value()) {
      return;
    }
    ++allocated_;
    ModelSlab& slab = slabs_.at(slot->slab);
    ASSERT_EQ(slab.tenant, tenant) << "a slot of another tenant";
    ASSERT_FALSE(slab.retired);
    const absl::Span<char> payload = arena_->Payload(*slot);
    ASSERT_EQ(payload.size(), slot_bytes - kSlotHeaderBytes);
    ASSERT_EQ(arena_->SlotBytes(*slot), slot_bytes);
    const absl::Span<char> memory = arena_->Find(slot->slab)->memory();
    ASSERT_GE(payload.data() - kSlotHeaderBytes, memory.data());
    ASSERT_LE(payload.data() + payload.size(), memory.data() + memory.size());
    ModelSlot& entry = slab.used[slot->slot];
    ASSERT_EQ(entry.begin, nullptr) << "the slot is in use";
    entry = {payload.data(), random_()};
    Stamp(entry, payload.size());
  }

  // Payloads that overlap would overwrite each other's stamps.
  static void Stamp(const ModelSlot& slot, uint64_t bytes) {
    std::memcpy(slot.begin, &slot.stamp, sizeof(slot.stamp));
    std::memcpy(slot.begin + bytes - sizeof(slot.stamp), &slot.stamp, sizeof(slot.stamp));
  }
  static bool StampIsWhole(const ModelSlot& slot, uint64_t bytes) {
    return std::memcmp(slot.begin, &slot.stamp, sizeof(slot.stamp)) == 0 &&
           std::memcmp(slot.begin + bytes - sizeof(slot.stamp), &slot.stamp, sizeof(slot.stamp)) ==
               0;
  }

  void FreeOne(SlabId id, ModelSlab& slab, uint32_t slot) {
    const ModelSlot entry = slab.used.at(slot);
    ASSERT_EQ(arena_->Payload({id, slot}).data(), entry.begin) << "a slot moved";
    ASSERT_TRUE(StampIsWhole(entry, slab.slot_bytes - kSlotHeaderBytes))
        << "somebody else wrote here";
    arena_->Free({id, slot});
    slab.used.erase(slot);
  }

  void Free() {
    if (slabs_.empty()) {
      return;
    }
    auto& [id, slab] = *std::next(slabs_.begin(), static_cast<ptrdiff_t>(Pick(slabs_.size())));
    if (!slab.used.empty()) {
      FreeOne(id, slab,
              std::next(slab.used.begin(), static_cast<ptrdiff_t>(Pick(slab.used.size())))->first);
    }
  }

  void EmptyOne() {
    if (slabs_.empty()) {
      return;
    }
    auto& [id, slab] = *std::next(slabs_.begin(), static_cast<ptrdiff_t>(Pick(slabs_.size())));
    std::vector<uint32_t> visited;
    arena_->ForEachUsed(id, [&](SlotRef slot) { visited.push_back(slot.slot); });
    ASSERT_EQ(visited.size(), slab.used.size());
    for (const uint32_t slot : visited) {
      ASSERT_NO_FATAL_FAILURE(FreeOne(id, slab, slot));
    }
  }

  // Some slab of the model that is empty and not retired.
  std::map<SlabId, ModelSlab>::iterator AnyEmpty() {
    return std::find_if(slabs_.begin(), slabs_.end(), [](const auto& entry) {
      return !entry.second.retired && entry.second.used.empty();
    });
  }

  void Recut() {
    const auto empty = AnyEmpty();
    if (empty == slabs_.end()) {
      return;
    }
    const uint64_t slot_bytes = Pick(8) == 0 ? SlotBytesFor(empty->second.bytes) : AnySize();
    const bool fits = slot_bytes <= empty->second.bytes;
    ASSERT_EQ(arena_->Recut(empty->first, slot_bytes), fits);
    if (fits) {
      empty->second.slot_bytes = slot_bytes;
      ++recut_;
    }
  }

  void Retire() {
    if (const auto empty = AnyEmpty(); empty != slabs_.end()) {
      arena_->Retire(empty->first);
      empty->second.retired = true;
    }
  }

  void Drop() {
    const auto retired = std::find_if(slabs_.begin(), slabs_.end(),
                                      [](const auto& entry) { return entry.second.retired; });
    if (retired != slabs_.end()) {
      ASSERT_EQ(arena_->DropRetired(retired->first)->memory().size(), retired->second.bytes);
      slabs_.erase(retired);
      ++dropped_;
    }
  }

  void RemoveFree() {
    const std::unique_ptr<SlabMemory> memory = arena_->RemoveFree();
    ASSERT_EQ(memory != nullptr, !free_.empty());
    if (memory != nullptr) {
      const auto size = free_.find(memory->memory().size());
      ASSERT_NE(size, free_.end());
      if (--size->second == 0) {
        free_.erase(size);
      }
    }
  }

  uint64_t SlabBytes() const {
    uint64_t bytes = 0;
    for (const auto& [size, count] : free_) {
      bytes += size * count;
    }
    for (const auto& [id, slab] : slabs_) {
      bytes += slab.bytes;
    }
    return bytes;
  }

  void CheckTotals() {
    ASSERT_LE(SlabBytes(), kCapacity);
    ASSERT_EQ(arena_->HeadroomBytes(), kCapacity - SlabBytes());
    std::map<TenantId, uint64_t> assigned;
    uint64_t used = 0;
    for (const auto& [id, slab] : slabs_) {
      assigned[slab.tenant] += slab.bytes;
      used += slab.used.size() * slab.slot_bytes;
      const std::optional<SlabView> view = arena_->View(id);
      ASSERT_TRUE(view.has_value());
      ASSERT_EQ(view->used_slots, slab.used.size());
      ASSERT_EQ(view->slot_bytes, slab.slot_bytes);
      ASSERT_EQ(view->retired, slab.retired);
      ASSERT_EQ(view->tenant, slab.tenant);
    }
    ASSERT_EQ(arena_->used_slot_bytes(), used);
    uint32_t free_slabs = 0;
    for (const auto& [size, count] : free_) {
      free_slabs += count;
    }
    ASSERT_EQ(arena_->FreeSlabs(), free_slabs);
    ASSERT_EQ(static_cast<size_t>(source_.alive()), slabs_.size() + free_slabs);
    for (uint32_t tenant = 1; tenant <= kTenants; ++tenant) {
      ASSERT_EQ(arena_->assigned_bytes(TenantId{tenant}), assigned[TenantId{tenant}]);
    }
  }

  std::mt19937_64 random_;
  HeapSlabSource source_;
  std::unique_ptr<Arena> arena_ = Arena::Create(kCapacity);
  std::map<uint64_t, uint32_t> free_;  // slabs by size
  std::map<SlabId, ModelSlab> slabs_;
  std::map<SlabId, bool> ids_;
  int allocated_ = 0;
  int recut_ = 0;
  int dropped_ = 0;
};

TEST(ArenaModel, AgreesWithPlainMapsOverRandomOperations) {
  const uint64_t seed = std::random_device()();
  std::cout << "seed " << seed << '\n';
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  for (uint64_t run = 0; run < 4 && !testing::Test::HasFatalFailure(); ++run) {
    Comparison(seed + run).Run(5000);
  }
}

}  // namespace
}  // namespace terrace
