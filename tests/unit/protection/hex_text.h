// Bytes as the standards print them.
#pragma once

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace terrace {

inline std::string FromHex(absl::string_view text) {
  return absl::HexStringToBytes(text);
}
inline std::string ToHex(absl::Span<const char> bytes) {
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

}  // namespace terrace
