// How long one tier takes to load blocks, measured while it works. Pure: the clock's times come in.
//
// By classes of block size, two moving averages: how long a read takes that is alone, and how much
// time passes for each block while several are read at once. The second is what a block costs a
// tier that is busy, be it bound by bandwidth or by how many reads it does side by side: the time
// of a read divided by the mean number of reads under way during it (Little's law). So n blocks
// take one read alone, and n - 1 times the time of one among many.
//
// A tier that reads slow is not recommended, and then is not read, and would read slow for ever. So
// what was measured counts less once blocks of that size have not been read for more than a minute,
// by half for each further minute, until somebody tries again; the first read after that counts all
// the more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace terrace {

// A load of `blocks` of one size, behind what is queued already.
struct LoadDemand {
  uint64_t blocks = 0;
  uint64_t bytes = 0;         // of all of them
  uint64_t queued_bytes = 0;  // of blocks that were asked for earlier
};

// Thread-compatible. Times do not go back.
class TierLoad {
 public:
  static constexpr size_t kClasses = 7;  // up to 16 KiB, and by fours up to 64 MiB

  // Of one read that is under way.
  struct Mark {
    absl::Duration began;
    double read_seconds = 0;  // of all reads until then
  };
  Mark Began(absl::Duration now);
  // `bytes` 0: it brought nothing, and says nothing of the tier's speed.
  void Ended(const Mark& mark, uint64_t bytes, absl::Duration now);

  // Seconds; nullopt: nothing has been read yet. Sizes that were not read are told from the nearest
  // smaller one that was, by their bytes, or else from the nearest larger one. 0 blocks: what is
  // queued alone.
  [[nodiscard]] std::optional<double> Seconds(const LoadDemand& demand, absl::Duration now) const;

 private:
  struct Average {
    double seconds = 0;  // as of `at`
    absl::Duration at;
    bool known = false;
    [[nodiscard]] double Seconds(absl::Duration now) const;
    void Add(double sample, absl::Duration now);
  };
  struct Class {
    Average alone;          // of one read
    Average shared;         // of each block, where several are read
    double mean_bytes = 0;  // of a block; 0: none was read
  };
  struct Times {
    double alone = 0;   // seconds of one block
    double shared = 0;  // of each further one
  };
  static Times TimesOf(const Class& like, absl::Duration now);
  void Pass(absl::Duration now);
  [[nodiscard]] const Class* Nearest(uint64_t block_bytes) const;

  std::array<Class, kClasses> classes_;
  double read_seconds_ = 0;  // the time that reads took, summed over them
  absl::Duration passed_;    // up to here
  uint32_t running_ = 0;
};

}  // namespace terrace
