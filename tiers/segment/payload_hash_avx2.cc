// Compiled with -mavx2; everything of xxHash is static here, so that nothing of it leaks out.
#define XXH_INLINE_ALL
#include <cstdint>

#include <xxhash.h>

#include "tiers/segment/payload_hash.h"

namespace terrace::hash_kernels {

Digest128 ChecksumForAvx2(const char* payload, uint64_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(payload, bytes);
  return {hash.high64, hash.low64};
}

}  // namespace terrace::hash_kernels
