// Pure text: hexadecimal, sizes, times, tables and colours. No I/O, no locale; immutable or
// thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace terrace::ctl {

// Lower case, two digits a byte.
std::string Hex(absl::string_view bytes);
// Upper or lower case, spaces not allowed. INVALID_ARGUMENT for an odd length or a foreign
// character, naming its place.
absl::StatusOr<std::string> ParseHex(absl::string_view text);

// "0 B", "4 KiB", "1.5 GiB": powers of 1,024, at most three significant digits and a suffix.
std::string FormatBytes(uint64_t bytes);
// "1.5 GiB/s".
std::string FormatByteRate(double bytes_per_s);
// "512", "64K", "1.5GiB", "2 GB": K, M, G, T, with or without i and B, are powers of 1,024.
// INVALID_ARGUMENT for anything else, negative or over 2^63 - 1.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// Digits in groups of three: "12,345".
std::string FormatCount(uint64_t count);
// "1.2k", "3.4M" a second; below 1,000 with at most one decimal.
std::string FormatRate(double per_s);
// The two largest units that matter: "250 us", "1.5 ms", "12 s", "3 min 5 s", "2 h 10 min", "4 d 1
// h".
std::string FormatElapsed(absl::Duration duration);
// "30", "30s", "5m", "2h", "7d", "250ms"; a bare number is seconds. INVALID_ARGUMENT otherwise or
// when negative.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);
// "87.5%", "-" when the whole is zero.
std::string FormatShare(uint64_t part, uint64_t whole);
// What a terminal may show of a string that came from elsewhere: control characters become '?'.
// UTF-8 stays.
std::string Printable(absl::string_view text);

enum class Tone : uint8_t { kPlain, kStrong, kDim, kGood, kWarning, kBad };

// Colours by ANSI sequences, or none.
class Style {
 public:
  enum class Colour : uint8_t { kNever, kAnsi };
  explicit Style(Colour colour) : colour_(colour) {}
  [[nodiscard]] std::string Paint(Tone tone, absl::string_view text) const;

 private:
  Colour colour_;
};

// Columns as wide as their widest cell, two spaces apart; cells of number columns stand to the
// right.
class Table {
 public:
  enum class Align : uint8_t { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  struct Cell {
    // Rows are written as lists. NOLINTBEGIN(google-explicit-constructor)
    Cell(std::string content) : text(std::move(content)) {}
    Cell(const char* content) : text(content) {}
    // NOLINTEND(google-explicit-constructor)
    Cell(std::string content, Tone cell_tone) : text(std::move(content)), tone(cell_tone) {}
    std::string text;
    Tone tone = Tone::kPlain;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // Missing cells are empty; cells beyond the columns are dropped.
  void Add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  // One line a row, title line first, without trailing spaces, each ended by a newline.
  [[nodiscard]] std::string Render(const Style& style) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// "name   value" lines, names as wide as the widest; skips nothing.
struct Fact {
  std::string name;
  std::string value;
  Tone tone = Tone::kPlain;
};
std::string RenderFacts(absl::Span<const Fact> facts, const Style& style);

// A bar of `width` cells, '#' for the used part; a used part above zero shows at least one.
std::string Bar(uint64_t part, uint64_t whole, int width);

// Columns that a terminal needs for UTF-8 text without combining or wide characters.
size_t DisplayWidth(absl::string_view text);

}  // namespace terrace::ctl
