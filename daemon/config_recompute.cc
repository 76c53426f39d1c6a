#include "daemon/config_recompute.h"

#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

#include "daemon/concat.h"
#include "daemon/quoted_text.h"

namespace terrace {
namespace {

bool ReadPoint(absl::string_view text, PrefillTime* out) {
  const std::pair<absl::string_view, absl::string_view> sides =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  return absl::SimpleAtoi(absl::StripAsciiWhitespace(sides.first), &out->tokens) &&
         absl::ParseDuration(std::string(absl::StripAsciiWhitespace(sides.second)), &out->took);
}

}  // namespace

absl::Status SetRecompute(const TomlValue& value, std::vector<PrefillTime>* out) {
  const auto* text = std::get_if<std::string>(&value);
  bool is_read = text != nullptr;
  std::vector<PrefillTime> points;
  if (is_read) {
    for (const absl::string_view point : absl::StrSplit(*text, ',')) {
      is_read = is_read && ReadPoint(point, &points.emplace_back());
    }
  }
  if (!is_read) {
    return absl::InvalidArgumentError(
        Concat("must be one or two times of prompts such as \"8192: 600ms, 131072: 19s\", not ",
               text == nullptr ? TomlKind(value) : ShownValue(*text)));
  }
  *out = points;
  return ModelThrough(points).status();
}

std::string RecomputeText(const std::vector<PrefillTime>& points) {
  std::string text;
  for (const PrefillTime& point : points) {
    text += Concat(text.empty() ? "" : ", ", point.tokens, ": ", absl::FormatDuration(point.took));
  }
  return text;
}

}  // namespace terrace
