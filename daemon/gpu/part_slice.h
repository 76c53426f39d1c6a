// Some keys of a part, that follow each other, as a part of their own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "daemon/block_store.h"

namespace terrace {

// Token positions are right where the part has end_tokens, one a key; else all begin at its
// first_token.
inline StorePart SliceOf(const StorePart& part, uint32_t first, uint32_t count) {
  StorePart slice;
  slice.namespace_digest = part.namespace_digest;
  slice.salt = part.salt;
  slice.rule = part.rule;
  slice.key_bytes = part.key_bytes;
  slice.keys = part.keys.substr(size_t{first} * part.key_bytes, size_t{count} * part.key_bytes);
  slice.first_token = part.first_token;
  slice.window_tokens = part.window_tokens;
  if (!part.end_tokens.empty()) {
    slice.first_token = first == 0 ? part.first_token : part.end_tokens[first - 1];
    slice.end_tokens.assign(part.end_tokens.begin() + first,
                            part.end_tokens.begin() + first + count);
  }
  return slice;
}

}  // namespace terrace
