#include "daemon/wire/call_status.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace terrace {
namespace {

constexpr absl::string_view kFieldUrl = "terrace/field";
constexpr absl::string_view kRetryUrl = "terrace/retry_after_ms";

}  // namespace

absl::Status InvalidField(absl::string_view field, absl::string_view limit) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", limit));
  status.SetPayload(kFieldUrl, absl::Cord(field));
  return status;
}

absl::Status TryLater(absl::string_view message, uint32_t retry_after_ms) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kRetryUrl, absl::Cord(absl::StrCat(retry_after_ms)));
  return status;
}

absl::Status NotImplemented(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, ": not implemented by this server"));
}

std::string FieldOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kFieldUrl);
  return payload.has_value() ? std::string(*payload) : std::string();
}

uint32_t RetryAfterMsOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryUrl);
  uint32_t value = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &value)) {
    return 0;
  }
  return value;
}

v1::ErrorDetail ErrorDetailOf(const absl::Status& status, uint64_t boot_id) {
  v1::ErrorDetail detail;
  detail.set_boot_id(boot_id);
  detail.set_message(std::string(status.message()));
  detail.set_field(FieldOf(status));
  detail.set_retry_after_ms(RetryAfterMsOf(status));
  return detail;
}

}  // namespace terrace
