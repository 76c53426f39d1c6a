// Which pages of a piece of memory are free: first fit, neighbours joined. Pure, no memory touched.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <optional>

#include "tiers/vocab/check.h"

namespace terrace {

// Thread-compatible. Offsets and sizes are multiples of kPageBytes.
class PageRanges {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  explicit PageRanges(uint64_t bytes) : bytes_(bytes) {
    TERRACE_CHECK(bytes % kPageBytes == 0);
    if (bytes > 0) {
      free_[0] = bytes;
    }
  }

  // nullopt: no free range is that long.
  std::optional<uint64_t> Take(uint64_t bytes) {
    TERRACE_CHECK(bytes > 0 && bytes % kPageBytes == 0);
    for (auto range = free_.begin(); range != free_.end(); ++range) {
      const auto [offset, length] = *range;
      if (length < bytes) {
        continue;
      }
      free_.erase(range);
      if (length > bytes) {
        free_[offset + bytes] = length - bytes;
      }
      used_ += bytes;
      return offset;
    }
    return std::nullopt;
  }

  // What was taken, as it was taken.
  void Give(uint64_t offset, uint64_t bytes) {
    TERRACE_CHECK(bytes <= used_ && offset + bytes <= bytes_);
    used_ -= bytes;
    auto next = free_.lower_bound(offset);
    TERRACE_CHECK(next == free_.end() || offset + bytes <= next->first);
    if (next != free_.end() && next->first == offset + bytes) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      TERRACE_CHECK(before->first + before->second <= offset);
      if (before->first + before->second == offset) {
        before->second += bytes;
        return;
      }
    }
    free_[offset] = bytes;
  }

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] uint64_t used() const { return used_; }
  [[nodiscard]] size_t pieces() const { return free_.size(); }

 private:
  const uint64_t bytes_;
  uint64_t used_ = 0;
  std::map<uint64_t, uint64_t> free_;  // length by offset
};

}  // namespace terrace
