#include "tiers/placement/tier_load.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace terrace {
namespace {

constexpr double kNewestShare = 1.0 / 8;
constexpr absl::Duration kFresh = absl::Minutes(1);
constexpr absl::Duration kHalfLife = absl::Minutes(1);
// Fewer reads than this at a time, in the mean, and a read counts as one alone.
constexpr double kSeveral = 1.5;
// From so many on they show what a tier can do that is kept busy.
constexpr double kMany = 8;

size_t ClassOf(uint64_t bytes) {
  constexpr uint64_t kSmallest = uint64_t{16} << 10;
  const uint64_t steps = (std::max(bytes, kSmallest) - 1) / kSmallest;
  return std::min((static_cast<size_t>(std::bit_width(steps)) + 1) / 2, TierLoad::kClasses - 1);
}

// How much of what was measured so long ago is still believed.
double Belief(absl::Duration age) {
  return age <= kFresh ? 1 : std::exp2(-absl::FDivDuration(age - kFresh, kHalfLife));
}

}  // namespace

double TierLoad::Average::Seconds(absl::Duration now) const {
  return seconds * Belief(now - at);
}

void TierLoad::Average::Add(double sample, absl::Duration now) {
  const double share = known ? std::max(kNewestShare, 1 - Belief(now - at)) : 1;
  seconds = (1 - share) * Seconds(now) + share * sample;
  at = now;
  known = true;
}

void TierLoad::Pass(absl::Duration now) {
  read_seconds_ += running_ * absl::ToDoubleSeconds(std::max(now - passed_, absl::ZeroDuration()));
  passed_ = std::max(now, passed_);
}

TierLoad::Mark TierLoad::Began(absl::Duration now) {
  Pass(now);
  ++running_;
  return {now, read_seconds_};
}

void TierLoad::Ended(const Mark& mark, uint64_t bytes, absl::Duration now) {
  Pass(now);
  running_ -= running_ > 0 ? 1 : 0;
  const double took = absl::ToDoubleSeconds(now - mark.began);
  if (bytes == 0 || took <= 0) {
    return;
  }
  const double together = std::max(1.0, (read_seconds_ - mark.read_seconds) / took);
  Class& like = classes_[ClassOf(bytes)];
  const double each = took / together;
  // Among few reads a block's share of the latency is larger than among many: an upper bound, which
  // counts where it is the better one, or there is no other of late.
  const bool counts = together >= kMany || !like.shared.known || now - like.shared.at > kFresh ||
                      each < like.shared.Seconds(now);
  if (together < kSeveral) {
    like.alone.Add(each, now);
  } else if (counts) {
    like.shared.Add(each, now);
  }
  const auto size = static_cast<double>(bytes);
  like.mean_bytes =
      like.mean_bytes == 0 ? size : like.mean_bytes + kNewestShare * (size - like.mean_bytes);
}

const TierLoad::Class* TierLoad::Nearest(uint64_t block_bytes) const {
  const size_t wanted = ClassOf(block_bytes);
  const Class* larger = nullptr;
  for (size_t i = kClasses; i > 0; --i) {
    const Class& like = classes_[i - 1];
    if (like.mean_bytes == 0) {
      continue;
    }
    if (i - 1 <= wanted) {
      return &like;
    }
    larger = &like;
  }
  return larger;
}

// A tier that is busy has no reads alone, and one that has only those no others: of what is read at
// all, neither average is doubted because the other kind of read is the one that is made.
TierLoad::Times TierLoad::TimesOf(const Class& like, absl::Duration now) {
  const Average& single = like.alone.known ? like.alone : like.shared;
  const double alone = single.Seconds(now);
  if (!like.shared.known) {
    return {alone, alone};
  }
  const absl::Duration newest = std::max(single.at, like.shared.at);
  const double shared = like.shared.seconds * Belief(now - newest);
  if (now - single.at > kFresh) {
    return {std::max(alone, shared), shared};
  }
  return {alone, std::min(alone, shared)};
}

std::optional<double> TierLoad::Seconds(const LoadDemand& demand, absl::Duration now) const {
  const uint64_t bytes = demand.blocks == 0 ? demand.queued_bytes : demand.bytes / demand.blocks;
  const Class* like = Nearest(bytes);
  if (like == nullptr) {
    return std::nullopt;
  }
  const auto [alone, shared] = TimesOf(*like, now);
  const double scale = std::max(1.0, static_cast<double>(bytes) / like->mean_bytes);
  const double queued = static_cast<double>(demand.queued_bytes) / like->mean_bytes * shared;
  if (demand.blocks == 0) {
    return queued;
  }
  return queued + scale * (alone + static_cast<double>(demand.blocks - 1) * shared);
}

}  // namespace terrace
