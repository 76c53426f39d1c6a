// Fields of a format one after the other, little-endian, whatever the host is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/check.h"

namespace terrace {

// Thread-compatible. Writing beyond the end breaks an invariant.
class FieldWriter {
 public:
  explicit FieldWriter(absl::Span<char> out) : out_(out) {}

  void U8(uint8_t value) { Number(value, 1); }
  void U16(uint16_t value) { Number(value, 2); }
  void U32(uint32_t value) { Number(value, 4); }
  void U64(uint64_t value) { Number(value, 8); }
  void Digest(const Digest128& digest) {
    U64(digest.hi);
    U64(digest.lo);
  }
  void Bytes(std::string_view bytes) {
    TERRACE_CHECK(bytes.size() <= out_.size() - at_);
    if (!bytes.empty()) {
      std::memcpy(out_.data() + at_, bytes.data(), bytes.size());
    }
    at_ += bytes.size();
  }
  void ZerosUpTo(size_t position) {
    TERRACE_CHECK(at_ <= position && position <= out_.size());
    std::memset(out_.data() + at_, 0, position - at_);
    at_ = position;
  }
  [[nodiscard]] size_t position() const { return at_; }

 private:
  void Number(uint64_t value, size_t bytes) {
    TERRACE_CHECK(bytes <= out_.size() - at_);
    for (size_t i = 0; i < bytes; ++i) {
      out_[at_ + i] = static_cast<char>(value >> (8 * i));
    }
    at_ += bytes;
  }

  const absl::Span<char> out_;
  size_t at_ = 0;
};

// Thread-compatible. Reading beyond the end yields zeros and makes ok() false for good.
class FieldReader {
 public:
  explicit FieldReader(absl::Span<const char> in) : in_(in) {}

  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  Digest128 Digest() {
    Digest128 digest;
    digest.hi = U64();
    digest.lo = U64();
    return digest;
  }
  std::string_view Bytes(size_t bytes) {
    if (!Has(bytes)) {
      return {};
    }
    at_ += bytes;
    return {in_.data() + at_ - bytes, bytes};
  }
  // Whether all up to `position` is zero.
  bool ZerosUpTo(size_t position) {
    if (at_ >= position) {
      return ok_;
    }
    const size_t bytes = position - at_;
    if (!Has(bytes)) {
      return false;
    }
    const char* begin = in_.data() + at_;
    at_ = position;
    return *begin == 0 && std::memcmp(begin, begin + 1, bytes - 1) == 0;
  }
  void SkipTo(size_t position) { Bytes(position - at_); }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] size_t position() const { return at_; }

 private:
  bool Has(size_t bytes) {
    ok_ = ok_ && bytes <= in_.size() - at_;
    return ok_;
  }
  uint64_t Number(size_t bytes) {
    uint64_t value = 0;
    if (Has(bytes)) {
      for (size_t i = 0; i < bytes; ++i) {
        value |= static_cast<uint64_t>(static_cast<uint8_t>(in_[at_ + i])) << (8 * i);
      }
      at_ += bytes;
    }
    return value;
  }

  const absl::Span<const char> in_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace terrace
