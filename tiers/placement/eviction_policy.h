// Which block goes when room is needed. Pure: numbers in, decision out; no clock, no I/O, no lock
// of its own.
//
// One policy object rules one pool: the blocks of one tenant and slot size. The owner (BlockStore
// in the daemon, the replay in the simulator and tests) tells it what happens to blocks and asks it
// for victims; both run this very code, so that a simulated hit ratio is the daemon's.
//
// Order of calls for one request, by every owner: Touch(hit chain, in chain order), then per new
// block of the request Victim/Remove as often as room is needed and Insert(block), and when all are
// stored one Touch(ancestors + new blocks, in chain order). Touch makes the suffix older than the
// prefix, so that leaves go first.
//
// Thread-compatible: confined to its owner's lock.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // A block is now resident. `parent`: kNoBlock when it begins a chain or its parent is not in this
  // pool.
  virtual void Insert(BlockId block, BlockId parent) = 0;

  // The blocks were used by one request; given in chain order, prefix first. All are resident.
  virtual void Touch(absl::Span<const BlockId> chain) = 0;

  // The block left the pool (evicted, deleted, cleared). Its id may be given to another block
  // afterwards.
  virtual void Remove(BlockId block) = 0;

  // The block must not be chosen until Unlock: it is leased, held, pinned or in transfer. Calls
  // nest per block.
  virtual void Lock(BlockId block) = 0;
  virtual void Unlock(BlockId block) = 0;

  // The unlocked block that should go next; kNoBlock when there is none. Does not remove it.
  // Amortised O(1).
  virtual BlockId Victim() = 0;

  // Blocks that would go before this one, locked ones not counted. O(blocks): for operators only.
  [[nodiscard]] virtual uint64_t Rank(BlockId block) const = 0;

  // What keeping this block is worth relative to others of any pool, for choosing the slab to
  // empty: larger is worth more. For LRU its recency on a counter shared by all policies of a
  // RecencySource.
  [[nodiscard]] virtual double Value(BlockId block) const = 0;

  [[nodiscard]] virtual uint64_t resident() const = 0;
  // Heap bytes in use, for the metadata figure.
  [[nodiscard]] virtual uint64_t memory_bytes() const = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;
};

// A counter of touches shared by the pools of one store, so that Value() compares across them.
class RecencySource {
 public:
  uint64_t Next() { return ++last_; }
  [[nodiscard]] uint64_t last() const { return last_; }

 private:
  uint64_t last_ = 0;
};

// "lru": least recently used, suffix first. Errors: INVALID_ARGUMENT naming the policies that
// exist.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(std::string_view name,
                                                                   RecencySource& recency);

std::vector<std::string_view> EvictionPolicyNames();

}  // namespace terrace
