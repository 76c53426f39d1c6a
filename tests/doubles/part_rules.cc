#include "tests/doubles/part_rules.h"

#include <algorithm>

namespace terrace::doubles {
namespace {

// What lies before a part's first token is the caller's own affair; a boundary behind its last key
// is not covered.
bool EndsAKey(const RuledKeys& part, uint64_t boundary) {
  return boundary == part.first_token || std::find(part.end_tokens.begin(), part.end_tokens.end(),
                                                   boundary) != part.end_tokens.end();
}

bool Needs(const RuledKeys& part, size_t key, uint64_t boundary) {
  const uint64_t end = part.end_tokens[key];
  switch (part.rule) {
    case v1::RULE_WINDOW:
      return end <= boundary && end + part.window_tokens > boundary;
    case v1::RULE_STATE_AT_END:
      return end == boundary;
    case v1::RULE_INDEPENDENT:
      return part.held[key];
    default:
      return end <= boundary;
  }
}

}  // namespace

bool IsLegalBoundary(const RuledKeys& part, uint64_t boundary) {
  if (part.rule == v1::RULE_INDEPENDENT) {
    return true;
  }
  if (!EndsAKey(part, boundary)) {
    return false;
  }
  const std::vector<size_t> needed = NeededKeys(part, boundary);
  return std::all_of(needed.begin(), needed.end(), [&](size_t key) { return part.held[key]; });
}

std::vector<size_t> NeededKeys(const RuledKeys& part, uint64_t boundary) {
  std::vector<size_t> needed;
  for (size_t key = 0; key < part.end_tokens.size(); ++key) {
    if (Needs(part, key, boundary)) {
      needed.push_back(key);
    }
  }
  return needed;
}

uint64_t LargestLegalBoundary(const std::vector<RuledKeys>& parts) {
  std::vector<uint64_t> candidates;
  for (const RuledKeys& part : parts) {
    if (part.rule != v1::RULE_INDEPENDENT) {
      candidates.insert(candidates.end(), part.end_tokens.begin(), part.end_tokens.end());
    }
  }
  std::sort(candidates.rbegin(), candidates.rend());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  for (const uint64_t boundary : candidates) {
    if (std::all_of(parts.begin(), parts.end(),
                    [&](const RuledKeys& part) { return IsLegalBoundary(part, boundary); })) {
      return boundary;
    }
  }
  return 0;
}

uint32_t KeysUnder(const RuledKeys& part, uint64_t boundary) {
  if (part.rule == v1::RULE_INDEPENDENT) {
    return static_cast<uint32_t>(part.end_tokens.size());
  }
  return static_cast<uint32_t>(
      std::upper_bound(part.end_tokens.begin(), part.end_tokens.end(), boundary) -
      part.end_tokens.begin());
}

uint32_t CountHits(const RuledKeys& part) {
  if (part.rule != v1::RULE_PREFIX) {
    return static_cast<uint32_t>(std::count(part.held.begin(), part.held.end(), true));
  }
  return static_cast<uint32_t>(std::find(part.held.begin(), part.held.end(), false) -
                               part.held.begin());
}

}  // namespace terrace::doubles
