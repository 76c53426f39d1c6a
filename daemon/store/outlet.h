// A shared tier as the store publishes to it: what waits for its turn, what is under way, and what
// the pool has still to be told. Plain records, guarded by the store's lock.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/store/records.h"
#include "tiers/shared/shared_tier.h"

namespace terrace {

// Whether the pool is read and written at all.
inline bool Serves(PoolState state) {
  return state == PoolState::kOnline || state == PoolState::kCatchingUp;
}

// A block that somebody waits for to be published, or that the tier has taken. It outlives the
// block, which may be evicted as soon as it is copied.
struct Publication {
  uint64_t id = 0;  // tells it from a later one of the same name
  BlockId block = kNoBlock;
  uint32_t serial = 0;
  bool running = false;     // handed to the tier; else it waits
  bool deleted = false;     // while it waited
  bool keeps_slot = false;  // the block is locked, until the tier has copied it
  Awaited awaited = Awaited::kNo;
  uint32_t tries = 0;
  uint64_t slot_bytes = 0;
  std::vector<WriteWaiter> waiters;
};

struct Outlet {
  SharedTier* tier = nullptr;
  SharedTierPolicy policy;
  uint32_t hits_index = 0;                // in StoreCounters::tier_hits
  PoolState state = PoolState::kOpening;  // as of the last tick
  bool has_caught_up = false;             // ever, in this life

  // By policy, with the blocks' serials; they are not locked meanwhile. Entries whose block is not
  // marked (Block::queued_to) are stale, and not counted.
  std::deque<std::pair<BlockId, uint32_t>> queue;
  uint64_t queued = 0;
  // Names of publications that wait, ahead of the queue.
  std::deque<std::string> urgent;
  absl::flat_hash_map<std::string, Publication> publications;  // by Store::LocalName
  uint32_t running = 0;                                        // of them
  uint32_t kept_slots = 0;       // of them, whose slots the tier has not copied yet
  uint64_t kept_slot_bytes = 0;  // by them
  absl::Duration last_progress;  // a slot was given back, or the first one taken
  uint64_t last_publication = 0;
  // Until then nothing is offered: the tier has just refused, or does not get on.
  absl::Duration refused_until;
  PublishDrop refusal = PublishDrop::kBusy;

  // The highest generations that the pool has recorded, as far as this node knows.
  absl::flat_hash_map<Digest128, uint64_t> recorded;
  absl::flat_hash_map<Digest128, uint64_t> unraised;  // not recorded yet
  std::deque<Digest128> raise_queue;                  // of `unraised`, those not under way
  uint32_t raises_running = 0;
  absl::Duration retry_raises_at;

  uint64_t published = 0;
  uint64_t already_there = 0;
  std::array<uint64_t, kPublishDrops> drops{};
};

}  // namespace terrace
