// Metadata of blocks, outside their slots: a dense table of 128-byte entries and the index that
// finds them by identity.
//
// Two cache lines a block: the first holds all that a probe needs (identity, state, locks), the
// second the rest. The index is an open-addressing table of {hash tag, BlockId}, 8 bytes an entry,
// in 64 shards so that growing one stalls for microseconds. A batch is looked up in pipelines of
// prefetches, so that it costs memory bandwidth and not memory latency; and the blocks of a chain,
// put together, mostly have ids in a row, so that behind a found block the next id is tried first
// and neither hash nor index is needed.
//
// Thread-compatible: confined to the store's lock.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

#include "tiers/dram/arena.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

enum class BlockState : uint8_t {
  kFree = 0,
  kFilling = 1,  // named in the index, bytes on their way: PENDING
  kReady = 2,
  kHidden =
      3,  // deleted, cleared or corrupt while locked: not in the index, freed with its last lock
};

inline constexpr uint32_t kInlineKeyBytes = 40;

struct alignas(64) Block {
  ScopeId scope{0};
  uint32_t touched_ds = 0;  // tenths of a second since the store began
  uint32_t payload_bytes = 0;
  uint32_t locks = 0;   // leases + holds + transfers + pin: never evicted while positive
  uint32_t serial = 0;  // rises with each reuse of the id
  BlockState state = BlockState::kFree;
  uint8_t key_bytes : 7 = 0;
  uint8_t fetched_ahead : 1 = 0;  // for a return that is expected, and not used since
  uint16_t pool = 0;
  std::array<char, kInlineKeyBytes> key_storage{};  // the key, or a pointer to it when it is longer

  SlabId slab{0};
  uint32_t slot = 0;
  BlockId parent = kNoBlock;
  uint32_t parent_serial = 0;
  Digest128 checksum;
  uint32_t leases = 0;
  uint32_t holds = 0;
  uint32_t stored_ds = 0;
  uint32_t first_token = 0;
  uint32_t hash_tag = 0;
  uint16_t shard = 0;
  bool pinned = false;
  bool has_slot = false;
  uint8_t queued_to = 0;   // a bit an outlet: it waits there to be published
  uint8_t offered_to = 0;  // likewise: its policy has had it, and does not ask for it again
  bool from_pool = false;  // read from a shared tier
  uint8_t local_verdict : 4 = 0;    // Admission + 1, whether to write it to the local tier; 0: none
  uint8_t completes_below : 1 = 0;  // what was written there is of no use without it
  uint8_t unverified : 1 = 0;       // from an earlier life, and not read since
  uint32_t judged_ds = 0;           // when; a use since then makes it stale

  [[nodiscard]] KeyView key() const;
};
static_assert(sizeof(Block) == 128);

class BlockTable {
 public:
  BlockTable() = default;
  ~BlockTable();
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  BlockTable(BlockTable&&) = delete;
  BlockTable& operator=(BlockTable&&) = delete;

  // A fresh block in state kFilling with this identity.
  BlockId Add(ScopeId scope, KeyView key);
  void Remove(BlockId id);
  [[nodiscard]] Block& at(BlockId id) {
    return chunks_.data()[Index(id) / kChunk].get()[Index(id) % kChunk];
  }
  [[nodiscard]] const Block& at(BlockId id) const {
    return chunks_.data()[Index(id) / kChunk].get()[Index(id) % kChunk];
  }
  [[nodiscard]] uint32_t end() const { return end_; }  // ids below this have been used
  [[nodiscard]] uint64_t live() const { return live_; }
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kChunk = 4096;
  static uint32_t Index(BlockId id) { return static_cast<uint32_t>(id); }

  std::vector<std::unique_ptr<Block[]>> chunks_;
  std::vector<BlockId> free_;
  uint32_t end_ = 0;
  uint64_t live_ = 0;
};

class ResidentIndex {
 public:
  // seed: random per process, so that nobody can choose keys that collide.
  ResidentIndex(BlockTable& blocks, uint64_t seed);

  [[nodiscard]] BlockId Find(ScopeId scope, KeyView key) const;
  // out[i] = Find(scope, i-th key). Stops behind the first kNoBlock when `stop_at_miss`; returns
  // how many were written.
  enum class OnMiss : uint8_t { kStop, kGoOn };
  size_t FindMany(ScopeId scope,
                  std::string_view keys,
                  uint32_t key_bytes,
                  OnMiss on_miss,
                  absl::Span<BlockId> out) const;
  void Insert(BlockId id);  // its identity must be absent
  void Erase(BlockId id);   // must be present
  [[nodiscard]] uint64_t size() const { return size_; }
  // Of an identity, the same for as long as the process lives.
  [[nodiscard]] uint64_t Hash(ScopeId scope, KeyView key) const;
  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kShards = 64;
  struct Entry {
    uint32_t tag = 0;
    BlockId id = kNoBlock;
  };
  struct Shard {
    std::vector<Entry> entries;
    uint32_t used = 0;
  };

  [[nodiscard]] BlockId FindHashed(uint64_t hash, ScopeId scope, KeyView key) const;
  // FindMany by way of the index, all of `out`.
  size_t FindHashedMany(ScopeId scope,
                        std::string_view keys,
                        uint32_t key_bytes,
                        OnMiss on_miss,
                        absl::Span<BlockId> out) const;
  // How many keys, from the first, are those of the blocks from `id` on, in a row; at most
  // out.size(), which are written.
  size_t FollowRow(BlockId id,
                   ScopeId scope,
                   std::string_view keys,
                   uint32_t key_bytes,
                   absl::Span<BlockId> out) const;
  // Whether the block has this identity.
  static bool Names(const Block& block, ScopeId scope, KeyView key);
  static bool IsIndexed(const Block& block);
  [[nodiscard]] BlockId Candidate(uint64_t hash) const;
  static void Grow(Shard& shard);
  static void Place(Shard& shard, Entry entry);

  BlockTable& blocks_;
  const uint64_t seed_;
  std::array<Shard, kShards> shards_;
  uint64_t size_ = 0;
};

}  // namespace terrace
