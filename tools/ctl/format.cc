#include "tools/ctl/format.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace terrace::ctl {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 63U;

// Three significant digits, without zeros behind the point: 1.5, 12.3, 123.
std::string ThreeDigits(double value) {
  const int decimals = value < 9.995 ? 2 : (value < 99.95 ? 1 : 0);
  std::string text = absl::StrFormat("%.*f", decimals, value);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') {
      text.pop_back();
    }
    if (text.back() == '.') {
      text.pop_back();
    }
  }
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return -1;
}

// Splits "12.5 GiB" into 12.5 and "gib".
struct Quantity {
  double number = 0;
  std::string unit;
};

absl::StatusOr<Quantity> ParseQuantity(absl::string_view text, absl::string_view expected) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  const size_t digits = std::min(trimmed.find_first_not_of("0123456789."), trimmed.size());
  Quantity quantity;
  if (digits == 0 || !absl::SimpleAtod(trimmed.substr(0, digits), &quantity.number)) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not ", expected));
  }
  quantity.unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(trimmed.substr(digits)));
  return quantity;
}

}  // namespace

std::string Hex(absl::string_view bytes) {
  constexpr absl::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    text.push_back(kDigits[value >> 4U]);
    text.push_back(kDigits[value & 15U]);
  }
  return text;
}

absl::StatusOr<std::string> ParseHex(absl::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() / 2);
  int high = -1;
  for (size_t i = 0; i < text.size(); ++i) {
    const int digit = HexDigit(text[i]);
    if (digit < 0) {
      return absl::InvalidArgumentError(absl::StrCat("character ", i + 1, " of '", Printable(text),
                                                     "' is not a hexadecimal digit"));
    }
    if (high < 0) {
      high = digit;
    } else {
      bytes.push_back(static_cast<char>(high * 16 + digit));
      high = -1;
    }
  }
  if (high >= 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", Printable(text), "' has ", text.size(),
                                                   " hexadecimal digits, an odd number"));
  }
  return bytes;
}

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<absl::string_view, 7> kUnits = {"B",   "KiB", "MiB", "GiB",
                                                       "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrCat(ThreeDigits(value), " ", kUnits[unit]);
}

std::string FormatByteRate(double bytes_per_s) {
  return absl::StrCat(FormatBytes(static_cast<uint64_t>(std::max(0.0, bytes_per_s))), "/s");
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  absl::StatusOr<Quantity> quantity = ParseQuantity(text, "a size such as 512MiB or 2GiB");
  if (!quantity.ok()) {
    return quantity.status();
  }
  absl::string_view unit = quantity->unit;
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    const size_t power = absl::string_view("kmgt").find(unit.front());
    const absl::string_view rest = unit.substr(1);
    if (power == absl::string_view::npos ||
        (!rest.empty() && rest != "b" && rest != "i" && rest != "ib")) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "' has an unknown unit; B, KiB, MiB, GiB and TiB are known"));
    }
    factor = std::pow(1024.0, static_cast<double>(power + 1));
  }
  const double bytes = quantity->number * factor;
  if (bytes >= static_cast<double>(kMaxBytes)) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is over the limit of 8 EiB"));
  }
  uint64_t whole = 0;
  if (factor == 1 && absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &whole)) {
    return whole;  // exact where a double would round
  }
  return static_cast<uint64_t>(std::llround(bytes));
}

std::string FormatCount(uint64_t count) {
  std::string digits = absl::StrCat(count);
  for (size_t place = digits.size(); place > 3; place -= 3) {
    digits.insert(place - 3, 1, ',');
  }
  return digits;
}

std::string FormatRate(double per_s) {
  constexpr std::array<absl::string_view, 4> kUnits = {"", "k", "M", "G"};
  double value = std::max(0.0, per_s);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0) {
    std::string text = absl::StrFormat("%.*f", value < 99.95 ? 1 : 0, value);
    return text.size() > 2 && text.substr(text.size() - 2) == ".0" ? text.substr(0, text.size() - 2)
                                                                   : text;
  }
  return absl::StrCat(ThreeDigits(value), kUnits[unit]);
}

std::string FormatElapsed(absl::Duration duration) {
  if (duration < absl::ZeroDuration()) {
    return absl::StrCat("-", FormatElapsed(-duration));
  }
  if (duration < absl::Milliseconds(1)) {
    return absl::StrCat(ThreeDigits(absl::ToDoubleMicroseconds(duration)), " us");
  }
  if (duration < absl::Milliseconds(999.5)) {
    return absl::StrCat(ThreeDigits(absl::ToDoubleMilliseconds(duration)), " ms");
  }
  if (duration < absl::Minutes(1) - absl::Milliseconds(50)) {
    return absl::StrCat(ThreeDigits(absl::ToDoubleSeconds(duration)), " s");
  }
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  const auto pair = [](int64_t large, absl::string_view large_unit, int64_t small,
                       absl::string_view small_unit) {
    return small == 0 ? absl::StrCat(large, " ", large_unit)
                      : absl::StrCat(large, " ", large_unit, " ", small, " ", small_unit);
  };
  if (seconds < 3600) {
    return pair(seconds / 60, "min", seconds % 60, "s");
  }
  if (seconds < 86400) {
    return pair(seconds / 3600, "h", seconds % 3600 / 60, "min");
  }
  return pair(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::StatusOr<Quantity> quantity =
      ParseQuantity(text, "a time such as 250ms, 30s, 5m, 2h or 7d");
  if (!quantity.ok()) {
    return quantity.status();
  }
  const std::string& unit = quantity->unit;
  double seconds = 0;
  if (unit.empty() || unit == "s") {
    seconds = quantity->number;
  } else if (unit == "ms") {
    seconds = quantity->number / 1000;
  } else if (unit == "m" || unit == "min") {
    seconds = quantity->number * 60;
  } else if (unit == "h") {
    seconds = quantity->number * 3600;
  } else if (unit == "d") {
    seconds = quantity->number * 86400;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' has an unknown unit; ms, s, m, h and d are known"));
  }
  return absl::Seconds(seconds);
}

std::string FormatShare(uint64_t part, uint64_t whole) {
  if (whole == 0) {
    return "-";
  }
  return absl::StrFormat("%.1f%%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string Printable(absl::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      c = '?';
    }
  }
  return out;
}

std::string Style::Paint(Tone tone, absl::string_view text) const {
  if (colour_ == Colour::kNever || tone == Tone::kPlain) {
    return std::string(text);
  }
  constexpr std::array<absl::string_view, 6> kCodes = {"0", "1", "2", "32", "33", "31"};
  return absl::StrCat("\x1b[", kCodes[static_cast<size_t>(tone)], "m", text, "\x1b[0m");
}

size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;  // not a continuation byte of UTF-8
  }));
}

std::string Table::Render(const Style& style) const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = DisplayWidth(columns_[c].title);
    for (const std::vector<Cell>& row : rows_) {
      width = std::max(width, c < row.size() ? DisplayWidth(row[c].text) : 0);
    }
    widths.push_back(width);
  }
  std::string out;
  const auto render_line = [&](auto cell_of) {
    std::string line;
    std::string owed;  // spaces that are written only when something follows
    for (size_t c = 0; c < columns_.size(); ++c) {
      const Cell cell = cell_of(c);
      const std::string padding(widths[c] - DisplayWidth(cell.text), ' ');
      if (columns_[c].align == Align::kRight) {
        owed += padding;
      }
      if (!cell.text.empty()) {
        absl::StrAppend(&line, owed, style.Paint(cell.tone, cell.text));
        owed.clear();
      }
      if (columns_[c].align == Align::kLeft) {
        owed += padding;
      }
      owed += "  ";
    }
    absl::StrAppend(&out, line, "\n");
  };
  render_line([&](size_t c) { return Cell(columns_[c].title, Tone::kStrong); });
  for (const std::vector<Cell>& row : rows_) {
    render_line([&](size_t c) { return c < row.size() ? row[c] : Cell(""); });
  }
  return out;
}

std::string RenderFacts(absl::Span<const Fact> facts, const Style& style) {
  size_t width = 0;
  for (const Fact& fact : facts) {
    width = std::max(width, DisplayWidth(fact.name));
  }
  std::string out;
  for (const Fact& fact : facts) {
    absl::StrAppend(&out, style.Paint(Tone::kDim, fact.name),
                    std::string(width - DisplayWidth(fact.name) + 2, ' '),
                    style.Paint(fact.tone, fact.value), "\n");
  }
  return out;
}

std::string Bar(uint64_t part, uint64_t whole, int width) {
  int used = 0;
  if (whole > 0) {
    const double share = std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
    used = static_cast<int>(std::lround(share * width));
    used = part > 0 ? std::max(used, 1) : 0;
  }
  return absl::StrCat("[", std::string(static_cast<size_t>(used), '#'),
                      std::string(static_cast<size_t>(std::max(0, width - used)), '.'), "]");
}

}  // namespace terrace::ctl
