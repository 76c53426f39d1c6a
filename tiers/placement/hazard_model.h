// When will it be used again? A discrete-time hazard over buckets of age, half an octave each, as a
// logistic sum over features: a feature with a value is a row of weights, found by hashing. Weights
// are learnt online, in the way of AdaGrad, from what happened to an instance (one use of a run of
// blocks) in each bucket that it lived to see. Nothing known: 10 % per octave at every age for
// everything, which ranks like LRU.
//
// A row has a weight for every second bucket, with straight lines between them, and one that counts
// at all ages: what is learnt at one age says something about its neighbours.
//
// From the hazard follows the worth of keeping a block at each age: the largest ratio, over all
// times to give up at, of the probability of use until then to the expected time held until then
// (Gittins' index, uses per block-second: the rank under a price for capacity).
//
// Memory is fixed: 1 MiB, and another one for a model that learns. No libm function is used whose
// result may differ between platforms. Thread-compatible.
//
// Two models may share the work: one learns, the other prices and takes over what the first one has
// learnt in an instant (Teach). CatchUp of the one that learns only reads the other one, so that it
// can be done while the other one is priced by.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"

#include "tiers/placement/hazard_format.h"

namespace terrace {

class HazardModel {
 public:
  static constexpr uint32_t kBuckets = 45;
  static constexpr uint32_t kRows = 10'922;  // 2^18 weights
  using Row = uint16_t;                      // of one feature with one value

  HazardModel();

  // Bucket b holds ages from BucketBegin(b) to BucketBegin(b + 1), in seconds; the last has no end.
  static double BucketBegin(uint32_t bucket);
  static uint32_t BucketOf(double age_s);

  static Row RowOf(uint32_t feature, uint64_t value);

  // An instance with these features lived through buckets `first` to `end` - 1 unused. It counts
  // `weight` times.
  void Survived(absl::Span<const Row> rows, uint32_t first, uint32_t end, float weight);
  // It lived through buckets `first` to `bucket` - 1 and was used in `bucket`.
  void Used(absl::Span<const Row> rows, uint32_t first, uint32_t bucket, float weight);

  // Brings into the cache what learning about these buckets changes.
  void Prefetch(absl::Span<const Row> rows, uint32_t first, uint32_t end) const;

  // worth[b]: Gittins' index at the beginning of bucket b, in uses per block-second, above 0; of
  // those that are asked for: `first`, and `rest` to `end` - 1.
  using Worth = std::array<float, kBuckets>;
  struct Asked {
    uint32_t first = 0;
    uint32_t rest = 0;
    uint32_t end = kBuckets;
  };
  void Price(absl::Span<const Row> rows, Asked asked, Worth& worth) const;
  // At a third of the cost: what it is worth at least. Exact where hazards only fall with age.
  void PriceAtLeast(absl::Span<const Row> rows, Asked asked, Worth& worth) const;
  // Probability of use in the bucket, given that it was reached.
  [[nodiscard]] float Hazard(absl::Span<const Row> rows, uint32_t bucket) const;

  // Of use within `within_s`, given that it was not used for `age_s`.
  [[nodiscard]] double ChanceOfUse(absl::Span<const Row> rows, double age_s, double within_s) const;

  // By how much its forecasts have beaten those of one rate for everything at every age, as a sum
  // over what it learnt from, in standard deviations. Below 0: they did worse. Each was made before
  // the weights knew better.
  [[nodiscard]] double skill() const;

  // `other` knows now what this model knows, and this one must not be used but for Restore until
  // CatchUp with `other`, which must not have learnt in between. CatchUp at other times does
  // nothing.
  void Teach(HazardModel& other);
  void CatchUp(const HazardModel& other);

  // What was learnt; `instances` is the caller's.
  [[nodiscard]] HazardState State() const;
  void Restore(const HazardState& state);

  [[nodiscard]] uint64_t memory_bytes() const;

 private:
  static constexpr uint32_t kStep = 2;  // buckets from one weight to the next
  static constexpr uint32_t kShared = 23;
  static constexpr uint32_t kStride = 24;
  static_assert((kBuckets - 1) / kStep < kShared);

  static_assert(kStride == HazardState::kStride);

  using Weights = std::array<float, kStride>;
  using Table = std::array<Weights, kRows>;
  struct Figures {
    double uses = 0;
    double lived_s = 0;
    double gain = 0;  // in log likelihood
    double gain_squares = 0;
  };
  void BeginToLearn();
  // Of the weights that an instance has, with room behind them to read four at a time.
  using Sums = std::array<float, kStride + 4>;
  // Of the weights from `first` to `end` - 1, and of the shared one; others may be there, too.
  [[nodiscard]] Sums SumOf(absl::Span<const Row> rows, uint32_t first, uint32_t end) const;
  // Of buckets, with room to write four at a time.
  struct Outlook {
    std::array<float, kBuckets + 3> hazards;
    std::array<float, kBuckets + 3> alone;  // use over time held, of that bucket only
  };
  // What is ahead in buckets `first`, a multiple of four, to `end` - 1.
  static void LookAhead(const Sums& sums, uint32_t first, uint32_t end, Outlook& out);
  // Behind this bucket none alone is better than `worth`.
  static uint32_t Reach(const Sums& sums, float worth);
  // Adds the error of one bucket's logit to the weights that it is made of.
  static void Blame(uint32_t bucket, float error, Weights& out);
  // What happened in one bucket: most of what is learnt.
  void LearnOneBucket(absl::Span<const Row> rows, uint32_t bucket, bool used, float weight);
  void NoteChange(Row row) {
    if (!is_changed_[row]) {
      is_changed_[row] = true;
      changed_.push_back(row);
    }
  }
  // error: what each weight's share in the logits adds up to.
  void Step(absl::Span<const Row> rows, const Weights& error, uint32_t first_knot, uint32_t knots);
  // Hazards of buckets first to end - 1.
  using Hazards = std::array<float, kBuckets>;
  void HazardsOf(absl::Span<const Row> rows, uint32_t first, uint32_t end, Hazards& out) const;

  // Compares what was forecast for buckets first to end - 1, and for use in bucket `end` where
  // it was used, with what a constant rate says.
  void Score(const Hazards& hazards, uint32_t first, uint32_t end, bool used, float weight);

  std::unique_ptr<Table> weights_;
  std::unique_ptr<Table> squares_;  // of gradients, summed; nullptr: nothing was learnt yet
  Figures figures_;
  bool behind_ = false;  // since Teach
  // Rows that differ from those of the model that was taught last.
  std::vector<Row> changed_;
  std::vector<bool> is_changed_;  // by row; empty with squares_
};

}  // namespace terrace
