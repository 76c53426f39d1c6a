// The names of things: keys, digests, scopes.
//
// A block's identity is (scope, key). A scope is one (tenant, namespace, generation, salt); the
// daemon interns it into a ScopeId, so that identity in the index is 4 + 16..64 bytes and a raised
// generation is simply another scope. All types here are immutable values.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace terrace {

inline constexpr uint32_t kMinKeyBytes = 16;
inline constexpr uint32_t kMaxKeyBytes = 64;
inline constexpr uint32_t kMaxSaltBytes = 256;
inline constexpr uint64_t kMaxPayloadBytes = uint64_t{64} << 20;

// 128 bits that name something: a namespace, a family, a lease, a hold, or a payload's XXH3-128.
struct Digest128 {
  uint64_t hi = 0;
  uint64_t lo = 0;

  friend bool operator==(const Digest128&, const Digest128&) = default;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the zero of <=> for a pointer
  friend auto operator<=>(const Digest128&, const Digest128&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Digest128& d) {
    return H::combine(std::move(h), d.hi, d.lo);
  }
  [[nodiscard]] bool IsZero() const { return hi == 0 && lo == 0; }

  // 16 bytes, hi first, each big-endian: the order in which the digest is written as text.
  [[nodiscard]] std::string ToBytes() const;
  [[nodiscard]] std::string ToHex() const;
  // False when `bytes` is not exactly 16 long; *out is then untouched.
  static bool FromBytes(std::string_view bytes, Digest128* out);
};

// A key borrowed from a request: 16 to 64 bytes (kMinKeyBytes..kMaxKeyBytes) unless the caller has
// yet to check it.
using KeyView = std::string_view;

enum class TenantId : uint32_t {};
enum class NamespaceId : uint32_t {};  // index of an open namespace, in this process only
enum class ScopeId : uint32_t {};  // index of a (namespace, generation, salt), in this process only
enum class SlabId : uint32_t {};   // never reused within a boot
enum class BlockId : uint32_t {};  // index of a block's metadata; reused when the block is gone
enum class SessionId : uint64_t {};  // never reused within a boot; 0 is no session (gRPC callers)

inline constexpr BlockId kNoBlock{0xffffffffU};
inline constexpr SessionId kNoSession{0};

}  // namespace terrace
