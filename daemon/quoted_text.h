// Text between double quotes, such that it is at once a JSON string, a TOML basic string and a
// logfmt value.
#pragma once

#include <string>
#include <string_view>

namespace terrace {

// Control characters, quotes and backslashes are escaped; what is not UTF-8 becomes U+FFFD. Pure.
std::string QuotedText(std::string_view text);

// For messages: at most `limit` bytes of it, in single quotes, everything but printable ASCII
// escaped.
std::string ShownValue(std::string_view text, size_t limit = 64);

}  // namespace terrace
