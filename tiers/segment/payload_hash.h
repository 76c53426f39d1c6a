// XXH3-128 of a payload (github.com/Cyan4973/xxHash, specification of XXH3), as BlockStore records
// it.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

// Compiled for AVX2 too, and chosen at first use: the reader hashes every byte that it delivers.
Digest128 PayloadChecksum(absl::Span<const char> payload);

// A block's identity in 128 bits. Not a proof: whoever reads compares the identity in full. `seed`
// is the tier's own, so that collisions made for one tier mean nothing to another.
Digest128 IdentityFingerprint(const Digest128& namespace_digest,
                              uint64_t generation,
                              std::string_view salt,
                              KeyView key,
                              uint64_t seed);

namespace hash_kernels {
Digest128 ChecksumForAvx2(const char* payload, uint64_t bytes);
}  // namespace hash_kernels

}  // namespace terrace
