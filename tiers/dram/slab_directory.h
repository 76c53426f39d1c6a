// What a later life of the process has to know of the blocks in slabs that outlive it.
//
// A directory lies in memory that outlives the process too, and is written with plain stores: what
// a process that is killed has stored, others find there in the order of its stores. It holds
// tables of fixed size: slabs, namespaces, scopes (a namespace, a generation, a salt), and an entry
// for each slot of each slab. Every record is sealed: a 64-bit hash of it and of its place, stored
// last and taken back first, so that one that is torn, flipped or out of place is none. An entry
// names the seal of its scope, so that it does not count under another one.
//
// The order that makes it right after a kill at any instruction is the caller's: Publish once the
// payload and its checksum are complete, Invalidate before the block's end is told and before its
// slot is given to anything else; a scope's record is written over only when no entry of it is
// valid.
//
// The memory is never shown to clients. A directory belongs to one life: the next one reads it
// (ReadSlabDirectory), writes what it keeps into a fresh one, and marks the old one Superseded
// before it changes anything. It need not be understood by other versions: one that is not is no
// directory.
//
// Format (version 1), little-endian; offsets in bytes. Header page: 0 magic "TerrDir1", 8 u32
// version, 12 u32 slabs, 16 u32 slots, 20 u32 scopes, 24 u32 namespaces, 32 u64 life, 40 u64 seal
// of [0, 40); 64 u64 state, 72 u64 next serial, 80 and 88 u64 ends of what is used of namespaces
// and scopes. Then the tables, each aligned to 4096: slabs of 256, namespaces of 16384, scopes of
// 512, entries of 128 bytes. Every record begins with its seal.
//
// Thread-compatible: confined to its owner's lock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

struct DirectoryGeometry {
  uint32_t slabs = 0;
  uint32_t slots = 8192;  // of a slab: what lies in later ones is not kept
  uint32_t scopes = 1U << 16;
  uint32_t namespaces = 1U << 12;
  // For an arena of so many bytes, and slabs that it has given up and cannot give back yet.
  static DirectoryGeometry For(uint64_t capacity_bytes);
  // Of the memory that it takes; pages that nothing was written to take none.
  [[nodiscard]] uint64_t bytes() const;
};

struct DirectorySlab {
  uint64_t serial = 0;  // of all slabs of all lives
  uint64_t inode = 0;   // of its memory
  uint64_t bytes = 0;
  uint64_t slot_bytes = 0;
  std::string tenant;   // alias, at most 128 bytes
  uint32_t leases = 0;  // blocks of it that clients read in place
};

struct DirectoryNamespace {
  std::string record;  // canonical encoding
  uint64_t generation = 0;
};

struct DirectoryScope {
  uint32_t ns = 0;  // number of its namespace
  uint64_t generation = 0;
  std::string salt;
};

// A block that is ready.
struct DirectoryEntry {
  uint32_t scope = 0;
  uint32_t payload_bytes = 0;
  uint32_t first_token = 0;
  uint64_t sequence = 0;         // rises with each entry; never 0
  uint64_t parent_sequence = 0;  // 0: none
  Digest128 checksum;
  std::string key;  // at most 64 bytes
};

class SlabDirectory {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // `memory` is zeroed, of geometry.bytes(), and outlives the directory. Serials of slabs begin at
  // `first_serial`.
  SlabDirectory(absl::Span<char> memory,
                const DirectoryGeometry& geometry,
                uint64_t life,
                uint64_t first_serial);

  // Until then a reader takes it for none.
  void MarkComplete();

  // ---- slabs. The serial of `slab` is set here unless it has one. kNone: the table is full.
  uint32_t AddSlab(DirectorySlab& slab);
  void RemoveSlab(uint32_t index);
  // No entry of it is valid.
  void SetSlotBytes(uint32_t index, uint64_t slot_bytes);
  void AddLease(uint32_t index, int change);
  [[nodiscard]] uint64_t SerialOf(uint32_t index) const { return serials_[index]; }

  // ---- namespaces and scopes, by numbers that the caller gives them. False: not noted, because
  // the number or the record is too large.
  bool NoteNamespace(uint32_t number, const DirectoryNamespace& ns);
  void RaiseNamespace(uint32_t number, uint64_t generation);  // that was noted
  bool NoteScope(uint32_t number, const DirectoryScope& scope);

  // ---- entries. Publish sets the sequence unless it is given. Slots beyond the table are left
  // out.
  void Publish(uint32_t slab, uint32_t slot, DirectoryEntry& entry);
  void Invalidate(uint32_t slab, uint32_t slot);
  // 0: no valid entry.
  [[nodiscard]] uint64_t SequenceAt(uint32_t slab, uint32_t slot) const;

 private:
  [[nodiscard]] char* Record(uint64_t table, uint32_t number, uint64_t record_bytes) const;
  [[nodiscard]] char* Entry(uint32_t slab, uint32_t slot) const;

  const absl::Span<char> memory_;
  const DirectoryGeometry geometry_;
  uint64_t next_serial_;
  uint64_t next_sequence_ = 1;
  std::vector<uint64_t> serials_;  // by index; 0: free
  std::vector<uint64_t> scope_seals_;
};

struct DirectoryBlock {
  uint32_t slab = 0;  // index into DirectoryContent::slabs
  uint32_t slot = 0;
  DirectoryEntry entry;
};

struct DirectoryContent {
  uint64_t life = 0;
  uint64_t next_serial = 1;
  std::vector<DirectorySlab> slabs;
  // By number; those that are not noted, or cannot be trusted, are nullopt.
  std::vector<std::optional<DirectoryNamespace>> namespaces;
  std::vector<std::optional<DirectoryScope>> scopes;
  std::vector<DirectoryBlock> blocks;  // valid ones, by sequence
  uint64_t damaged = 0;                // records that are neither valid nor none
};

// Reads any bytes. INVALID_ARGUMENT: no directory of this version, or not complete, or superseded.
// `memory` does not change meanwhile.
absl::StatusOr<DirectoryContent> ReadSlabDirectory(absl::Span<const char> memory);

// Nothing in it counts from now on. `header`: at least its first page.
void SupersedeSlabDirectory(absl::Span<char> header);

}  // namespace terrace
