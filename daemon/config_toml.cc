#include "daemon/config_toml.h"

#include <algorithm>

#include "absl/status/status.h"

#include "daemon/concat.h"
#include "daemon/quoted_text.h"

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

// Characters outside ASCII may stand in strings and comments only. toml++ 3.3 looks at others in a
// switch without a default and is undefined then, so they are replaced here by what is no TOML
// either. Follows the grammar only as far as the text is correct: what is wrong earlier is reported
// first.
class AsciiSyntax {
 public:
  explicit AsciiSyntax(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) {
      text_.erase(0, 3);  // the byte order mark, which is allowed
    }
    for (size_t at = 0; at < text_.size(); ++at) {
      if (text_[at] == '#') {
        at = std::min(text_.find('\n', at), text_.size());
      } else if (text_[at] == '"' || text_[at] == '\'') {
        at = EndOfString(at);
      } else if (static_cast<unsigned char>(text_[at]) >= 0x80) {
        first_ = std::min(first_, at);
        text_[at] = '!';
      }
    }
  }

  [[nodiscard]] const std::string& text() const { return text_; }
  // The line of the first replaced character; 0: there was none.
  [[nodiscard]] int first_line() const {
    if (first_ == std::string::npos) {
      return 0;
    }
    return 1 + static_cast<int>(
                   std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(first_), '\n'));
  }

 private:
  // The last byte of the string that begins at `begin`, or of the text.
  [[nodiscard]] size_t EndOfString(size_t begin) const {
    const char quote = text_[begin];
    const bool multi_line = text_.compare(begin, 3, std::string(3, quote)) == 0;
    const std::string closing(multi_line ? 3 : 1, quote);
    for (size_t at = begin + closing.size(); at < text_.size(); ++at) {
      if (quote == '"' && text_[at] == '\\') {
        ++at;
      } else if (!multi_line && text_[at] == '\n') {
        return at;  // not TOML
      } else if (text_.compare(at, closing.size(), closing) == 0) {
        // Up to two more quotes belong to the string: """a""""".
        size_t last = at + closing.size() - 1;
        for (int more = 0; multi_line && more < 2 && text_.compare(last + 1, 1, closing, 0, 1) == 0;
             ++more) {
          ++last;
        }
        return last;
      }
    }
    return text_.size() - 1;
  }

  std::string text_;
  size_t first_ = std::string::npos;
};

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
  const AsciiSyntax ascii(text);
  const toml::parse_result parsed = toml::parse(ascii.text());
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    const int line = static_cast<int>(error.source().begin.line);
    if (ascii.first_line() > 0 && line >= ascii.first_line()) {
      return absl::InvalidArgumentError(
          Concat(file, ":", ascii.first_line(),
                 ": not TOML: characters outside ASCII belong into quotes"));
    }
    return absl::InvalidArgumentError(Concat(file, ":", line, ": ", Explain(error)));
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
