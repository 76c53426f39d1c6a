// What one part of a probe says about token boundaries: which of its keys are usable, and which
// ends are legal for it. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "daemon/block_store.h"

namespace terrace {

// The token position at which the i-th key's block ends.
inline uint64_t EndToken(const StorePart& part, uint32_t block_tokens, uint32_t i) {
  if (!part.end_tokens.empty()) {
    return part.end_tokens[i];
  }
  return part.first_token + uint64_t{block_tokens} * (i + 1);
}

// The token position at which it begins.
inline uint64_t FirstToken(const StorePart& part, uint32_t block_tokens, uint32_t i) {
  return i == 0 ? part.first_token : EndToken(part, block_tokens, i - 1);
}

// What one part says about boundaries: for each of its keys, whether it is usable, and where its
// blocks end.
struct PartView {
  const StorePart* part = nullptr;
  uint32_t block_tokens = 0;
  std::vector<uint8_t> usable;  // 1: yes
  uint32_t run = 0;             // leading usable keys

  [[nodiscard]] uint64_t End(uint32_t i) const { return EndToken(*part, block_tokens, i); }

  // Keys that end at or before the boundary.
  [[nodiscard]] uint32_t KeysUpTo(uint64_t boundary) const {
    uint32_t low = 0;
    uint32_t high = part->key_count();
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (End(middle) <= boundary) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // The largest boundary <= `limit` that this part finds legal.
  [[nodiscard]] uint64_t LargestLegal(uint64_t limit) const {
    switch (part->rule) {
      case Rule::kIndependent:
        return limit;
      case Rule::kPrefix: {
        const uint32_t keys = std::min(run, KeysUpTo(limit));
        return keys == 0 ? std::min(limit, part->first_token) : End(keys - 1);
      }
      case Rule::kStateAtEnd: {
        for (uint32_t keys = KeysUpTo(limit); keys > 0; --keys) {
          if (usable[keys - 1] != 0) {
            return End(keys - 1);
          }
        }
        return 0;
      }
      case Rule::kWindow: {
        for (uint32_t keys = KeysUpTo(limit); keys > 0; --keys) {
          if (WindowCovered(keys)) {
            return End(keys - 1);
          }
        }
        return 0;
      }
    }
    return 0;
  }

  // Whether every block that reaches into the window before the end of key `keys - 1` is usable.
  [[nodiscard]] bool WindowCovered(uint32_t keys) const {
    const uint64_t end = End(keys - 1);
    const uint64_t begin = end > part->window_tokens ? end - part->window_tokens : 0;
    for (uint32_t i = keys; i > 0 && End(i - 1) > begin; --i) {
      if (usable[i - 1] == 0) {
        return false;
      }
    }
    return true;
  }
};

// The largest boundary <= `limit` that every part finds legal. Boundaries shrink until all agree;
// each round lowers at least one part's end or stops.
inline uint64_t LargestLegalOf(const std::vector<PartView>& views, uint64_t limit) {
  uint64_t boundary = limit;
  for (bool agreed = false; !agreed && boundary > 0;) {
    agreed = true;
    for (const PartView& view : views) {
      const uint64_t legal = view.LargestLegal(boundary);
      if (legal < boundary) {
        boundary = legal;
        agreed = false;
      }
    }
  }
  return boundary;
}

}  // namespace terrace
