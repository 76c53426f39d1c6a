// Hides the storage of the LRU log: a queue of (block, low 32 bits of a stamp) in fixed-size
// chunks, oldest first, that can be thinned out a chunk at a time without losing its order.
//
// Thread-compatible. Append is O(1) and never moves what is there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "tiers/vocab/block_key.h"

namespace terrace {

class RecencyLog {
 public:
  struct Entry {
    BlockId block;
    uint32_t stamp_low;
  };
  static constexpr uint32_t kChunkEntries = 1021;  // a chunk is 8 KiB with its header

  RecencyLog() = default;
  RecencyLog(const RecencyLog&) = delete;
  RecencyLog& operator=(const RecencyLog&) = delete;
  RecencyLog(RecencyLog&&) = delete;
  RecencyLog& operator=(RecencyLog&&) = delete;
  ~RecencyLog();

  void Append(Entry entry) {
    if (tail_ == nullptr || tail_->end == kChunkEntries) {
      AddChunk();
    }
    tail_->entries[tail_->end++] = entry;
    ++size_;
  }

  // The oldest entry; nullptr: empty. Valid until the next call of anything else.
  [[nodiscard]] const Entry* Front() const {
    return size_ == 0 ? nullptr : &head_->entries[head_->begin];
  }
  void PopFront();

  // Drops the entries of the next chunk of the pass for which `live` is false, and joins it with
  // its predecessor where both fit into one. The newest chunk is left alone. Passes go from the
  // oldest chunk to the newest, over and over. Returns the number of entries looked at; 0: there is
  // only the newest chunk.
  // `soon` is told of an entry some steps before `live` is asked, to fetch what that needs into the
  // cache.
  template <typename Live, typename Soon>
  uint32_t CompactChunk(const Live& live, const Soon& soon) {
    Chunk* chunk = NextOfPass();
    if (chunk == nullptr) {
      return 0;
    }
    const uint32_t seen = chunk->end - chunk->begin;
    uint32_t out = 0;
    for (uint32_t in = chunk->begin; in < chunk->end; ++in) {
      if (in + kLookAhead < chunk->end) {
        soon(chunk->entries[in + kLookAhead]);
      }
      const Entry entry = chunk->entries[in];
      chunk->entries[out] = entry;  // without a branch: stale and live mix unpredictably
      out += live(entry) ? 1U : 0U;
    }
    chunk->begin = 0;
    chunk->end = out;
    size_ -= seen - out;
    FinishChunk();
    return seen;
  }

  // Entries, stale ones included.
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t memory_bytes() const { return chunks_ * sizeof(Chunk); }

 private:
  struct Chunk {
    std::unique_ptr<Chunk> next;
    uint32_t begin = 0;
    uint32_t end = 0;
    std::array<Entry, kChunkEntries> entries;
  };

  static constexpr uint32_t kLookAhead = 16;

  void AddChunk();
  void DropHead();
  Chunk* NextOfPass();
  void FinishChunk();
  static void MoveFront(Chunk& from, Chunk& to);

  std::unique_ptr<Chunk> head_;
  Chunk* tail_ = nullptr;
  Chunk* passed_ =
      nullptr;  // the last chunk that this pass has compacted; nullptr: it begins at the head
  uint64_t size_ = 0;
  uint64_t chunks_ = 0;
};

}  // namespace terrace
