#include "daemon/quoted_text.h"

#include <array>
#include <cstdint>

#include "tiers/vocab/utf8.h"

namespace terrace {
namespace {

constexpr std::array<char, 16> kHex = {'0', '1', '2', '3', '4', '5', '6', '7',
                                       '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};

void AppendEscaped(char c, std::string* out) {
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\t':
      out->append("\\t");
      return;
    case '\r':
      out->append("\\r");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[static_cast<uint8_t>(c) >> 4]);
      out->push_back(kHex[static_cast<uint8_t>(c) & 15]);
  }
}

}  // namespace

std::string QuotedText(std::string_view text) {
  std::string out = "\"";
  out.reserve(text.size() + 2);
  while (!text.empty()) {
    const size_t bytes = Utf8SequenceBytes(text);
    const auto first = static_cast<uint8_t>(text.front());
    if (bytes == 0) {
      out.append("\\ufffd");
    } else if (bytes == 1 && (first < 0x20 || first == 0x7f || first == '"' || first == '\\')) {
      AppendEscaped(text.front(), &out);
    } else {
      out.append(text.substr(0, bytes));
    }
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  out.push_back('"');
  return out;
}

std::string ShownValue(std::string_view text, size_t limit) {
  std::string out = "'";
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out.push_back(c);
    } else {
      out.append("\\x").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    }
  }
  return out.append(text.size() > limit ? "...'" : "'");
}

}  // namespace terrace
