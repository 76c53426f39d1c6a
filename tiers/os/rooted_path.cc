// Which names may stand below a root.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

#include "tiers/os/rooted_files.h"

namespace terrace {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kTemporaryDigits = 16;

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' ||
                  c == '_';
         });
}

}  // namespace

bool IsRootedPath(absl::string_view path) {
  if (path.size() > kMaxPathBytes) {
    return false;
  }
  for (uint32_t depth = 1; depth <= kMaxPathDepth; ++depth) {
    const size_t end = path.find('/');
    if (!IsName(path.substr(0, end))) {
      return false;
    }
    if (end == absl::string_view::npos) {
      return true;
    }
    path.remove_prefix(end + 1);
  }
  return false;
}

bool IsTemporaryName(absl::string_view name) {
  return absl::StartsWith(name, kTemporaryPrefix) &&
         name.size() == kTemporaryPrefix.size() + kTemporaryDigits &&
         std::all_of(name.begin() + kTemporaryPrefix.size(), name.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
         });
}

}  // namespace terrace
