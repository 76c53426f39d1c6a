// Bytes to message, with a bound on what parsing may allocate.
//
// A few bytes on the wire can become an object of a hundred: four million bytes of empty submessages would make a
// quarter of a gigabyte. So the fields are counted, over all depths, before anything is parsed.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace terrace {

// Fields of one message, over all depths. The largest legal call (16,384 keys, all arrays of it unpacked, metadata for
// each key) has below 100,000.
inline constexpr uint32_t kMaxMessageFields = 131072;
// RegisterRegion may describe 1,024 x 1,024 segments of two fields each.
inline constexpr uint32_t kMaxGeometryFields = 4U << 20;
inline constexpr int kMaxMessageDepth = 16;

// OK, or INVALID_ARGUMENT: undecodable, too many fields, nested too deeply.
absl::Status CheckFieldCount(std::string_view bytes,
                             const google::protobuf::Descriptor& type,
                             uint32_t max_fields);

// CheckFieldCount, then parses. INVALID_ARGUMENT in both cases; *out is then unspecified.
absl::Status ParseMessage(std::string_view bytes, google::protobuf::Message* out);

// Whether the status came from bytes that are no message of the type (and not from a limit).
bool IsUndecodable(const absl::Status& status);

}  // namespace terrace
