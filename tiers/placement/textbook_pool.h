// Hides what textbook policies share: a table of residents, intrusive queues over it, locks, and
// the order in which a request's blocks are seen (suffix first, new ones at its last Touch).
//
// Thread-compatible.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {

struct TextbookBlock {
  uint64_t name = 0;
  uint64_t stamp = 0;
  double rank = 0;
  BlockId newer = kNoBlock;
  BlockId older = kNoBlock;
  uint32_t locks = 0;
  uint32_t depth = 0;  // 1: begins a chain
  uint32_t uses = 0;
  uint8_t queue = 0;  // 0: in none
  bool resident = false;
  bool fresh = false;  // stored by the request at hand
  bool marked = false;
};

class TextbookPool : public EvictionPolicy {
 public:
  [[nodiscard]] bool learns() const final { return true; }
  void Use(const ChainUse& use) final;
  void Insert(BlockId block, const Newcomer& newcomer) final;
  void Touch(absl::Span<const BlockId> chain) final;
  void Remove(BlockId block) final;
  void Lock(BlockId block) final { ++At(block).locks; }
  void Unlock(BlockId block) final;
  BlockId Victim() final;
  [[nodiscard]] uint64_t Rank(BlockId block) const final;
  [[nodiscard]] double Value(BlockId block) const final {
    return static_cast<double>(At(block).stamp);
  }
  [[nodiscard]] uint64_t resident() const final { return resident_; }
  [[nodiscard]] uint64_t memory_bytes() const final {
    return blocks_.capacity() * sizeof(TextbookBlock);
  }

 protected:
  struct Queue {
    uint8_t id = 1;  // from 1, one per queue of a policy
    BlockId newest = kNoBlock;
    BlockId oldest = kNoBlock;
    uint64_t size = 0;
  };

  // ---- what a policy says
  virtual void Began(const ChainUse& /*use*/) {}  // before the blocks of a request are seen
  virtual void Hit(BlockId block) = 0;            // used again; it is in a queue or ranked
  virtual void Entered(BlockId block) = 0;        // its request is over
  virtual void Left(BlockId block) = 0;           // after Entered only
  virtual BlockId Choose() = 0;                   // an unlocked block that has entered

  [[nodiscard]] TextbookBlock& At(BlockId block) { return blocks_[static_cast<uint32_t>(block)]; }
  [[nodiscard]] const TextbookBlock& At(BlockId block) const {
    return blocks_[static_cast<uint32_t>(block)];
  }
  void PushNewest(Queue& queue, BlockId block);
  void Unlink(Queue& queue, BlockId block);
  // kNoBlock: all are locked.
  [[nodiscard]] BlockId OldestUnlocked(const Queue& queue) const;
  [[nodiscard]] uint64_t NextStamp() { return ++stamp_; }

 private:
  std::vector<TextbookBlock> blocks_;  // by id
  uint64_t resident_ = 0;
  uint64_t stamp_ = 0;
};

// Names of blocks that are gone, oldest first, at most `limit`.
class GhostQueue {
 public:
  explicit GhostQueue(uint64_t limit) : limit_(limit) {}
  [[nodiscard]] bool Has(uint64_t name) const { return alive_.contains(name); }
  [[nodiscard]] uint64_t size() const { return alive_.size(); }
  void Add(uint64_t name) {
    order_.push_back({name, ++turn_});
    alive_[name] = turn_;
    while (alive_.size() > limit_) {
      DropOldest();
    }
  }
  void Drop(uint64_t name) { alive_.erase(name); }
  void DropOldest() {
    while (!order_.empty()) {
      const Entry entry = order_.front();
      order_.pop_front();
      const auto found = alive_.find(entry.name);
      if (found != alive_.end() && found->second == entry.turn) {
        alive_.erase(found);
        return;
      }
    }
  }

 private:
  struct Entry {
    uint64_t name;
    uint64_t turn;
  };
  const uint64_t limit_;
  uint64_t turn_ = 0;
  std::deque<Entry> order_;
  absl::flat_hash_map<uint64_t, uint64_t> alive_;  // turn of the entry that counts
};

}  // namespace terrace
