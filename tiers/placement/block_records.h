// Hides where the LRU keeps what it knows of a block: records of 12 bytes in pages indexed by
// BlockId. Ids are dense in the store but shared by many pools, so a pool has pages only for ranges
// that it uses, and nothing ever moves.
//
// Thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "tiers/vocab/block_key.h"

namespace terrace {

class BlockRecords {
 public:
  struct Record {
    uint32_t stamp_low = 0;  // the stamp, in halves so that a record is 12 bytes
    uint32_t stamp_high = 0;
    uint32_t resident : 1 = 0;
    uint32_t parked : 1 = 0;   // locked when it reached the head of the log: no entry anywhere
    uint32_t waiting : 1 = 0;  // was parked, then unlocked: its entry is in the heap
    uint32_t locks : 29 = 0;

    [[nodiscard]] uint64_t stamp() const { return uint64_t{stamp_high} << 32 | stamp_low; }
    void set_stamp(uint64_t stamp) {
      stamp_low = static_cast<uint32_t>(stamp);
      stamp_high = static_cast<uint32_t>(stamp >> 32);
    }
  };
  static_assert(sizeof(Record) == 12);
  static constexpr uint32_t kMaxLocks = (uint32_t{1} << 29) - 1;
  static constexpr uint32_t kPageRecords = 1024;

  // nullptr: not resident.
  [[nodiscard]] Record* Find(BlockId block) const {
    const auto id = static_cast<uint32_t>(block);
    const size_t page = id / kPageRecords;
    if (page >= pages_.size() || pages_[page] == nullptr) {
      return nullptr;
    }
    Record& record = pages_[page]->records[id % kPageRecords];
    return record.resident != 0 ? &record : nullptr;
  }
  // Fetches the record into the cache, if there is one.
  void Prefetch(BlockId block) const {
    const auto id = static_cast<uint32_t>(block);
    const size_t page = id / kPageRecords;
    if (page < pages_.size() && pages_[page] != nullptr) {
      __builtin_prefetch(&pages_[page]->records[id % kPageRecords], 1);
    }
  }
  // A fresh resident record; the block must not be resident.
  Record& Add(BlockId block);
  // The block must be resident.
  void Remove(BlockId block);

  [[nodiscard]] uint64_t resident() const { return resident_; }
  [[nodiscard]] uint64_t memory_bytes() const {
    return used_pages_ * sizeof(Page) + pages_.capacity() * sizeof(pages_[0]);
  }
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (const auto& page : pages_) {
      if (page == nullptr) {
        continue;
      }
      for (const Record& record : page->records) {
        if (record.resident != 0) {
          visit(record);
        }
      }
    }
  }

 private:
  struct Page {
    std::array<Record, kPageRecords> records;
    uint32_t resident = 0;
  };

  std::vector<std::unique_ptr<Page>> pages_;
  uint64_t resident_ = 0;
  uint64_t used_pages_ = 0;
};

}  // namespace terrace
