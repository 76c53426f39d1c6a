#include "daemon/store/local_budget.h"

namespace terrace {
namespace {

constexpr uint64_t kTypicalBlockBytes = uint64_t{256} << 10;

LocalAdmission::Options AdmissionOptions(const BlockStoreOptions& options,
                                         const SegmentTier* local) {
  LocalAdmission::Options admission;
  if (local != nullptr && options.local_endurance_per_day > 0) {
    admission.budget = {options.local_endurance_per_day, options.local_endurance_burst};
    admission.local_bytes = local->figures().capacity_bytes;
    admission.local_blocks = admission.local_bytes / kTypicalBlockBytes;
  }
  return admission;
}

}  // namespace

LocalBudget::LocalBudget(const BlockStoreOptions& options, const SegmentTier* local)
    : bytes_per_day_(options.local_endurance_per_day),
      admission_(AdmissionOptions(options, local)),
      accounted_(local == nullptr ? 0 : static_cast<double>(local->figures().bytes_written)) {}

Admission LocalBudget::Judge(absl::Duration now, const LocalAdmission::Candidate& candidate) {
  const Admission admission = admission_.Judge(now, candidate);
  ++judged_[static_cast<size_t>(admission)];
  accounted_ += IsLetIn(admission) ? static_cast<double>(candidate.bytes) : 0;
  return admission;
}

void LocalBudget::Settle(absl::Duration now, uint64_t device_bytes) {
  settle_at_ = now + kSettleInterval;
  const double written = static_cast<double>(device_bytes) + static_cast<double>(in_flight_bytes_);
  admission_.budget().Charge(now, written - accounted_);
  accounted_ = written;
}

LocalBudgetUsage LocalBudget::usage() const {
  LocalBudgetUsage usage;
  if (limited()) {
    usage.bytes_per_day = bytes_per_day_;
    usage.saved_up_bytes = admission_.budget().saved_up();
    usage.price_seconds_per_byte = admission_.budget().price();
    usage.judged = judged_;
  }
  return usage;
}

}  // namespace terrace
