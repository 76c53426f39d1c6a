#include "daemon/config_toml.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"

#include "daemon/ascii_text.h"
#include "daemon/concat.h"
#include "daemon/quoted_text.h"
#include "tiers/vocab/utf8.h"

// toml++ 3.3 looks at characters outside ASCII in a switch without a default, and is undefined
// then; it never sees one (ascii_text.h).
//
// A wrong file is no broken invariant. Some assertions of toml++ fail on input ("[.]" in 3.3) just
// before the code that reports it, and NDEBUG lets clang assume that they hold: neither happens
// here.
// clang-format off
#ifdef NDEBUG
#define TERRACE_RESTORE_NDEBUG
#undef NDEBUG
#endif
#define TOML_ASSERT(expression) static_assert(true)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>
#ifdef TERRACE_RESTORE_NDEBUG
#define NDEBUG
#endif
// clang-format on

namespace terrace {
namespace {

int LineOf(const toml::node& node) {
  return static_cast<int>(node.source().begin.line);
}

std::string_view KindOf(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date";
    default:
      return "something else";
  }
}

TomlValue ValueOf(const toml::node& node) {
  if (const auto* boolean = node.as_boolean()) {
    return boolean->get();
  }
  if (const auto* integer = node.as_integer()) {
    return integer->get();
  }
  if (const auto* number = node.as_floating_point()) {
    return number->get();
  }
  if (const auto* text = node.as_string()) {
    return text->get();
  }
  if (const auto* array = node.as_array()) {
    std::vector<int64_t> numbers;
    numbers.reserve(array->size());
    for (const toml::node& element : *array) {
      const auto* integer = element.as_integer();
      if (integer == nullptr) {
        return TomlOther{"an array that holds more than integers"};
      }
      numbers.push_back(integer->get());
    }
    return numbers;
  }
  return TomlOther{std::string(KindOf(node))};
}

void AppendSection(const std::string& section,
                   int element,
                   int line,
                   const toml::table& table,
                   std::vector<TomlEntry>* out) {
  // A table that exists only because of "[a.b]" or "a.b = 1" has no position of its own.
  if (line > 0) {
    out->push_back({section, element, "", TomlOther{"a table"}, line, true});
  }
  for (const auto& [key, node] : table) {
    out->push_back({section, element, std::string(key.str()), ValueOf(node), LineOf(node), false});
    TomlEntry& entry = out->back();
    entry.line = std::max(entry.line, static_cast<int>(key.source().begin.line));
  }
}

void AppendTop(const std::string& name,
               int line,
               const toml::node& node,
               std::vector<TomlEntry>* out) {
  if (const toml::table* table = node.as_table()) {
    AppendSection(name, -1, line, *table, out);
    return;
  }
  const toml::array* array = node.as_array();
  const bool tables =
      array != nullptr && !array->empty() && array->is_homogeneous(toml::node_type::table);
  if (!tables) {
    out->push_back({"", -1, name, ValueOf(node), line, false});
    return;
  }
  int element = 0;
  for (const toml::node& member : *array) {
    AppendSection(name, element++, LineOf(member), *member.as_table(), out);
  }
}

// Where in `text` toml++ stopped; its columns are characters, which are bytes here.
size_t OffsetOf(std::string_view text, const toml::source_position& position) {
  size_t at = 0;
  for (toml::source_index line = 1; line < position.line && at < text.size(); ++line) {
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return at + position.column - 1;
}

// toml++ describes where it was as well as what was wrong; operators need the latter, in one line.
std::string Explain(const toml::parse_error& error, const AsciiText& ascii) {
  std::string text(error.description());
  if (text.find("redefine") != std::string::npos) {
    const size_t open = text.find('\'');
    const size_t close = text.rfind('\'');
    if (open != std::string::npos && close > open) {
      return Concat(ShownValue(ascii.Restored(text.substr(open + 1, close - open - 1))),
                    " is set twice");
    }
    return "something is set twice";
  }
  constexpr std::string_view kPrefix = "Error while parsing ";
  if (text.starts_with(kPrefix)) {
    text = text.substr(kPrefix.size());
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      c = ' ';
    }
  }
  const std::string character = ascii.CharacterAt(OffsetOf(ascii.text(), error.source().begin));
  if (!character.empty()) {
    if (!text.starts_with("string") && !text.starts_with("unicode scalar")) {
      return "not TOML: characters outside ASCII belong into quotes";
    }
    // What it saw is a marker, of which the operator knows nothing.
    if (const size_t seen = text.rfind(ascii.marker()); seen != std::string::npos) {
      const std::string shown = ShownValue(character);
      text.replace(seen, 1, shown, 1, shown.size() - 2);
    }
  }
  return Concat("not TOML: ", text);
}

// The line on which text[at] stands.
int LineAt(std::string_view text, size_t at) {
  return 1 + static_cast<int>(
                 std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n'));
}

// The entries as the operator wrote them.
void Restore(const AsciiText& ascii, std::vector<TomlEntry>* entries) {
  for (TomlEntry& entry : *entries) {
    entry.section = ascii.Restored(entry.section);
    entry.key = ascii.Restored(entry.key);
    if (auto* text = std::get_if<std::string>(&entry.value)) {
      *text = ascii.Restored(*text);
    }
  }
}

}  // namespace

std::string_view TomlKind(const TomlValue& value) {
  switch (value.index()) {
    case 0:
      return "true or false";
    case 1:
      return "an integer";
    case 2:
      return "a decimal number";
    case 3:
      return "a string";
    case 4:
      return "an array";
    default:
      return std::get<TomlOther>(value).kind;
  }
}

absl::StatusOr<std::vector<TomlEntry>> ParseToml(std::string_view text, std::string_view file) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) {
    text.remove_prefix(kByteOrderMark.size());
  }
  if (const size_t at = FirstNotUtf8(text); at < text.size()) {
    return absl::InvalidArgumentError(Concat(file, ":", LineAt(text, at), ": not TOML: ",
                                             ShownValue(text.substr(at, 1)), " is not UTF-8"));
  }
  const std::optional<AsciiText> ascii = AsciiText::Of(text);
  if (!ascii.has_value()) {
    return absl::InvalidArgumentError(
        Concat(file, ":1: write punctuation as itself, not as \\u escapes"));
  }
  const toml::parse_result parsed = toml::parse(ascii->text());
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    const int line = static_cast<int>(error.source().begin.line);
    return absl::InvalidArgumentError(Concat(file, ":", line, ": ", Explain(error, *ascii)));
  }
  std::vector<TomlEntry> entries;
  for (const auto& [key, node] : parsed.table()) {
    const int line = std::max(LineOf(node), static_cast<int>(key.source().begin.line));
    AppendTop(std::string(key.str()), line, node, &entries);
  }
  Restore(*ascii, &entries);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TomlEntry& a, const TomlEntry& b) { return a.line < b.line; });
  return entries;
}

}  // namespace terrace
