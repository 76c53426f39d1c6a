// Which blocks that leave DRAM are written to the local tier, where that has a budget: the price of
// write_budget.h, against the chance of use that the policy forecasts, or that reuse_record.h has
// counted where it does not. The daemon and the replay of two tiers run this very code.
//
// Chains leave from their ends. So that no prefix has a hole, what stands before a block that was
// written goes down with it, as far as the budget bears it.
//
// Pure. Thread-compatible: confined to its owner's lock.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

#include "tiers/placement/reuse_record.h"
#include "tiers/placement/write_budget.h"

namespace terrace {

class LocalAdmission {
 public:
  struct Options {
    WriteBudget::Options budget;
    uint64_t local_blocks = 0;  // about as many as the tier holds
    uint64_t local_bytes = 0;   // that it holds
  };
  explicit LocalAdmission(const Options& options)
      : budget_(options.budget),
        record_(options.local_blocks),
        horizon_(!budget_.limited() ? absl::InfiniteDuration()
                                    : absl::Seconds(static_cast<double>(options.local_bytes) /
                                                    budget_.bytes_per_second())) {}

  // False: all is let in, and nobody needs to tell what enters and leaves.
  [[nodiscard]] bool limited() const { return budget_.limited(); }

  // How far a forecast has to look ahead: as long as what is written stays, where the whole budget
  // is spent.
  [[nodiscard]] absl::Duration horizon() const { return horizon_; }

  struct Candidate {
    ReuseRecord::Facts facts;
    std::optional<double> forecast;  // of the policy
    double seconds_saved = 0;        // by a use of it
    uint64_t bytes = 0;              // that would be written
    bool completes = false;          // a block behind it was written
  };
  Admission Judge(absl::Duration now, const Candidate& candidate) {
    return budget_.Admit(
        now, {ChanceOf(candidate), candidate.seconds_saved, candidate.bytes, candidate.completes});
  }
  // That it is asked for again.
  [[nodiscard]] double ChanceOf(const Candidate& candidate) const {
    return candidate.forecast.has_value() ? *candidate.forecast : record_.ChanceOf(candidate.facts);
  }

  // A block is in DRAM, or has left it: whether it was let in or lay there already.
  void Entered(uint64_t name) { record_.Entered(name); }
  void Left(const ReuseRecord::Facts& facts) { record_.Left(facts); }

  [[nodiscard]] const ReuseRecord& record() const { return record_; }
  [[nodiscard]] WriteBudget& budget() { return budget_; }
  [[nodiscard]] const WriteBudget& budget() const { return budget_; }

 private:
  WriteBudget budget_;
  ReuseRecord record_;
  absl::Duration horizon_;
};

}  // namespace terrace
