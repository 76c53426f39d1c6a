// The copy kernels for AVX2.
#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "tiers/copy/copy_kernels.h"

namespace terrace {
namespace {

struct Stripe {
  __m256i a, b;

  static inline Stripe Load(const char* at) {
    Stripe s{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)),
             _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32))};
    // The compiler must not read the source again instead of keeping the registers.
    __asm__ volatile("" : "+x"(s.a), "+x"(s.b));
    return s;
  }
  inline void Store(char* at) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + 32), b);
  }
  inline void Stream(char* at) const {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(at + 32), b);
  }
  static inline void Fence() { _mm_sfence(); }

  inline void Accumulate(const Stripe& stripe, const char* secret) {
    a = Accumulate(a, stripe.a, secret);
    b = Accumulate(b, stripe.b, secret + 32);
  }
  inline void Scramble(const char* secret) {
    a = Scramble(a, secret);
    b = Scramble(b, secret + 32);
  }

 private:
  static inline __m256i Key(const char* secret) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(secret));
  }
  static inline __m256i Accumulate(__m256i lanes, __m256i input, const char* secret) {
    const __m256i keyed = _mm256_xor_si256(input, Key(secret));
    const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    const __m256i swapped = _mm256_shuffle_epi32(input, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(lanes, _mm256_add_epi64(product, swapped));
  }
  static inline __m256i Scramble(__m256i lanes, const char* secret) {
    const __m256i prime = _mm256_set1_epi32(static_cast<int>(0x9E3779B1U));
    const __m256i mixed =
        _mm256_xor_si256(_mm256_xor_si256(lanes, _mm256_srli_epi64(lanes, 47)), Key(secret));
    const __m256i low = _mm256_mul_epu32(mixed, prime);
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
    return _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
  }
};

}  // namespace
}  // namespace terrace

#include "tiers/copy/copy_kernel_body.h"

namespace terrace {

constexpr CopyKernels kAvx2Kernels = kKernels;

}  // namespace terrace
