// The door through which the daemon's BlockStore sees a tier below DRAM. Implemented by
// tiers/segment, tiers/shared and, in tests, by a double whose slowness and faults are scripted.
//
// Thread-safe. Nothing here blocks: Lookup answers from memory, Read completes later.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/outcome.h"

namespace terrace {

// A block's durable identity: what is the same after a restart and on other nodes.
struct BlockIdentity {
  Digest128 namespace_digest;
  uint64_t generation = 0;
  std::string_view salt;  // borrowed for the call
  KeyView key;            // borrowed for the call
};

// What a lower tier says of a block that it holds.
struct LowerBlock {
  uint32_t payload_bytes = 0;
  Digest128 checksum;     // XXH3-128 of the payload
  uint64_t location = 0;  // the tier's own; handed back to Read
};

enum class ReadOutcome : uint8_t {
  kVerified = 1,  // the payload lies in the destination and its checksum matches
  kGone = 2,      // no longer held
  kCorrupt = 3,   // checksum or header does not match: a miss, and counted
  kFault = 4,     // the medium failed
  kDeadline = 5,
  kCancelled = 6,
};

class LowerTier {
 public:
  virtual ~LowerTier() = default;

  // As configured: "g3", "g3.5", "g4".
  [[nodiscard]] virtual std::string_view name() const = 0;

  // Whether the block is held, from memory. False: a miss.
  virtual bool Lookup(const BlockIdentity& identity, LowerBlock* out) = 0;

  struct ReadRequest {
    BlockIdentity identity;  // salt and key are copied by the tier before Read returns
    LowerBlock block;
    absl::Span<char>
        destination;  // payload_bytes rounded up to 4096; owned by the read until `done` runs
    // The 4096 bytes in front of `destination` belong to the read as well, as in a slot: header and
    // payload then move in one transfer into registered memory.
    bool header_page_in_front = false;
    absl::Duration deadline;  // on the injected clock
    Priority priority = Priority::kNormal;
  };
  // Returns a token for Cancel. `done` runs exactly once, on a thread of the tier, possibly before
  // Read returns; it must only hand work on.
  virtual uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) = 0;

  // Asks for an early end. `done` still runs, and only then may the destination be reused.
  virtual void Cancel(uint64_t token) = 0;

  // Estimated time to read so many bytes under the present queue; zero when not measured yet.
  [[nodiscard]] virtual absl::Duration EstimateRead(uint64_t bytes) const = 0;
};

}  // namespace terrace
