// Chooses the copy kernel, and treats payloads too short for one.
#include "tiers/copy/one_pass.h"

#define XXH_INLINE_ALL  // the distribution's library is built for SSE2 alone, and this one is not
                        // called across
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "absl/types/span.h"
#include <xxhash.h>

#include "tiers/copy/copy_kernels.h"
#include "tiers/vocab/block_key.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

const CopyKernels* KernelsOf(CopyKernel kernel) {
#if defined(__x86_64__)
  switch (kernel) {
    case CopyKernel::kBaseline:
      return &kBaselineKernels;
    case CopyKernel::kAvx2:
      return &kAvx2Kernels;
    case CopyKernel::kAvx512:
      return &kAvx512Kernels;
  }
#endif
  return kernel == CopyKernel::kBaseline ? &kBaselineKernels : nullptr;
}

CopyKernel BestKernel() {
  constexpr CopyKernel kBestFirst[] = {CopyKernel::kAvx512, CopyKernel::kAvx2,
                                       CopyKernel::kBaseline};
  const char* const wanted = std::getenv("TERRACE_COPY_KERNEL");
  for (const CopyKernel kernel : kBestFirst) {
    if (wanted != nullptr && CopyKernelName(kernel) == wanted && CopyKernelSupported(kernel)) {
      return kernel;
    }
  }
  for (const CopyKernel kernel : kBestFirst) {
    if (CopyKernelSupported(kernel)) {
      return kernel;
    }
  }
  return CopyKernel::kBaseline;
}

std::atomic<CopyKernel>& Active() {
  static std::atomic<CopyKernel> active{BestKernel()};
  return active;
}

const CopyKernels& Kernels() {
  return *KernelsOf(Active().load(std::memory_order_relaxed));
}

uint64_t TotalBytes(absl::Span<const ConstPiece> pieces) {
  uint64_t bytes = 0;
  for (const ConstPiece& piece : pieces) {
    bytes += piece.bytes;
  }
  return bytes;
}

void CheckSizes(absl::Span<const char> source, absl::Span<const Piece> destination) {
  uint64_t bytes = 0;
  for (const Piece& piece : destination) {
    bytes += piece.bytes;
  }
  TERRACE_CHECK(bytes == source.size());
}

Digest128 FromKernel(KernelDigest digest) {
  return {digest.high, digest.low};
}

Digest128 HashShort(const char* payload, size_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(payload, bytes);
  return {hash.high64, hash.low64};
}

}  // namespace

Digest128 CopyAndHash(absl::Span<const ConstPiece> source, char* destination) {
  const uint64_t bytes = TotalBytes(source);
  if (bytes > kMaxShortPayload) {
    return FromKernel(Kernels().copy_and_hash(source.data(), source.size(), destination));
  }
  char gathered[kMaxShortPayload];
  size_t at = 0;
  for (const ConstPiece& piece : source) {
    if (piece.bytes > 0) {
      std::memcpy(gathered + at, piece.data, piece.bytes);
    }
    at += piece.bytes;
  }
  if (at > 0) {
    std::memcpy(destination, gathered, at);
  }
  return HashShort(gathered, at);
}

void CopyOut(absl::Span<const char> source, absl::Span<const Piece> destination) {
  CheckSizes(source, destination);
  Kernels().copy_out(source.data(), destination.data(), destination.size());
}

Digest128 CopyOutAndHash(absl::Span<const char> source, absl::Span<const Piece> destination) {
  CheckSizes(source, destination);
  if (source.size() > kMaxShortPayload) {
    return FromKernel(
        Kernels().copy_out_and_hash(source.data(), destination.data(), destination.size()));
  }
  Kernels().copy_out(source.data(), destination.data(), destination.size());
  return HashShort(source.data(), source.size());
}

Digest128 HashPayload(absl::Span<const char> payload) {
  if (payload.size() > kMaxShortPayload) {
    return FromKernel(Kernels().hash(payload.data(), payload.size()));
  }
  return HashShort(payload.data(), payload.size());
}

CopyKernel ActiveCopyKernel() {
  return Active().load();
}

std::string_view CopyKernelName(CopyKernel kernel) {
  switch (kernel) {
    case CopyKernel::kBaseline:
      return "baseline";
    case CopyKernel::kAvx2:
      return "avx2";
    case CopyKernel::kAvx512:
      return "avx512";
  }
  return "?";
}

bool CopyKernelSupported(CopyKernel kernel) {
  switch (kernel) {
    case CopyKernel::kBaseline:
      return true;
#if defined(__x86_64__)
    // Both also ask whether the system saves the wide registers.
    case CopyKernel::kAvx2:
      return __builtin_cpu_supports("avx2") != 0;
    case CopyKernel::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0;
#else
    case CopyKernel::kAvx2:
    case CopyKernel::kAvx512:
      return false;
#endif
  }
  return false;
}

void SetCopyKernel(CopyKernel kernel) {
  TERRACE_CHECK(CopyKernelSupported(kernel));
  Active().store(kernel);
}

}  // namespace terrace
