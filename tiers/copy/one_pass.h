// The copies of the data path: one pass over memory that copies and hashes.
//
// Source is read once into vector registers, hashed from there and stored from there with
// non-temporal stores, so that a client that scribbles meanwhile cannot make the hash differ from
// the bytes stored. Hash: XXH3-128, seed 0, equal to XXH3_128bits of the whole payload. Compiled
// for baseline x86-64 (and portable C), AVX2 and AVX-512; the best that this CPU has is chosen at
// first use; TERRACE_COPY_KERNEL=baseline|avx2|avx512 in the environment overrides it. All
// functions are thread-safe and allocate nothing. Buffers may have any alignment; 64-byte aligned
// destinations are fastest.
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/copy/piece.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// Copies the pieces end to end to `destination`, returns the hash of what was stored.
Digest128 CopyAndHash(absl::Span<const ConstPiece> source, char* destination);

// Non-temporal copy of `source` into the pieces; their sizes sum to source.size().
void CopyOut(absl::Span<const char> source, absl::Span<const Piece> destination);

// The same, and returns the hash of `source` as read by this very pass.
Digest128 CopyOutAndHash(absl::Span<const char> source, absl::Span<const Piece> destination);

Digest128 HashPayload(absl::Span<const char> payload);

enum class CopyKernel : unsigned char { kBaseline, kAvx2, kAvx512 };
CopyKernel ActiveCopyKernel();
std::string_view CopyKernelName(CopyKernel kernel);
bool CopyKernelSupported(CopyKernel kernel);
// As the environment override, for tests and benchmarks; must be supported. Not to be called while
// copies run.
void SetCopyKernel(CopyKernel kernel);

}  // namespace terrace
