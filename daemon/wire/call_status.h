// How a refusal travels: an absl::Status that also knows the field it is about and when to try again, and its form on
// the wire. Texts name field and limit, never values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "terrace/v1/session.pb.h"

namespace terrace {

// INVALID_ARGUMENT "field: limit".
absl::Status InvalidField(absl::string_view field, absl::string_view limit);
// RESOURCE_EXHAUSTED, with the time after which trying again makes sense.
absl::Status TryLater(absl::string_view message, uint32_t retry_after_ms);
absl::Status NotImplemented(absl::string_view what);

// "" and 0 when the status carries none.
std::string FieldOf(const absl::Status& status);
uint32_t RetryAfterMsOf(const absl::Status& status);

v1::ErrorDetail ErrorDetailOf(const absl::Status& status, uint64_t boot_id);

}  // namespace terrace
