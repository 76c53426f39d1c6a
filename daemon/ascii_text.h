// UTF-8 as ASCII for a parser that is not to be trusted with anything else: every byte outside
// ASCII becomes a marker and two hexadecimal digits, and so does the marker itself where it is
// written. The marker is punctuation that TOML knows in strings and comments only, so that the text
// is right or wrong where it was before. Lines stay where they are.
//
// What the parser unescapes cannot be mistaken for a marker: one is chosen that the text does not
// write as \u00XX or \U000000XX anywhere.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace terrace {

// Immutable.
class AsciiText {
 public:
  // nullopt: the text is not all ASCII and writes every possible marker as an escape.
  static std::optional<AsciiText> Of(std::string_view utf8);

  [[nodiscard]] const std::string& text() const { return text_; }

  // What a string had been that the parser took from text().
  [[nodiscard]] std::string Restored(std::string_view part) const;

  // The bytes of the character outside ASCII whose first byte stands at text()[offset]; "": there
  // is none.
  [[nodiscard]] std::string CharacterAt(size_t offset) const;

  // '\0': nothing had to be replaced.
  [[nodiscard]] char marker() const { return marker_; }

 private:
  std::string text_;
  char marker_ = '\0';
};

}  // namespace terrace
