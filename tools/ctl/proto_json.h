// Messages of the contract as JSON objects, by reflection: every field appears under its own name,
// also when it is zero, so that a script may rely on it. Bytes are lower-case hexadecimal, enum
// values are lower-case names without their prefix ("ready" for KEY_STATE_READY), fixed64
// (identities such as boot_id, of which 53 bits would not be enough) is hexadecimal with 16 digits,
// other integers are numbers, an absent message is null.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/message.h>
#include <nlohmann/json.hpp>

namespace terrace::ctl {

using Json = nlohmann::ordered_json;

Json JsonOf(const google::protobuf::Message& message);

// "ready" for the value KEY_STATE_READY of KeyState; the number in decimal for one that this build
// doesn't know.
std::string EnumName(const google::protobuf::EnumDescriptor* descriptor, int value);

// The same backwards for flat messages (scalars, enums and maps of strings). Fields may be missing,
// null is absent. INVALID_ARGUMENT names an unknown field or one of the wrong kind. Never throws.
absl::Status MessageFromJson(const Json& json, google::protobuf::Message* message);

// INVALID_ARGUMENT for what isn't JSON, with the place. Never throws.
absl::StatusOr<Json> ParseJson(absl::string_view text);

// One line; bytes that are not UTF-8 are replaced. Never throws.
std::string DumpJson(const Json& json);

}  // namespace terrace::ctl
