// TOML text as a flat list of settings with their lines; hides toml++. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace terrace {

// A value of a kind that no setting has: a date, a nested table, an array of something else than
// integers.
struct TomlOther {
  std::string kind;
  friend bool operator==(const TomlOther&, const TomlOther&) = default;
};
using TomlValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, TomlOther>;

// What a value is, for messages: "a string", "an integer", ...
std::string_view TomlKind(const TomlValue& value);

struct TomlEntry {
  std::string section;  // "": above every section
  int element = -1;     // of [[section]], from 0; -1: [section]
  std::string key;
  TomlValue value;
  int line = 0;
  bool opens_section = false;  // stands for "[section]" itself; key and value say nothing
};

// Sections and keys in the order of their lines.
// Errors: INVALID_ARGUMENT "FILE:LINE: what is wrong", one line.
absl::StatusOr<std::vector<TomlEntry>> ParseToml(std::string_view text, std::string_view file);

}  // namespace terrace
