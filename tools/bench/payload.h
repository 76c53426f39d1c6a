// Payloads made from (namespace, key), so that any byte that comes back can be checked without
// keeping what was stored.
//
// Word i (64 bits, little-endian) of a payload is a mix of a seed, itself a mix of namespace and
// key, and i. Filling and checking run at memory speed. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace terrace::bench {

// Of one namespace: everything that has to do with its keys and bytes.
class PayloadSource {
 public:
  // space: any number that tells this namespace's bytes from another's.
  explicit PayloadSource(uint64_t space) : space_(space) {}

  // The key of the block called `name`: key_bytes (16 to 64) bytes that depend on nothing but the
  // two.
  [[nodiscard]] std::string Key(uint64_t name, uint32_t key_bytes) const;
  // Keys end to end.
  [[nodiscard]] std::string Keys(absl::Span<const uint64_t> names, uint32_t key_bytes) const;

  void Fill(std::string_view key, absl::Span<char> out) const;
  // Bytes of `payload` that are not what Fill would have written.
  [[nodiscard]] uint64_t WrongBytes(std::string_view key, absl::Span<const char> payload) const;

 private:
  [[nodiscard]] uint64_t Seed(std::string_view key) const;

  uint64_t space_;
};

}  // namespace terrace::bench
