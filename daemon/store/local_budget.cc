#include "daemon/store/local_budget.h"

#include <bit>
#include <optional>

#include "absl/types/span.h"

#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr uint8_t kNoteVersion = 1;
constexpr size_t kNoteBytes = 9;

std::string NoteOf(double saved_up) {
  std::string note(kNoteBytes, '\0');
  FieldWriter writer(absl::MakeSpan(note));
  writer.U8(kNoteVersion);
  writer.U64(std::bit_cast<uint64_t>(saved_up));
  return note;
}

// nullopt: not such a note.
std::optional<double> SavedUpIn(std::string_view note) {
  FieldReader reader(note);
  if (note.size() != kNoteBytes || reader.U8() != kNoteVersion) {
    return std::nullopt;
  }
  return std::bit_cast<double>(reader.U64());
}

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
      accounted_(local == nullptr ? 0 : static_cast<double>(local->figures().bytes_written)) {
  if (!limited()) {
    return;
  }
  for (const SegmentTier::Note& note : local->Notes()) {
    const std::optional<double> saved_up =
        note.name == kNoteName ? SavedUpIn(note.value) : std::nullopt;
    if (saved_up.has_value()) {
      admission_.budget().Resume(*saved_up);
    }
  }
}

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

std::string LocalBudget::TakeNote(absl::Duration now) {
  if (!limited() || now < note_at_) {
    return {};
  }
  note_at_ = now + kNoteInterval;
  return NoteOf(admission_.budget().saved_up());
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
