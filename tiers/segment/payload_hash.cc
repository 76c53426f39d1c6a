#include "tiers/segment/payload_hash.h"

#define XXH_INLINE_ALL  // the distribution's library is built for SSE2 alone
#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include <xxhash.h>

#include "tiers/vocab/block_key.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {

Digest128 PayloadChecksum(absl::Span<const char> payload) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) {
    return hash_kernels::ChecksumForAvx2(payload.data(), payload.size());
  }
#endif
  const XXH128_hash_t hash = XXH3_128bits(payload.data(), payload.size());
  return {hash.high64, hash.low64};
}

Digest128 IdentityFingerprint(const Digest128& namespace_digest,
                              uint64_t generation,
                              std::string_view salt,
                              KeyView key,
                              uint64_t seed) {
  std::array<char, 32 + kMaxSaltBytes + kMaxKeyBytes> bytes;
  FieldWriter writer(absl::MakeSpan(bytes));
  writer.Digest(namespace_digest);
  writer.U64(generation);
  writer.U16(static_cast<uint16_t>(salt.size()));
  writer.U16(static_cast<uint16_t>(key.size()));
  writer.Bytes(salt);
  writer.Bytes(key);
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), writer.position(), seed);
  return {hash.high64, hash.low64};
}

}  // namespace terrace
