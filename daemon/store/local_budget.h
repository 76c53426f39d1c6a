// The local tier's budget of writes as the store keeps it: what is judged, and what the drives say
// was written, which is more (headers, footers, what reclaim writes again, what puts wait for).
//
// What is saved up, or owed, outlives the daemon in a note of the tier; what passes while none runs
// is not saved up. The note's value is
//    0   1  version, 1
//    1   8  bytes saved up, an IEEE double, little-endian
//
// Thread-compatible: guarded by the store's lock.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "tiers/placement/local_admission.h"
#include "tiers/segment/segment_tier.h"

namespace terrace {

class LocalBudget {
 public:
  // How often the drives are asked what was written.
  static constexpr absl::Duration kSettleInterval = absl::Seconds(1);

  static constexpr std::string_view kNoteName = "budget";
  static constexpr absl::Duration kNoteInterval = absl::Minutes(1);

  // local: nullable; asked for its size and its notes once.
  LocalBudget(const BlockStoreOptions& options, const SegmentTier* local);

  [[nodiscard]] bool limited() const { return admission_.limited(); }
  [[nodiscard]] absl::Duration horizon() const { return admission_.horizon(); }

  Admission Judge(absl::Duration now, const LocalAdmission::Candidate& candidate);
  // As LocalAdmission has them.
  void Entered(uint64_t name) { admission_.Entered(name); }
  void Left(const ReuseRecord::Facts& facts) { admission_.Left(facts); }

  // A write, whoever asked for it, is under way until it has ended.
  void WriteBegan(uint64_t bytes) { in_flight_bytes_ += bytes; }
  void WriteEnded(uint64_t bytes) { in_flight_bytes_ -= bytes; }
  [[nodiscard]] bool IsSettlingDue(absl::Duration now) const {
    return limited() && now >= settle_at_;
  }
  // device_bytes: all that was written to the drives since they were opened.
  void Settle(absl::Duration now, uint64_t device_bytes);

  // The value of the note, when it is time to write it; "": it is not.
  std::string TakeNote(absl::Duration now);

  [[nodiscard]] LocalBudgetUsage usage() const;

 private:
  const uint64_t bytes_per_day_;
  LocalAdmission admission_;
  std::array<uint64_t, kAdmissions> judged_{};
  uint64_t in_flight_bytes_ = 0;
  double accounted_ = 0;  // bytes taken off the budget
  absl::Duration settle_at_ = absl::ZeroDuration();
  absl::Duration note_at_ = absl::ZeroDuration();
};

}  // namespace terrace
