// The arena's books: which slab is whose, and which of its slots are used.
#include "tiers/dram/arena.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint64_t kSlabAlignment = uint64_t{2} << 20;
constexpr uint32_t kBitsPerWord = 64;

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

enum class SlabState : uint8_t { kFree, kAssigned, kRetired };

struct Slab {
  SlabState state = SlabState::kFree;
  bool kept = false;
  std::unique_ptr<SlabMemory> memory;
  TenantId tenant{0};
  uint64_t slot_bytes = 0;
  uint32_t slot_count = 0;
  std::vector<uint32_t> free_slots;  // the last is given next: what was freed last is in the cache
  std::vector<uint64_t> used;        // a bit a slot

  [[nodiscard]] uint64_t bytes() const { return memory->memory().size(); }
  [[nodiscard]] uint32_t used_slots() const {
    return slot_count - static_cast<uint32_t>(free_slots.size());
  }
  [[nodiscard]] bool IsUsed(uint32_t slot) const {
    return slot < slot_count && (used[slot / kBitsPerWord] >> (slot % kBitsPerWord) & 1) != 0;
  }
  void FlipUsed(uint32_t slot) {
    used[slot / kBitsPerWord] ^= uint64_t{1} << (slot % kBitsPerWord);
  }

  void Cut(uint64_t bytes_per_slot) {
    TERRACE_CHECK(bytes_per_slot > kSlotHeaderBytes && bytes_per_slot % kSlotAlignment == 0);
    slot_bytes = bytes_per_slot;
    slot_count = static_cast<uint32_t>(bytes() / bytes_per_slot);
    used.assign((slot_count + kBitsPerWord - 1) / kBitsPerWord, 0);
    free_slots.resize(slot_count);
    for (uint32_t i = 0; i < slot_count; ++i) {
      free_slots[i] = slot_count - 1 - i;
    }
  }
};

// The slots of one tenant and size are interchangeable.
using SlotClass = std::pair<TenantId, uint64_t>;

class ArenaImpl final : public Arena {
 public:
  explicit ArenaImpl(uint64_t capacity_bytes) : capacity_bytes_(capacity_bytes) {}

  std::optional<SlotRef> Allocate(TenantId tenant, uint64_t slot_bytes) override;
  void Free(SlotRef ref) override;
  [[nodiscard]] absl::Span<char> Payload(SlotRef ref) const override;
  [[nodiscard]] uint64_t PayloadOffset(SlotRef ref) const override;
  [[nodiscard]] uint64_t SlotBytes(SlotRef ref) const override { return UsedSlab(ref).slot_bytes; }

  bool TakeFreeSlab(TenantId tenant, uint64_t slot_bytes) override;
  [[nodiscard]] uint64_t HeadroomBytes() const override { return capacity_bytes_ - slab_bytes_; }
  void InstallFree(std::unique_ptr<SlabMemory> memory) override;
  SlabId InstallKept(std::unique_ptr<SlabMemory> memory,
                     TenantId tenant,
                     uint64_t slot_bytes) override;
  bool TakeKept(SlotRef ref) override;
  std::unique_ptr<SlabMemory> RemoveFree() override;
  bool Recut(SlabId slab, uint64_t slot_bytes) override;
  void Retire(SlabId slab) override;
  std::unique_ptr<SlabMemory> DropRetired(SlabId slab) override;

  [[nodiscard]] const SlabMemory* Find(SlabId slab) const override;
  [[nodiscard]] std::optional<SlabView> View(SlabId slab) const override;
  [[nodiscard]] std::vector<SlabView> Slabs() const override;
  [[nodiscard]] uint32_t FreeSlabs() const override { return static_cast<uint32_t>(free_.size()); }
  void ForEachUsed(SlabId slab, const std::function<void(SlotRef)>& visit) const override;

  [[nodiscard]] uint64_t capacity_bytes() const override { return capacity_bytes_; }
  [[nodiscard]] uint64_t assigned_bytes(TenantId tenant) const override;
  [[nodiscard]] uint64_t used_slot_bytes() const override { return used_slot_bytes_; }

 private:
  [[nodiscard]] const Slab& UsedSlab(SlotRef ref) const;
  Slab& AssignedEmpty(SlabId id);
  std::unique_ptr<SlabMemory> TakeOut(SlabId id);
  void OfferSlots(SlabId id, const Slab& slab) {
    with_room_[{slab.tenant, slab.slot_bytes}].insert(id);
  }
  void WithdrawSlots(SlabId id, const Slab& slab);

  const uint64_t capacity_bytes_;
  uint64_t slab_bytes_ = 0;
  uint64_t used_slot_bytes_ = 0;
  uint32_t next_slab_ = 1;
  absl::flat_hash_map<SlabId, Slab> slabs_;
  std::set<std::pair<uint64_t, SlabId>> free_;  // by size
  // Slabs with a free slot. The one with the lowest id is filled first, so that the others can
  // become empty.
  std::map<SlotClass, std::set<SlabId>> with_room_;
  absl::flat_hash_map<TenantId, uint64_t> assigned_bytes_;
};

void ArenaImpl::WithdrawSlots(SlabId id, const Slab& slab) {
  const auto found = with_room_.find({slab.tenant, slab.slot_bytes});
  if (found != with_room_.end() && found->second.erase(id) == 1 && found->second.empty()) {
    with_room_.erase(found);
  }
}

std::optional<SlotRef> ArenaImpl::Allocate(TenantId tenant, uint64_t slot_bytes) {
  const auto found = with_room_.find({tenant, slot_bytes});
  if (found == with_room_.end()) {
    return std::nullopt;
  }
  const SlabId id = *found->second.begin();
  Slab& slab = slabs_.at(id);
  const uint32_t slot = slab.free_slots.back();
  slab.free_slots.pop_back();
  slab.FlipUsed(slot);
  used_slot_bytes_ += slot_bytes;
  if (slab.free_slots.empty()) {
    WithdrawSlots(id, slab);
  }
  return SlotRef{id, slot};
}

void ArenaImpl::Free(SlotRef ref) {
  const auto found = slabs_.find(ref.slab);
  TERRACE_CHECK(found != slabs_.end() && found->second.IsUsed(ref.slot));
  Slab& slab = found->second;
  slab.FlipUsed(ref.slot);
  slab.free_slots.push_back(ref.slot);
  used_slot_bytes_ -= slab.slot_bytes;
  if (slab.free_slots.size() == 1 && !slab.kept) {
    OfferSlots(ref.slab, slab);
  }
}

const Slab& ArenaImpl::UsedSlab(SlotRef ref) const {
  const auto found = slabs_.find(ref.slab);
  TERRACE_CHECK(found != slabs_.end() && found->second.IsUsed(ref.slot));
  return found->second;
}

absl::Span<char> ArenaImpl::Payload(SlotRef ref) const {
  const Slab& slab = UsedSlab(ref);
  return slab.memory->memory().subspan(PayloadOffset(ref), slab.slot_bytes - kSlotHeaderBytes);
}

uint64_t ArenaImpl::PayloadOffset(SlotRef ref) const {
  return ref.slot * UsedSlab(ref).slot_bytes + kSlotHeaderBytes;
}

bool ArenaImpl::TakeFreeSlab(TenantId tenant, uint64_t slot_bytes) {
  const auto found = free_.lower_bound({SlabBytesFor(slot_bytes), SlabId{0}});
  if (found == free_.end()) {
    return false;
  }
  const SlabId id = found->second;
  free_.erase(found);
  Slab& slab = slabs_.at(id);
  slab.state = SlabState::kAssigned;
  slab.tenant = tenant;
  slab.Cut(slot_bytes);
  assigned_bytes_[tenant] += slab.bytes();
  OfferSlots(id, slab);
  return true;
}

void ArenaImpl::InstallFree(std::unique_ptr<SlabMemory> memory) {
  const uint64_t bytes = memory->memory().size();
  TERRACE_CHECK(bytes > 0 && bytes <= HeadroomBytes());
  slab_bytes_ += bytes;
  const SlabId id{next_slab_++};
  free_.emplace(bytes, id);
  slabs_[id].memory = std::move(memory);
}

SlabId ArenaImpl::InstallKept(std::unique_ptr<SlabMemory> memory,
                              TenantId tenant,
                              uint64_t slot_bytes) {
  const uint64_t bytes = memory->memory().size();
  TERRACE_CHECK(bytes >= slot_bytes && bytes <= HeadroomBytes());
  slab_bytes_ += bytes;
  const SlabId id{next_slab_++};
  Slab& slab = slabs_[id];
  slab.state = SlabState::kAssigned;
  slab.kept = true;
  slab.memory = std::move(memory);
  slab.tenant = tenant;
  slab.Cut(slot_bytes);
  assigned_bytes_[tenant] += bytes;
  return id;
}

// Its free slots are given to nobody, so that only their number counts.
bool ArenaImpl::TakeKept(SlotRef ref) {
  Slab& slab = slabs_.at(ref.slab);
  TERRACE_CHECK(slab.kept);
  if (ref.slot >= slab.slot_count || slab.IsUsed(ref.slot)) {
    return false;
  }
  slab.FlipUsed(ref.slot);
  slab.free_slots.pop_back();
  used_slot_bytes_ += slab.slot_bytes;
  return true;
}

std::unique_ptr<SlabMemory> ArenaImpl::RemoveFree() {
  if (free_.empty()) {
    return nullptr;
  }
  const auto largest = std::prev(free_.end());
  const SlabId id = largest->second;
  free_.erase(largest);
  return TakeOut(id);
}

std::unique_ptr<SlabMemory> ArenaImpl::TakeOut(SlabId id) {
  const auto found = slabs_.find(id);
  std::unique_ptr<SlabMemory> memory = std::move(found->second.memory);
  slab_bytes_ -= memory->memory().size();
  slabs_.erase(found);
  return memory;
}

Slab& ArenaImpl::AssignedEmpty(SlabId id) {
  const auto found = slabs_.find(id);
  TERRACE_CHECK(found != slabs_.end() && found->second.state == SlabState::kAssigned);
  TERRACE_CHECK(found->second.used_slots() == 0);
  return found->second;
}

bool ArenaImpl::Recut(SlabId id, uint64_t slot_bytes) {
  Slab& slab = AssignedEmpty(id);
  TERRACE_CHECK(!slab.kept);
  if (slot_bytes > slab.bytes()) {
    return false;
  }
  WithdrawSlots(id, slab);
  slab.Cut(slot_bytes);
  OfferSlots(id, slab);
  return true;
}

void ArenaImpl::Retire(SlabId id) {
  Slab& slab = AssignedEmpty(id);
  WithdrawSlots(id, slab);
  slab.state = SlabState::kRetired;
}

std::unique_ptr<SlabMemory> ArenaImpl::DropRetired(SlabId id) {
  const auto found = slabs_.find(id);
  TERRACE_CHECK(found != slabs_.end() && found->second.state == SlabState::kRetired);
  const auto assigned = assigned_bytes_.find(found->second.tenant);
  assigned->second -= found->second.bytes();
  if (assigned->second == 0) {
    assigned_bytes_.erase(assigned);
  }
  return TakeOut(id);
}

const SlabMemory* ArenaImpl::Find(SlabId id) const {
  const auto found = slabs_.find(id);
  return found == slabs_.end() ? nullptr : found->second.memory.get();
}

std::optional<SlabView> ArenaImpl::View(SlabId id) const {
  const auto found = slabs_.find(id);
  if (found == slabs_.end() || found->second.state == SlabState::kFree) {
    return std::nullopt;
  }
  const Slab& slab = found->second;
  return SlabView{.id = id,
                  .tenant = slab.tenant,
                  .slot_bytes = slab.slot_bytes,
                  .slot_count = slab.slot_count,
                  .used_slots = slab.used_slots(),
                  .bytes = slab.bytes(),
                  .retired = slab.state == SlabState::kRetired,
                  .kept = slab.kept};
}

std::vector<SlabView> ArenaImpl::Slabs() const {
  std::vector<SlabView> views;
  for (const auto& [id, slab] : slabs_) {
    if (slab.state != SlabState::kFree) {
      views.push_back(*View(id));
    }
  }
  std::sort(views.begin(), views.end(),
            [](const SlabView& a, const SlabView& b) { return a.id < b.id; });
  return views;
}

void ArenaImpl::ForEachUsed(SlabId id, const std::function<void(SlotRef)>& visit) const {
  const auto found = slabs_.find(id);
  if (found == slabs_.end()) {
    return;
  }
  const std::vector<uint64_t> used = found->second.used;  // a copy: `visit` may free
  for (uint32_t word = 0; word < used.size(); ++word) {
    for (uint64_t bits = used[word]; bits != 0; bits &= bits - 1) {
      visit({id, word * kBitsPerWord + static_cast<uint32_t>(std::countr_zero(bits))});
    }
  }
}

uint64_t ArenaImpl::assigned_bytes(TenantId tenant) const {
  const auto found = assigned_bytes_.find(tenant);
  return found == assigned_bytes_.end() ? 0 : found->second;
}

}  // namespace

uint64_t SlabBytesFor(uint64_t slot_bytes) {
  return RoundUp(std::max(kMinSlabBytes, kMinSlotsPerSlab * slot_bytes), kSlabAlignment);
}

std::unique_ptr<Arena> Arena::Create(uint64_t capacity_bytes) {
  return std::make_unique<ArenaImpl>(capacity_bytes);
}

}  // namespace terrace
