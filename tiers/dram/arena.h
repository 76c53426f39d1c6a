// The DRAM arena: sealed slabs cut into slots.
//
// A slab belongs to one tenant for its whole life and is cut into slots of one size at a time. A
// slot is a header page (4 KiB, kept for the on-disk record header) and the payload rounded up to 4
// KiB. Slabs have max(64 MiB, 8 slots) bytes. Free slabs belong to nobody yet; they are made and
// touched at start. A slab that its tenant gives up is closed and replaced by fresh memory, never
// handed to another tenant; until the last session of the old tenant that mapped it is gone, its
// bytes stay charged to that tenant (the caller says so through RetireSlab / ReleaseRetired).
//
// Pure bookkeeping over memory from a SlabSource (sealed memfds; plain heap in tests): no clock, no
// I/O, no policy. Confined to its owner's lock (thread-compatible); SlabSource::Make is only called
// from AddSlab, which the owner calls without its lock by way of PrepareSlab/InstallSlab.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/os/descriptor.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint64_t kSlotAlignment = 4096;
inline constexpr uint64_t kSlotHeaderBytes = 4096;
inline constexpr uint64_t kMinSlabBytes = uint64_t{64} << 20;
inline constexpr uint32_t kMinSlotsPerSlab = 8;

// Bytes of a slot for payloads of up to `payload_bytes`.
constexpr uint64_t SlotBytesFor(uint64_t payload_bytes) {
  return kSlotHeaderBytes + (payload_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}
// Bytes of a slab whose slots have `slot_bytes`: max(64 MiB, 8 slots), rounded up to 2 MiB.
uint64_t SlabBytesFor(uint64_t slot_bytes);

// Memory for one slab.
class SlabMemory {
 public:
  virtual ~SlabMemory() = default;
  [[nodiscard]] virtual absl::Span<char> memory() const = 0;
  // For clients to map read-only; an invalid descriptor where there is none (heap double).
  [[nodiscard]] virtual const Descriptor& descriptor() const = 0;
  [[nodiscard]] virtual PageKind page_kind() const = 0;
};

class SlabSource {
 public:
  virtual ~SlabSource() = default;
  // Makes and touches memory; may block for tens of milliseconds. Thread-safe.
  // Errors: RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) = 0;
};
// Sealed memfds, huge pages preferred when `huge_pages`.
std::unique_ptr<SlabSource> MakeSealedSlabSource(bool huge_pages, int touch_threads);
// Memory that such a source made in an earlier life of the process. The seals let nobody write to
// it again, this process included: a store to it faults. Errors: those of SealedMemory::Adopt.
absl::StatusOr<std::unique_ptr<SlabMemory>> AdoptSealedSlab(Descriptor descriptor);

// Where a block's bytes lie.
struct SlotRef {
  SlabId slab{0};
  uint32_t slot = 0;
  friend bool operator==(const SlotRef&, const SlotRef&) = default;
};

struct SlabView {
  SlabId id{0};
  TenantId tenant{0};
  uint64_t slot_bytes = 0;
  uint32_t slot_count = 0;
  uint32_t used_slots = 0;
  uint64_t bytes = 0;
  bool retired = false;
  bool kept = false;  // from an earlier life: read and emptied, never allocated from
};

class Arena {
 public:
  // capacity_bytes: the sum of all slabs, free and retired ones included, never exceeds it.
  static std::unique_ptr<Arena> Create(uint64_t capacity_bytes);
  virtual ~Arena() = default;

  // ---- slots
  // A slot of exactly the class SlotBytesFor(payload_bytes) of the tenant from its slabs; nullopt:
  // none is free, add a slab (TakeFreeSlab, InstallSlab, RecutSlab) or evict.
  virtual std::optional<SlotRef> Allocate(TenantId tenant, uint64_t slot_bytes) = 0;
  virtual void Free(SlotRef ref) = 0;  // aborts on double free
  [[nodiscard]] virtual absl::Span<char> Payload(
      SlotRef ref) const = 0;  // slot_bytes - kSlotHeaderBytes long
  // Byte offset of the payload in the slab.
  [[nodiscard]] virtual uint64_t PayloadOffset(SlotRef ref) const = 0;
  [[nodiscard]] virtual uint64_t SlotBytes(SlotRef ref) const = 0;

  // ---- slabs
  // Gives an unassigned slab of at least SlabBytesFor(slot_bytes) to the tenant, cut for
  // slot_bytes. False: none.
  virtual bool TakeFreeSlab(TenantId tenant, uint64_t slot_bytes) = 0;
  // Bytes that a new slab may have now: capacity less all slabs that exist.
  [[nodiscard]] virtual uint64_t HeadroomBytes() const = 0;
  // Adds fresh memory as a free slab. The caller made it (SlabSource::Make) without holding its
  // lock.
  virtual void InstallFree(std::unique_ptr<SlabMemory> memory) = 0;
  // Adds memory of an earlier life as a slab of the tenant, cut as it was, with no slot used. It
  // has to fit into HeadroomBytes, and is given up by Retire.
  virtual SlabId InstallKept(std::unique_ptr<SlabMemory> memory,
                             TenantId tenant,
                             uint64_t slot_bytes) = 0;
  // A slot of such a slab is used again. False: there is none, or it is used already.
  virtual bool TakeKept(SlotRef ref) = 0;
  // Takes one free slab's memory out for good (to make room for a slab of another size); nullptr:
  // none is free.
  virtual std::unique_ptr<SlabMemory> RemoveFree() = 0;
  // Cuts an empty slab of the tenant anew for another slot size. False: it is too small for 1 slot
  // of that size.
  virtual bool Recut(SlabId slab, uint64_t slot_bytes) = 0;
  // An empty slab leaves its tenant for good: it is never allocated from again, and stays counted
  // until DropRetired hands out its memory (the caller destroys it outside its lock).
  virtual void Retire(SlabId slab) = 0;
  virtual std::unique_ptr<SlabMemory> DropRetired(SlabId slab) = 0;

  [[nodiscard]] virtual const SlabMemory* Find(
      SlabId slab) const = 0;  // nullptr: unknown or dropped
  [[nodiscard]] virtual std::optional<SlabView> View(SlabId slab) const = 0;
  [[nodiscard]] virtual std::vector<SlabView> Slabs() const = 0;  // assigned and retired ones
  [[nodiscard]] virtual uint32_t FreeSlabs() const = 0;
  // Calls `visit` for each used slot of the slab.
  virtual void ForEachUsed(SlabId slab, const std::function<void(SlotRef)>& visit) const = 0;

  [[nodiscard]] virtual uint64_t capacity_bytes() const = 0;
  [[nodiscard]] virtual uint64_t assigned_bytes(
      TenantId tenant) const = 0;  // slabs, retired ones included
  [[nodiscard]] virtual uint64_t used_slot_bytes() const = 0;
};

}  // namespace terrace
