// Which block goes when room is needed, and whether a new one is worth the room. Pure: numbers in,
// decision out; no clock, no I/O, no lock of its own; time is what the owner says it is.
//
// One policy object rules one pool: the blocks of one tenant and slot size. The owner (BlockStore
// in the daemon, the replay in the simulator and tests) tells it what happens to blocks and asks it
// for victims; both run this very code, so that a simulated hit ratio is the daemon's.
//
// Order of calls for one request, by every owner: Use(the whole chain, resident or not) where the
// policy learns, and Touch(hit chain, in chain order); then Extend(what is going to be stored), and
// per new block of the request, when room is needed, Victim, Admits, Remove(victim) as often as it
// takes, and Insert(block); and when all are stored one Touch(ancestors + new blocks, in chain
// order). Touch makes the suffix older than the prefix, so that leaves go first.
//
// A block's *name* is a 64-bit hash of its identity, the same whenever the block comes back. It
// says what was there before: a wrong match costs hits, never bytes.
//
// Thread-compatible: confined to its owner's lock.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/placement/lesson.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// Why the engine stopped generating.
enum class StopReason : uint8_t { kUnknown, kEndOfTurn, kToolCall, kLength, kOther };

// "stop", "end_turn" -> kEndOfTurn; "tool_calls", "tool_use" -> kToolCall; "length", "max_tokens"
// -> kLength; "" -> kUnknown; anything else -> kOther.
StopReason StopReasonFrom(std::string_view text);

// What a request says of itself. Every field may be unknown.
struct RequestHints {
  uint32_t input_tokens = 0;   // 0: unknown; the number of blocks stands in for it
  uint32_t output_tokens = 0;  // 0: unknown
  StopReason stop = StopReason::kUnknown;
  bool session_end = false;
  absl::Duration expected_return = absl::ZeroDuration();  // zero: unknown
};

// One request's use of a chain.
struct ChainUse {
  absl::Duration now;                  // since the owner's start; never falls
  absl::Span<const uint64_t> names;    // all blocks of the chain, prefix first, resident or not
  absl::Span<const BlockId> resident;  // of the leading run that is resident
  RequestHints hints;
};

// What is going to be stored below `parent`.
struct ChainGrowth {
  absl::Duration now;
  BlockId parent = kNoBlock;         // kNoBlock: `names` begins a chain
  absl::Span<const uint64_t> names;  // in chain order; may hold blocks that are resident
  RequestHints hints;                // what is known replaces what Use said
};

// Where a growing chain ends in the policy's books. Good until the blocks are stored; one that has
// outlived its place is found out.
struct GrowthTicket {
  uint32_t place = 0xffffffffU;
  uint32_t depth = 0;  // of the first name of the growth; add i for its i-th
};

// A block that is to become resident, or just has.
struct Newcomer {
  BlockId parent = kNoBlock;  // kNoBlock: begins a chain, or its parent is not in this pool
  uint64_t name = 0;
  GrowthTicket ticket;  // of the growth that it belongs to, advanced to its depth
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  // True: the policy wants Use, Extend and Advance, and real names. False: the owner may spare
  // itself the work.
  [[nodiscard]] virtual bool learns() const { return false; }
  virtual void Use(const ChainUse& /*use*/) {}
  virtual GrowthTicket Extend(const ChainGrowth& /*growth*/) { return {}; }
  // Time passes; at least every 50 ms where the policy learns. Bounded work a call.
  virtual void Advance(absl::Duration /*now*/) {}

  // What was seen since the last lesson, to be learnt from without the owner's lock; nullptr:
  // the policy does not learn. Until EndLesson no other one is begun.
  virtual Lesson* BeginLesson() { return nullptr; }
  // What the lesson taught counts from now on. O(1).
  virtual void EndLesson() {}

  // Whether a new block is worth more than the block that Victim names now. Asked only when there
  // is no room without an eviction.
  [[nodiscard]] virtual bool Admits(const Newcomer& /*newcomer*/) { return true; }

  // A block is now resident.
  virtual void Insert(BlockId block, const Newcomer& newcomer) = 0;

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

  // How likely the block is asked for again within that time, as the policy forecasts; nullopt: it
  // makes no forecasts.
  [[nodiscard]] virtual std::optional<double> ReuseChance(BlockId /*block*/,
                                                          absl::Duration /*within*/) const {
    return std::nullopt;
  }

  [[nodiscard]] virtual uint64_t resident() const = 0;
  // Heap bytes in use, for the metadata figure.
  [[nodiscard]] virtual uint64_t memory_bytes() const = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;
};

// A whole lesson, where nobody else waits for the owner's lock.
inline void StudyNow(EvictionPolicy& policy) {
  if (Lesson* lesson = policy.BeginLesson(); lesson != nullptr) {
    lesson->Study();
    policy.EndLesson();
  }
}

// A counter of touches shared by the pools of one store, so that Value() compares across them.
class RecencySource {
 public:
  uint64_t Next() { return ++last_; }
  [[nodiscard]] uint64_t last() const { return last_; }

 private:
  uint64_t last_ = 0;
};

// The policies that a daemon may be configured with:
//   "lru"  least recently used, suffix first
//   "phl"  prefix hit-density with a learned hazard (tiers/placement/phl.h)
// Errors: INVALID_ARGUMENT naming the policies that exist.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(std::string_view name,
                                                                   RecencySource& recency);

std::vector<std::string_view> EvictionPolicyNames();

// False for names that don't exist, too.
bool PolicyLearns(std::string_view policy);

// Whether that policy could load what was saved (Lesson::Load). INVALID_ARGUMENT: it could not, or
// does not learn.
absl::Status CheckLearnt(std::string_view policy, absl::string_view bytes);

}  // namespace terrace
