// The copy kernels for any x86-64 (SSE2), and in portable C++ for everything else.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tiers/copy/copy_kernels.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace terrace {
namespace {

#if defined(__x86_64__)

struct Stripe {
  __m128i v[4];

  static inline Stripe Load(const char* at) {
    Stripe s{{LoadLane(at), LoadLane(at + 16), LoadLane(at + 32), LoadLane(at + 48)}};
    // The compiler must not read the source again instead of keeping the registers.
    __asm__ volatile("" : "+x"(s.v[0]), "+x"(s.v[1]), "+x"(s.v[2]), "+x"(s.v[3]));
    return s;
  }
  inline void Store(char* at) const {
    for (size_t i = 0; i < 4; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 16 * i), v[i]);
    }
  }
  inline void Stream(char* at) const {
    for (size_t i = 0; i < 4; ++i) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(at + 16 * i), v[i]);
    }
  }
  static inline void Fence() { _mm_sfence(); }

  inline void Accumulate(const Stripe& stripe, const char* secret) {
    for (size_t i = 0; i < 4; ++i) {
      const __m128i keyed = _mm_xor_si128(stripe.v[i], LoadLane(secret + 16 * i));
      const __m128i product = _mm_mul_epu32(keyed, _mm_srli_epi64(keyed, 32));
      const __m128i swapped = _mm_shuffle_epi32(stripe.v[i], _MM_SHUFFLE(1, 0, 3, 2));
      v[i] = _mm_add_epi64(v[i], _mm_add_epi64(product, swapped));
    }
  }
  inline void Scramble(const char* secret) {
    const __m128i prime = _mm_set1_epi32(static_cast<int>(0x9E3779B1U));
    for (size_t i = 0; i < 4; ++i) {
      const __m128i mixed =
          _mm_xor_si128(_mm_xor_si128(v[i], _mm_srli_epi64(v[i], 47)), LoadLane(secret + 16 * i));
      const __m128i low = _mm_mul_epu32(mixed, prime);
      const __m128i high = _mm_mul_epu32(_mm_srli_epi64(mixed, 32), prime);
      v[i] = _mm_add_epi64(low, _mm_slli_epi64(high, 32));
    }
  }

 private:
  static inline __m128i LoadLane(const char* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  }
};

#else

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "XXH3 reads little-endian words");

struct Stripe {
  uint64_t v[8];

  static inline Stripe Load(const char* at) {
    Stripe s;
    memcpy(s.v, at, sizeof(s.v));
    // The compiler must not read the source again instead of keeping the copy.
    __asm__ volatile("" : "+m"(s.v));
    return s;
  }
  inline void Store(char* at) const { memcpy(at, v, sizeof(v)); }
  inline void Stream(char* at) const { Store(at); }
  static inline void Fence() {}

  inline void Accumulate(const Stripe& stripe, const char* secret) {
    for (size_t i = 0; i < 8; ++i) {
      const uint64_t keyed = stripe.v[i] ^ Word(secret + 8 * i);
      v[i ^ 1] += stripe.v[i];
      v[i] += (keyed & 0xffffffffU) * (keyed >> 32);
    }
  }
  inline void Scramble(const char* secret) {
    for (size_t i = 0; i < 8; ++i) {
      v[i] = (v[i] ^ (v[i] >> 47) ^ Word(secret + 8 * i)) * 0x9E3779B1U;
    }
  }

 private:
  static inline uint64_t Word(const char* at) {
    uint64_t word = 0;
    memcpy(&word, at, sizeof(word));
    return word;
  }
};

#endif

}  // namespace
}  // namespace terrace

#include "tiers/copy/copy_kernel_body.h"

namespace terrace {

constexpr CopyKernels kBaselineKernels = kKernels;

}  // namespace terrace
