#include "daemon/store/block_table.h"

#include <algorithm>
#include <cstring>

#include "tiers/vocab/check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace terrace {

KeyView Block::key() const {
  if (key_bytes <= kInlineKeyBytes) {
    return {key_storage.data(), key_bytes};
  }
  const char* heap = nullptr;
  std::memcpy(&heap, key_storage.data(), sizeof(heap));
  return {heap, key_bytes};
}

namespace {

void SetKey(Block& block, KeyView key) {
  block.key_bytes = static_cast<uint8_t>(key.size());
  if (key.size() <= kInlineKeyBytes) {
    std::memcpy(block.key_storage.data(), key.data(), key.size());
    return;
  }
  auto heap = std::make_unique<char[]>(key.size());
  std::memcpy(heap.get(), key.data(), key.size());
  const char* pointer = heap.release();
  std::memcpy(block.key_storage.data(), &pointer, sizeof(pointer));
}

void DropKey(Block& block) {
  if (block.key_bytes > kInlineKeyBytes) {
    const std::unique_ptr<const char[]> heap(block.key().data());
  }
  block.key_bytes = 0;
}

}  // namespace

BlockTable::~BlockTable() {
  for (uint32_t i = 0; i < end_; ++i) {
    DropKey(at(BlockId{i}));
  }
}

BlockId BlockTable::Add(ScopeId scope, KeyView key) {
  TERRACE_CHECK(key.size() >= kMinKeyBytes && key.size() <= kMaxKeyBytes);
  BlockId id = kNoBlock;
  if (!free_.empty()) {
    id = free_.back();
    free_.pop_back();
  } else {
    if (end_ == chunks_.size() * kChunk) {
      chunks_.push_back(std::make_unique<Block[]>(kChunk));
    }
    id = BlockId{end_++};
  }
  Block& block = at(id);
  const uint32_t serial = block.serial + 1;
  block = Block{};
  block.serial = serial;
  block.scope = scope;
  block.state = BlockState::kFilling;
  SetKey(block, key);
  ++live_;
  return id;
}

void BlockTable::Remove(BlockId id) {
  Block& block = at(id);
  TERRACE_CHECK(block.state != BlockState::kFree && block.locks == 0 && !block.has_slot);
  DropKey(block);
  block.state = BlockState::kFree;
  free_.push_back(id);
  --live_;
}

uint64_t BlockTable::memory_bytes() const {
  return chunks_.size() * kChunk * sizeof(Block) + free_.capacity() * sizeof(BlockId);
}

BlockIndex::BlockIndex(BlockTable& blocks, uint64_t seed) : blocks_(blocks), seed_(seed) {
  for (Shard& shard : shards_) {
    shard.entries.resize(16);
  }
}

uint64_t BlockIndex::Hash(ScopeId scope, KeyView key) const {
  return XXH3_64bits_withSeed(key.data(), key.size(),
                              seed_ ^ (static_cast<uint64_t>(scope) * 0x9e3779b97f4a7c15ULL));
}

BlockId BlockIndex::FindHashed(uint64_t hash, ScopeId scope, KeyView key) const {
  const Shard& shard = shards_[hash >> 58U];
  const auto tag = static_cast<uint32_t>(hash);
  const size_t mask = shard.entries.size() - 1;
  for (size_t at = tag & mask;; at = (at + 1) & mask) {
    const Entry& entry = shard.entries[at];
    if (entry.id == kNoBlock) {
      return kNoBlock;
    }
    if (entry.tag == tag) {
      const Block& block = blocks_.at(entry.id);
      if (block.scope == scope && block.key() == key) {
        return entry.id;
      }
    }
  }
}

BlockId BlockIndex::Find(ScopeId scope, KeyView key) const {
  return FindHashed(Hash(scope, key), scope, key);
}

size_t BlockIndex::FindMany(ScopeId scope,
                            std::string_view keys,
                            uint32_t key_bytes,
                            OnMiss on_miss,
                            absl::Span<BlockId> out) const {
  constexpr size_t kWave = 32;
  std::array<uint64_t, kWave> hashes{};
  const size_t count = out.size();
  for (size_t begin = 0; begin < count; begin += kWave) {
    const size_t wave = std::min(kWave, count - begin);
    for (size_t i = 0; i < wave; ++i) {
      hashes[i] = Hash(scope, keys.substr((begin + i) * key_bytes, key_bytes));
      const Shard& shard = shards_[hashes[i] >> 58U];
      __builtin_prefetch(
          &shard.entries[static_cast<uint32_t>(hashes[i]) & (shard.entries.size() - 1)]);
    }
    for (size_t i = 0; i < wave; ++i) {
      const Shard& shard = shards_[hashes[i] >> 58U];
      const size_t mask = shard.entries.size() - 1;
      const auto tag = static_cast<uint32_t>(hashes[i]);
      for (size_t at = tag & mask; shard.entries[at].id != kNoBlock; at = (at + 1) & mask) {
        if (shard.entries[at].tag == tag) {
          __builtin_prefetch(&blocks_.at(shard.entries[at].id));
          break;
        }
      }
    }
    for (size_t i = 0; i < wave; ++i) {
      const BlockId id =
          FindHashed(hashes[i], scope, keys.substr((begin + i) * key_bytes, key_bytes));
      out[begin + i] = id;
      if (id == kNoBlock && on_miss == OnMiss::kStop) {
        return begin + i + 1;
      }
    }
  }
  return count;
}

void BlockIndex::Place(Shard& shard, Entry entry) {
  const size_t mask = shard.entries.size() - 1;
  size_t at = entry.tag & mask;
  while (shard.entries[at].id != kNoBlock) {
    at = (at + 1) & mask;
  }
  shard.entries[at] = entry;
}

void BlockIndex::Grow(Shard& shard) {
  std::vector<Entry> old(shard.entries.size() * 2);
  old.swap(shard.entries);
  for (const Entry& entry : old) {
    if (entry.id != kNoBlock) {
      Place(shard, entry);
    }
  }
}

void BlockIndex::Insert(BlockId id) {
  Block& block = blocks_.at(id);
  const uint64_t hash = Hash(block.scope, block.key());

  block.hash_tag = static_cast<uint32_t>(hash);
  block.shard = static_cast<uint16_t>(hash >> 58U);
  Shard& shard = shards_[block.shard];
  if ((shard.used + 1) * 4 > shard.entries.size() * 3) {
    Grow(shard);
  }
  Place(shard, {block.hash_tag, id});
  ++shard.used;
  ++size_;
}

// Linear probing without tombstones: entries behind the gap move up when their own place allows it.
void BlockIndex::Erase(BlockId id) {
  const Block& block = blocks_.at(id);
  Shard& shard = shards_[block.shard];
  const size_t mask = shard.entries.size() - 1;
  size_t at = block.hash_tag & mask;
  while (shard.entries[at].id != id) {
    TERRACE_CHECK(shard.entries[at].id != kNoBlock);
    at = (at + 1) & mask;
  }
  size_t gap = at;
  for (size_t next = (gap + 1) & mask; shard.entries[next].id != kNoBlock;
       next = (next + 1) & mask) {
    const size_t home = shard.entries[next].tag & mask;
    if (((next - home) & mask) >= ((next - gap) & mask)) {
      shard.entries[gap] = shard.entries[next];
      gap = next;
    }
  }
  shard.entries[gap] = Entry{};
  --shard.used;
  --size_;
}

uint64_t BlockIndex::memory_bytes() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    sum += shard.entries.capacity() * sizeof(Entry);
  }
  return sum;
}

}  // namespace terrace
