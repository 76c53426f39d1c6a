// One tier's reads in virtual time: up to kReadsAtATime side by side, which share the bandwidth and
// not the latency. Reads that a request waits for go before those that are made ahead of need,
// which begin only where the tier is nearly idle. How long loads take is measured by the daemon's
// own code (tiers/placement/tier_load.h), and told from what it measured.
//
// Thread-compatible. Times do not go back.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "tiers/placement/tier_load.h"

namespace terrace::sim {

struct TierSpeed {
  double bytes_per_second = 0;  // above 0
  absl::Duration latency;
};

enum class ReadNeed : uint8_t { kWaited, kAhead };

class TierQueue {
 public:
  static constexpr uint32_t kReadsAtATime = 32;
  // A read ahead of need begins only where fewer than so many are under way.
  static constexpr uint32_t kAheadAtATime = 2;

  // Runs when the read has ended; may begin others.
  using Ended = std::function<void(absl::Duration at)>;

  explicit TierQueue(const TierSpeed& speed) : speed_(speed) {}

  // Returns a number for Await.
  uint64_t Read(absl::Duration now, uint64_t bytes, ReadNeed need, Ended ended);
  // From now on somebody waits for it. Nothing where it has ended.
  void Await(absl::Duration now, uint64_t read);

  // When the next read ends; InfiniteDuration: none is under way.
  [[nodiscard]] absl::Duration NextEnd() const;
  // Ends that one (checked).
  void EndNext();

  // What loading so many blocks would take: as measured, or where nothing was read yet, by the
  // tier's own figures.
  [[nodiscard]] double LoadSeconds(absl::Duration now, uint64_t blocks, uint64_t block_bytes) const;

  [[nodiscard]] uint64_t bytes_read() const { return bytes_read_; }

 private:
  struct Pending {
    uint64_t bytes = 0;
    ReadNeed need = ReadNeed::kWaited;
    bool began = false;
    Ended ended;
  };
  struct UnderWay {
    uint64_t read = 0;
    absl::Duration end;
    TierLoad::Mark mark;
  };
  void BeginSome(absl::Duration now);
  // 0: none.
  uint64_t TakeNext();

  const TierSpeed speed_;
  TierLoad load_;
  absl::flat_hash_map<uint64_t, Pending> reads_;
  std::deque<uint64_t> waited_;
  std::deque<uint64_t> ahead_;      // may name reads that somebody waits for by now
  std::deque<UnderWay> under_way_;  // by their ends
  absl::Duration wire_free_;
  uint64_t last_ = 0;
  uint64_t queued_bytes_ = 0;
  uint64_t bytes_read_ = 0;
};

}  // namespace terrace::sim
