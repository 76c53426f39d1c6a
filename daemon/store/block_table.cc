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
  block.key_bytes = key.size() & 0x7fU;
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

ResidentIndex::ResidentIndex(BlockTable& blocks, uint64_t seed) : blocks_(blocks), seed_(seed) {
  for (Shard& shard : shards_) {
    shard.entries.resize(16);
  }
}

uint64_t ResidentIndex::Hash(ScopeId scope, KeyView key) const {
  return XXH3_64bits_withSeed(key.data(), key.size(),
                              seed_ ^ (static_cast<uint64_t>(scope) * 0x9e3779b97f4a7c15ULL));
}

inline bool ResidentIndex::Names(const Block& block, ScopeId scope, KeyView key) {
  if (block.scope != scope || block.key_bytes != key.size()) {
    return false;
  }
  // Keys have at least 16 bytes: words from the front, and one that ends with the key.
  const char* own = block.key().data();
  const auto word = [](const char* at) {
    uint64_t value = 0;
    std::memcpy(&value, at, sizeof(value));
    return value;
  };
  const size_t last = key.size() - sizeof(uint64_t);
  uint64_t difference = word(own + last) ^ word(key.data() + last);
  for (size_t at = 0; at < last; at += sizeof(uint64_t)) {
    difference |= word(own + at) ^ word(key.data() + at);
  }
  return difference == 0;
}

// Blocks in these states, and no others, have an entry.
inline bool ResidentIndex::IsIndexed(const Block& block) {
  return block.state == BlockState::kFilling || block.state == BlockState::kReady;
}

// The first entry of the hash's run that has its tag; kNoBlock: no entry has.
BlockId ResidentIndex::Candidate(uint64_t hash) const {
  const Shard& shard = shards_[hash >> 58U];
  const auto tag = static_cast<uint32_t>(hash);
  const Entry* const entries = shard.entries.data();
  const size_t mask = shard.entries.size() - 1;
  for (size_t at = tag & mask; entries[at].id != kNoBlock; at = (at + 1) & mask) {
    if (entries[at].tag == tag) {
      return entries[at].id;
    }
  }
  return kNoBlock;
}

BlockId ResidentIndex::FindHashed(uint64_t hash, ScopeId scope, KeyView key) const {
  const Shard& shard = shards_[hash >> 58U];
  const auto tag = static_cast<uint32_t>(hash);
  const size_t mask = shard.entries.size() - 1;
  for (size_t at = tag & mask;; at = (at + 1) & mask) {
    const Entry& entry = shard.entries[at];
    if (entry.id == kNoBlock) {
      return kNoBlock;
    }
    if (entry.tag == tag) {
      if (Names(blocks_.at(entry.id), scope, key)) {
        return entry.id;
      }
    }
  }
}

BlockId ResidentIndex::Find(ScopeId scope, KeyView key) const {
  return FindHashed(Hash(scope, key), scope, key);
}

size_t ResidentIndex::FindMany(ScopeId scope,
                               std::string_view keys,
                               uint32_t key_bytes,
                               OnMiss on_miss,
                               absl::Span<BlockId> out) const {
  constexpr size_t kMostAtATime = 512;
  size_t batch = 1;  // by way of the index, before a row is tried again
  for (size_t at = 0; at < out.size();) {
    const size_t count = std::min(batch, out.size() - at);
    const size_t written = FindHashedMany(scope, keys.substr(at * key_bytes), key_bytes, on_miss,
                                          out.subspan(at, count));
    at += written;
    const BlockId last = out[at - 1];
    if (last == kNoBlock && on_miss == OnMiss::kStop) {
      return at;
    }
    size_t row = 0;
    if (last != kNoBlock && at < out.size()) {
      const BlockId next{static_cast<uint32_t>(last) + 1};
      row = FollowRow(next, scope, keys.substr(at * key_bytes), key_bytes, out.subspan(at));
      at += row;
    }
    // Where rows are short the index is asked for more at a time, so that its misses overlap.
    batch = row >= batch ? 1 : std::min(2 * batch + 30, kMostAtATime);
  }
  return out.size();
}

size_t ResidentIndex::FollowRow(BlockId id,
                                ScopeId scope,
                                std::string_view keys,
                                uint32_t key_bytes,
                                absl::Span<BlockId> out) const {
  constexpr uint32_t kAhead = 8;
  const auto first = static_cast<uint32_t>(id);
  const size_t count = std::min<size_t>(out.size(), blocks_.end() - first);
  for (size_t i = 0; i < count; ++i) {
    const BlockId next{first + static_cast<uint32_t>(i)};
    if (i + kAhead < count) {
      __builtin_prefetch(&blocks_.at(BlockId{static_cast<uint32_t>(next) + kAhead}));
    }
    const Block& block = blocks_.at(next);
    if (!IsIndexed(block) ||
        !Names(block, scope, KeyView(keys.data() + i * key_bytes, key_bytes))) {
      return i;
    }
    out[i] = next;
  }
  return count;
}

// A pipeline of three stages at fixed distances, so that the misses of many keys overlap: the key's
// hash and its place in the table; the candidate that the tag names; the comparison with the
// candidate's key.
size_t ResidentIndex::FindHashedMany(ScopeId scope,
                                     std::string_view keys,
                                     uint32_t key_bytes,
                                     OnMiss on_miss,
                                     absl::Span<BlockId> out) const {
  constexpr size_t kTableAhead = 32;
  constexpr size_t kBlockAhead = 16;
  constexpr size_t kRing = 64;
  std::array<uint64_t, kRing> hashes{};
  std::array<BlockId, kRing> candidates{};
  const char* const first = keys.data();
  const size_t count = out.size();
  BlockId* const found = out.data();
  for (size_t step = 0; step < count + kTableAhead; ++step) {
    if (step < count) {
      const uint64_t hash = Hash(scope, KeyView(first + step * key_bytes, key_bytes));
      hashes[step % kRing] = hash;
      const Shard& shard = shards_[hash >> 58U];
      const auto mask = static_cast<uint32_t>(shard.entries.size() - 1);
      __builtin_prefetch(shard.entries.data() + (static_cast<uint32_t>(hash) & mask));
    }
    if (step >= kBlockAhead && step - kBlockAhead < count) {
      const size_t i = step - kBlockAhead;
      const BlockId candidate = Candidate(hashes[i % kRing]);
      candidates[i % kRing] = candidate;
      if (candidate != kNoBlock) {
        __builtin_prefetch(&blocks_.at(candidate));
      }
    }
    if (step >= kTableAhead) {
      const size_t i = step - kTableAhead;
      const KeyView key(first + i * key_bytes, key_bytes);
      BlockId id = candidates[i % kRing];
      if (id != kNoBlock && !Names(blocks_.at(id), scope, key)) {
        id = FindHashed(hashes[i % kRing], scope, key);  // another key has the same tag
      }
      found[i] = id;
      if (id == kNoBlock && on_miss == OnMiss::kStop) {
        return i + 1;
      }
    }
  }
  return count;
}

void ResidentIndex::Place(Shard& shard, Entry entry) {
  const size_t mask = shard.entries.size() - 1;
  size_t at = entry.tag & mask;
  while (shard.entries[at].id != kNoBlock) {
    at = (at + 1) & mask;
  }
  shard.entries[at] = entry;
}

void ResidentIndex::Grow(Shard& shard) {
  std::vector<Entry> old(shard.entries.size() * 2);
  old.swap(shard.entries);
  for (const Entry& entry : old) {
    if (entry.id != kNoBlock) {
      Place(shard, entry);
    }
  }
}

void ResidentIndex::Insert(BlockId id) {
  Block& block = blocks_.at(id);
  const uint64_t hash = Hash(block.scope, block.key());

  block.hash_tag = static_cast<uint32_t>(hash);
  block.shard = static_cast<uint16_t>(hash >> 58U);
  Shard& shard = shards_[block.shard];
  if ((uint64_t{shard.used} + 1) * 4 > shard.entries.size() * 3) {
    Grow(shard);
  }
  Place(shard, {block.hash_tag, id});
  ++shard.used;
  ++size_;
}

// Linear probing without tombstones: entries behind the gap move up when their own place allows it.
void ResidentIndex::Erase(BlockId id) {
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

uint64_t ResidentIndex::memory_bytes() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    sum += shard.entries.capacity() * sizeof(Entry);
  }
  return sum;
}

}  // namespace terrace
