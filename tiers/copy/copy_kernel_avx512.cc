// The copy kernels for AVX-512 (foundation instructions alone).
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "tiers/copy/copy_kernels.h"

namespace terrace {
namespace {

struct Stripe {
  __m512i v;

  static inline Stripe Load(const char* at) {
    Stripe s{_mm512_loadu_si512(at)};
    // The compiler must not read the source again instead of keeping the register.
    __asm__ volatile("" : "+v"(s.v));
    return s;
  }
  inline void Store(char* at) const { _mm512_storeu_si512(at, v); }
  inline void Stream(char* at) const { _mm512_stream_si512(reinterpret_cast<__m512i*>(at), v); }
  static inline void Fence() { _mm_sfence(); }

  inline void Accumulate(const Stripe& stripe, const char* secret) {
    const __m512i keyed = _mm512_xor_si512(stripe.v, _mm512_loadu_si512(secret));
    const __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
    const __m512i swapped =
        _mm512_shuffle_epi32(stripe.v, static_cast<_MM_PERM_ENUM>(_MM_SHUFFLE(1, 0, 3, 2)));
    v = _mm512_add_epi64(v, _mm512_add_epi64(product, swapped));
  }
  inline void Scramble(const char* secret) {
    const __m512i prime = _mm512_set1_epi32(static_cast<int>(0x9E3779B1U));
    const __m512i mixed =
        _mm512_xor_si512(_mm512_xor_si512(v, _mm512_srli_epi64(v, 47)), _mm512_loadu_si512(secret));
    const __m512i low = _mm512_mul_epu32(mixed, prime);
    const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
    v = _mm512_add_epi64(low, _mm512_slli_epi64(high, 32));
  }
};

}  // namespace
}  // namespace terrace

#include "tiers/copy/copy_kernel_body.h"

namespace terrace {

constexpr CopyKernels kAvx512Kernels = kKernels;

}  // namespace terrace
