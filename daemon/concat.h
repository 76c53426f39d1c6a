// Concat("a", 1, view): pieces of text and numbers end to end. The distributions' Abseil differ in
// whether absl::string_view is std::string_view, so absl::StrCat cannot be given one here.
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>

namespace terrace {

template <typename Piece>
void AppendPiece(std::string* out, const Piece& piece) {
  if constexpr (std::is_convertible_v<const Piece&, std::string_view>) {
    out->append(std::string_view(piece));
  } else {
    static_assert(std::is_arithmetic_v<Piece> && !std::is_same_v<Piece, bool> &&
                  !std::is_same_v<Piece, char>);
    char digits[64];
    const std::to_chars_result end = std::to_chars(digits, digits + sizeof(digits), piece);
    out->append(digits, static_cast<size_t>(end.ptr - digits));
  }
}

template <typename... Pieces>
std::string Concat(const Pieces&... pieces) {
  std::string out;
  (AppendPiece(&out, pieces), ...);
  return out;
}

}  // namespace terrace
