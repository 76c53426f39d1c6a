#include "tiers/dram/arena.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/heap_slab_source.h"
#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kSlot = SlotBytesFor(kMiB);
constexpr TenantId kAlice{1};
constexpr TenantId kBob{2};

class ArenaTest : public testing::Test {
 protected:
  std::unique_ptr<SlabMemory> MakeSlab(uint64_t bytes = kMinSlabBytes) {
    absl::StatusOr<std::unique_ptr<SlabMemory>> made = source_.Make(bytes);
    EXPECT_TRUE(made.ok());
    return *std::move(made);
  }
  void Install(int count) {
    for (int i = 0; i < count; ++i) {
      arena_->InstallFree(MakeSlab());
    }
  }
  std::vector<SlotRef> AllocateAll(TenantId tenant, uint64_t slot_bytes) {
    std::vector<SlotRef> slots;
    for (std::optional<SlotRef> slot = arena_->Allocate(tenant, slot_bytes); slot.has_value();
         slot = arena_->Allocate(tenant, slot_bytes)) {
      slots.push_back(*slot);
    }
    return slots;
  }

  HeapSlabSource source_;
  std::unique_ptr<Arena> arena_ = Arena::Create(4 * kMinSlabBytes);
};

TEST(SlotBytes, AreAHeaderPageAndThePayloadInWholePages) {
  EXPECT_EQ(SlotBytesFor(0), 4096U);
  EXPECT_EQ(SlotBytesFor(1), 8192U);
  EXPECT_EQ(SlotBytesFor(4096), 8192U);
  EXPECT_EQ(SlotBytesFor(4097), 12288U);
  EXPECT_EQ(SlotBytesFor(kMaxPayloadBytes), kMaxPayloadBytes + 4096);
}

TEST(SlabBytes, Are64MiBOrEightSlotsInWholeHugePages) {
  EXPECT_EQ(SlabBytesFor(SlotBytesFor(1)), kMinSlabBytes);
  EXPECT_EQ(SlabBytesFor(kMinSlabBytes / 8), kMinSlabBytes);
  EXPECT_EQ(SlabBytesFor(SlotBytesFor(kMaxPayloadBytes)), 8 * kMaxPayloadBytes + 2 * kMiB);
}

TEST_F(ArenaTest, StartsEmptyAndHasItsCapacityAsHeadroom) {
  EXPECT_EQ(arena_->capacity_bytes(), 4 * kMinSlabBytes);
  EXPECT_EQ(arena_->HeadroomBytes(), 4 * kMinSlabBytes);
  EXPECT_EQ(arena_->FreeSlabs(), 0U);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), std::nullopt);
  EXPECT_FALSE(arena_->TakeFreeSlab(kAlice, kSlot));
  EXPECT_EQ(arena_->RemoveFree(), nullptr);
}

TEST_F(ArenaTest, AllocatesOnlyFromASlabThatTheTenantTook) {
  Install(1);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), std::nullopt);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  EXPECT_TRUE(arena_->Allocate(kAlice, kSlot).has_value());
  EXPECT_EQ(arena_->Allocate(kBob, kSlot), std::nullopt);
  EXPECT_EQ(arena_->Allocate(kAlice, SlotBytesFor(2 * kMiB)), std::nullopt) << "another slot size";
}

TEST_F(ArenaTest, GivesEverySlotOfASlabOnceAndThenNone) {
  Install(1);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const std::vector<SlotRef> slots = AllocateAll(kAlice, kSlot);
  EXPECT_EQ(slots.size(), kMinSlabBytes / kSlot);
  std::set<uint64_t> offsets;
  for (const SlotRef slot : slots) {
    EXPECT_EQ(arena_->SlotBytes(slot), kSlot);
    EXPECT_EQ(arena_->Payload(slot).size(), kSlot - kSlotHeaderBytes);
    const uint64_t offset = arena_->PayloadOffset(slot);
    EXPECT_EQ(offset % kSlotAlignment, 0U);
    EXPECT_EQ(arena_->Payload(slot).data(), arena_->Find(slot.slab)->memory().data() + offset);
    EXPECT_GE(offset, kSlotHeaderBytes);
    EXPECT_LE(offset + kSlot - kSlotHeaderBytes, kMinSlabBytes);
    offsets.insert(offset);
  }
  EXPECT_EQ(offsets.size(), slots.size());
  EXPECT_EQ(*std::next(offsets.begin()) - *offsets.begin(), kSlot);
  EXPECT_EQ(arena_->used_slot_bytes(), slots.size() * kSlot);
}

TEST_F(ArenaTest, FreedSlotIsGivenAgain) {
  Install(1);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const std::vector<SlotRef> slots = AllocateAll(kAlice, kSlot);
  arena_->Free(slots[5]);
  EXPECT_EQ(arena_->used_slot_bytes(), (slots.size() - 1) * kSlot);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), slots[5]);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), std::nullopt);
}

TEST_F(ArenaTest, FillsTheOldestSlabFirstSoThatOthersCanBecomeEmpty) {
  Install(2);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const std::vector<SlotRef> slots = AllocateAll(kAlice, kSlot);
  const SlotRef in_old = slots.front();
  const SlotRef in_new = slots.back();
  ASSERT_LT(in_old.slab, in_new.slab);
  arena_->Free(in_new);
  arena_->Free(in_old);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot)->slab, in_old.slab);
}

TEST_F(ArenaTest, TakesTheSmallestFreeSlabThatIsLargeEnough) {
  arena_->InstallFree(MakeSlab(2 * kMinSlabBytes));
  arena_->InstallFree(MakeSlab(kMinSlabBytes));
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  EXPECT_EQ(arena_->assigned_bytes(kAlice), kMinSlabBytes);
  ASSERT_TRUE(arena_->TakeFreeSlab(kBob, SlotBytesFor(15 * kMiB)));
  EXPECT_EQ(arena_->assigned_bytes(kBob), 2 * kMinSlabBytes);
}

TEST_F(ArenaTest, FreeSlabThatIsTooSmallIsNotTaken) {
  Install(1);
  EXPECT_FALSE(arena_->TakeFreeSlab(kAlice, SlotBytesFor(16 * kMiB)));
  EXPECT_EQ(arena_->FreeSlabs(), 1U);
}

TEST_F(ArenaTest, RemoveFreeMakesRoomForASlabOfAnotherSize) {
  Install(4);
  EXPECT_EQ(arena_->HeadroomBytes(), 0U);
  const std::unique_ptr<SlabMemory> memory = arena_->RemoveFree();
  ASSERT_NE(memory, nullptr);
  EXPECT_EQ(arena_->FreeSlabs(), 3U);
  EXPECT_EQ(arena_->HeadroomBytes(), kMinSlabBytes);
}

TEST_F(ArenaTest, RemoveFreeTakesTheLargest) {
  arena_->InstallFree(MakeSlab(kMinSlabBytes));
  arena_->InstallFree(MakeSlab(2 * kMinSlabBytes));
  EXPECT_EQ(arena_->RemoveFree()->memory().size(), 2 * kMinSlabBytes);
}

TEST_F(ArenaTest, RecutChangesTheSlotSizeOfAnEmptySlab) {
  Install(1);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const SlabId slab = arena_->Slabs().front().id;
  const std::optional<SlotRef> slot = arena_->Allocate(kAlice, kSlot);
  arena_->Free(*slot);
  constexpr uint64_t kSmaller = SlotBytesFor(4096);
  ASSERT_TRUE(arena_->Recut(slab, kSmaller));
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), std::nullopt);
  EXPECT_EQ(AllocateAll(kAlice, kSmaller).size(), kMinSlabBytes / kSmaller);
  EXPECT_EQ(arena_->View(slab)->slot_bytes, kSmaller);
  EXPECT_EQ(arena_->assigned_bytes(kAlice), kMinSlabBytes);
}

TEST_F(ArenaTest, RecutForASlotThatDoesNotFitIsRefusedAndChangesNothing) {
  Install(1);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const SlabId slab = arena_->Slabs().front().id;
  EXPECT_FALSE(arena_->Recut(slab, SlotBytesFor(kMinSlabBytes)));
  EXPECT_TRUE(arena_->Allocate(kAlice, kSlot).has_value());
}

TEST_F(ArenaTest, RetiredSlabStaysChargedUntilItIsDropped) {
  Install(2);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const SlabId slab = arena_->Slabs().front().id;
  arena_->Retire(slab);
  EXPECT_EQ(arena_->Allocate(kAlice, kSlot), std::nullopt);
  EXPECT_EQ(arena_->assigned_bytes(kAlice), kMinSlabBytes);
  EXPECT_EQ(arena_->HeadroomBytes(), 2 * kMinSlabBytes);
  EXPECT_TRUE(arena_->View(slab)->retired);
  EXPECT_NE(arena_->Find(slab), nullptr);
  EXPECT_TRUE(arena_->TakeFreeSlab(kBob, kSlot));
  EXPECT_NE(arena_->Allocate(kBob, kSlot)->slab, slab);

  EXPECT_EQ(source_.alive(), 2);
  arena_->DropRetired(slab).reset();
  EXPECT_EQ(source_.alive(), 1);
  EXPECT_EQ(arena_->assigned_bytes(kAlice), 0U);
  EXPECT_EQ(arena_->HeadroomBytes(), 3 * kMinSlabBytes);
  EXPECT_EQ(arena_->Find(slab), nullptr);
  EXPECT_EQ(arena_->View(slab), std::nullopt);
}

TEST_F(ArenaTest, SlabIdsAreNeverUsedAgain) {
  std::set<SlabId> seen;
  for (int i = 0; i < 20; ++i) {
    Install(1);
    ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
    const SlabId slab = arena_->Slabs().front().id;
    EXPECT_TRUE(seen.insert(slab).second);
    arena_->Retire(slab);
    arena_->DropRetired(slab);
  }
}

TEST_F(ArenaTest, ViewsCountAndListAssignedSlabsInOrder) {
  Install(3);
  ASSERT_TRUE(arena_->TakeFreeSlab(kBob, kSlot));
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  arena_->Allocate(kAlice, kSlot);
  const std::vector<SlabView> slabs = arena_->Slabs();
  ASSERT_EQ(slabs.size(), 2U);
  EXPECT_LT(slabs[0].id, slabs[1].id);
  EXPECT_EQ(slabs[0].tenant, kBob);
  EXPECT_EQ(slabs[0].used_slots, 0U);
  EXPECT_EQ(slabs[1].tenant, kAlice);
  EXPECT_EQ(slabs[1].used_slots, 1U);
  EXPECT_EQ(slabs[1].slot_count, kMinSlabBytes / kSlot);
  EXPECT_EQ(slabs[1].bytes, kMinSlabBytes);
  EXPECT_EQ(slabs[1].slot_bytes, kSlot);
  EXPECT_FALSE(slabs[1].retired);
  EXPECT_EQ(arena_->FreeSlabs(), 1U);
}

TEST_F(ArenaTest, ForEachUsedVisitsUsedSlotsAndMayFreeThem) {
  Install(1);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, SlotBytesFor(4096)));
  std::vector<SlotRef> slots = AllocateAll(kAlice, SlotBytesFor(4096));
  std::set<uint32_t> expected;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (i % 3 == 0) {
      arena_->Free(slots[i]);
    } else {
      expected.insert(slots[i].slot);
    }
  }
  std::set<uint32_t> visited;
  arena_->ForEachUsed(slots[0].slab, [&](SlotRef slot) {
    EXPECT_EQ(slot.slab, slots[0].slab);
    EXPECT_TRUE(visited.insert(slot.slot).second);
    arena_->Free(slot);
  });
  EXPECT_EQ(visited, expected);
  EXPECT_EQ(arena_->used_slot_bytes(), 0U);
  arena_->ForEachUsed(slots[0].slab, [](SlotRef) { ADD_FAILURE() << "nothing is used"; });
  arena_->ForEachUsed(SlabId{999}, [](SlotRef) { ADD_FAILURE() << "no such slab"; });
}

using ArenaDeathTest = ArenaTest;

TEST_F(ArenaDeathTest, BrokenInvariantsAbort) {
  Install(3);
  ASSERT_TRUE(arena_->TakeFreeSlab(kAlice, kSlot));
  const SlotRef slot = *arena_->Allocate(kAlice, kSlot);
  const SlabId slab = slot.slab;
  EXPECT_DEATH(arena_->Retire(slab), "") << "a slab in use";
  EXPECT_DEATH(arena_->Recut(slab, kSlot), "") << "a slab in use";
  EXPECT_DEATH(arena_->DropRetired(slab), "") << "not retired";
  EXPECT_DEATH(arena_->InstallFree(MakeSlab(2 * kMinSlabBytes)), "") << "over capacity";
  EXPECT_DEATH(arena_->Free({slab, slot.slot + 1}), "") << "never allocated";
  EXPECT_DEATH(arena_->Free({slab, 100000}), "") << "no such slot";
  EXPECT_DEATH(arena_->Free({SlabId{999}, 0}), "") << "no such slab";
  arena_->Free(slot);
  EXPECT_DEATH(arena_->Free(slot), "") << "double free";
  EXPECT_DEATH(static_cast<void>(arena_->Payload(slot)), "") << "use after free";
  EXPECT_DEATH(arena_->Recut(slab, 5000), "") << "not a slot size";
  arena_->Retire(slab);
  EXPECT_DEATH(arena_->Retire(slab), "") << "retired twice";
}

}  // namespace
}  // namespace terrace
