// Well-formed UTF-8 (RFC 3629, section 4; Unicode 15, table 3-7): neither overlong forms nor
// surrogates nor what lies beyond U+10FFFF. Pure.
#pragma once

#include <cstddef>
#include <string_view>

namespace terrace {

// Bytes of the sequence at the front of `text`: 1 to 4. 0: there is none, or `text` is empty.
size_t Utf8SequenceBytes(std::string_view text);

// Where the first byte stands that begins no sequence; text.size(): there is none.
size_t FirstNotUtf8(std::string_view text);

inline bool IsUtf8(std::string_view text) {
  return FirstNotUtf8(text) == text.size();
}

}  // namespace terrace
