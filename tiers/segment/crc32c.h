// CRC-32C (Castagnoli, as in RFC 3720), which detects every burst of up to 32 bits in a page.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace terrace {

// Of `bytes` after what `before` is the CRC of. By the CPU's instruction where it has one.
uint32_t Crc32c(absl::Span<const char> bytes, uint32_t before = 0);

// The same in plain C++, to be compared with.
uint32_t Crc32cPortable(absl::Span<const char> bytes, uint32_t before = 0);

// Of a page in which the four bytes at `hole` count as zeros: where its own CRC is kept.
uint32_t PageCrc32c(absl::Span<const char> page, size_t hole);

}  // namespace terrace
