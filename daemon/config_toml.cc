#include "daemon/config_toml.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <algorithm>

#include "absl/status/status.h"
#include <toml++/toml.h>

#include "daemon/concat.h"
#include "daemon/quoted_text.h"

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
  if (const auto* boolean = node.as_boolean())
    return boolean->get();
  if (const auto* integer = node.as_integer())
    return integer->get();
  if (const auto* number = node.as_floating_point())
    return number->get();
  if (const auto* text = node.as_string())
    return text->get();
  if (const auto* array = node.as_array()) {
    std::vector<int64_t> numbers;
    numbers.reserve(array->size());
    for (const toml::node& element : *array) {
      const auto* integer = element.as_integer();
      if (integer == nullptr)
        return TomlOther{"an array that holds more than integers"};
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
  if (line > 0)
    out->push_back({section, element, "", TomlOther{"a table"}, line, true});
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

// toml++ describes where it was as well as what was wrong; operators need the latter, in one line.
std::string Explain(const toml::parse_error& error) {
  std::string text(error.description());
  if (text.find("redefine") != std::string::npos) {
    const size_t open = text.find('\'');
    const size_t close = text.rfind('\'');
    if (open != std::string::npos && close > open) {
      return Concat(ShownValue(text.substr(open + 1, close - open - 1)), " is set twice");
    }
    return "something is set twice";
  }
  constexpr std::string_view kPrefix = "Error while parsing ";
  if (text.starts_with(kPrefix))
    text = text.substr(kPrefix.size());
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20)
      c = ' ';
  }
  return Concat("not TOML: ", text);
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
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return absl::InvalidArgumentError(
        Concat(file, ":", error.source().begin.line, ": ", Explain(error)));
  }
  std::vector<TomlEntry> entries;
  for (const auto& [key, node] : parsed.table()) {
    const int line = std::max(LineOf(node), static_cast<int>(key.source().begin.line));
    AppendTop(std::string(key.str()), line, node, &entries);
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TomlEntry& a, const TomlEntry& b) { return a.line < b.line; });
  return entries;
}

}  // namespace terrace
