#include "daemon/ascii_text.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

#include "tiers/vocab/utf8.h"

namespace terrace {
namespace {

// None of them means anything to TOML outside of strings and comments.
constexpr std::string_view kMarkers = "~`^|@;?!%&*$<>";

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

std::string TwoDigits(char c) {
  return absl::BytesToHexString(std::string(1, c));
}

// '\0': each of them is written as an escape somewhere.
char FreeMarker(std::string_view text) {
  const std::string lower = absl::AsciiStrToLower(std::string(text));
  const auto* const free = std::find_if(kMarkers.begin(), kMarkers.end(), [&lower](char candidate) {
    return lower.find("00" + TwoDigits(candidate)) == std::string::npos;
  });
  return free == kMarkers.end() ? '\0' : *free;
}

}  // namespace

std::optional<AsciiText> AsciiText::Of(std::string_view utf8) {
  AsciiText made;
  if (IsAscii(utf8)) {
    made.text_ = utf8;
    return made;
  }
  made.marker_ = FreeMarker(utf8);
  if (made.marker_ == '\0') {
    return std::nullopt;
  }
  made.text_.reserve(utf8.size() * 3);
  for (const char c : utf8) {
    if (c == made.marker_ || static_cast<uint8_t>(c) >= 0x80) {
      made.text_.append(1, made.marker_).append(TwoDigits(c));
    } else {
      made.text_.push_back(c);
    }
  }
  return made;
}

std::string AsciiText::Restored(std::string_view part) const {
  std::string out;
  out.reserve(part.size());
  for (size_t at = 0; at < part.size(); ++at) {
    const std::string_view digits = part.substr(at + 1, 2);
    uint8_t byte = 0;
    const bool replaced =
        marker_ != '\0' && part[at] == marker_ && digits.size() == 2 &&
        std::from_chars(digits.data(), digits.data() + 2, byte, 16).ptr == digits.data() + 2;
    if (replaced) {
      out.push_back(static_cast<char>(byte));
      at += 2;
    } else {
      out.push_back(part[at]);
    }
  }
  return out;
}

std::string AsciiText::CharacterAt(size_t offset) const {
  if (offset >= text_.size()) {
    return "";
  }
  constexpr size_t kMostBytes = 4;
  const std::string bytes = Restored(std::string_view(text_).substr(offset, kMostBytes * 3));
  return IsAscii(bytes.substr(0, 1)) ? "" : bytes.substr(0, Utf8SequenceBytes(bytes));
}

}  // namespace terrace
