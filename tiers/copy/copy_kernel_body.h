// The copies, written over `Stripe`: 64 bytes in vector registers, which the including file defines
// for its instruction set together with what XXH3 does to them. Everything here has internal
// linkage on purpose; see copy_kernels.h.
//
// One pass: a stripe is loaded once; its hash and the store to the destination are made from the
// registers, so that what is stored is what was hashed, whatever else writes to the source
// meanwhile. Only where a stripe straddles two pieces, or the destination is not aligned, does it
// go through a buffer on the stack.
//
// Hash: XXH3 128 bits, long inputs, seed 0 and the default secret, as specified in
// doc/xxhash_spec.md of xxHash 0.8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tiers/copy/copy_kernels.h"

// NOLINTBEGIN(cert-dcl59-cpp,misc-definitions-in-headers): see above
namespace terrace {
namespace {

constexpr size_t kStripeBytes = 64;
constexpr size_t kStripesPerBlock = 16;
constexpr size_t kSecretBytes = 192;
constexpr size_t kSecretStep = 8;
// How much of an unaligned destination is gathered in L1 before it is streamed out.
constexpr size_t kBounceBytes = 4096;

constexpr uint64_t kPrime32x1 = 0x9E3779B1U;
constexpr uint64_t kPrime32x2 = 0x85EBCA77U;
constexpr uint64_t kPrime32x3 = 0xC2B2AE3DU;
constexpr uint64_t kPrime64x1 = 0x9E3779B185EBCA87U;
constexpr uint64_t kPrime64x2 = 0xC2B2AE3D27D4EB4FU;
constexpr uint64_t kPrime64x3 = 0x165667B19E3779F9U;
constexpr uint64_t kPrime64x4 = 0x85EBCA77C2B2AE63U;
constexpr uint64_t kPrime64x5 = 0x27D4EB2F165667C5U;

alignas(64) constexpr uint64_t kInitialLanes[8] = {kPrime32x3, kPrime64x1, kPrime64x2, kPrime64x3,
                                                   kPrime64x4, kPrime32x2, kPrime64x5, kPrime32x1};

alignas(64) constexpr unsigned char kSecret[kSecretBytes] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

inline const char* SecretAt(size_t offset) {
  return reinterpret_cast<const char*>(kSecret) + offset;
}

inline uint64_t ReadWord(const char* at) {
  uint64_t word = 0;
  memcpy(&word, at, sizeof(word));
  return word;
}

__extension__ using Product = unsigned __int128;

inline uint64_t FoldProduct(uint64_t a, uint64_t b) {
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t MergeLanes(const uint64_t* lanes, const char* secret, uint64_t start) {
  uint64_t sum = start;
  for (size_t i = 0; i < 4; ++i) {
    sum += FoldProduct(lanes[2 * i] ^ ReadWord(secret + 16 * i),
                       lanes[2 * i + 1] ^ ReadWord(secret + 16 * i + 8));
  }
  sum ^= sum >> 37;
  sum *= 0x165667919E3779F9U;
  return sum ^ (sum >> 32);
}

// The hash so far and where in its block the next stripe falls.
class Hasher {
 public:
  inline void Add(const Stripe& stripe) {
    lanes_.Accumulate(stripe, SecretAt(kSecretStep * in_block_));
    if (++in_block_ == kStripesPerBlock) {
      lanes_.Scramble(SecretAt(kSecretBytes - kStripeBytes));
      in_block_ = 0;
    }
  }

  // Whole blocks from a block boundary on; `sink` gets each stripe with its number. The lanes are a
  // local, because the compiler would write a member back for every stripe: the sink may read it
  // for all it knows.
  template <typename Sink>
  inline void AddBlocks(const char* source, size_t blocks, Sink sink) {
    Stripe lanes = lanes_;
    for (size_t block = 0; block < blocks; ++block) {
      const char* const at = source + block * kStripesPerBlock * kStripeBytes;
#pragma GCC unroll 4
      for (size_t i = 0; i < kStripesPerBlock; ++i) {
        const Stripe stripe = Stripe::Load(at + i * kStripeBytes);
        lanes.Accumulate(stripe, SecretAt(kSecretStep * i));
        sink(block * kStripesPerBlock + i, stripe);
      }
      lanes.Scramble(SecretAt(kSecretBytes - kStripeBytes));
    }
    lanes_ = lanes;
  }

  template <typename Sink>
  inline void AddStripes(const char* source, size_t stripes, Sink sink) {
    size_t done = 0;
    for (; done < stripes && in_block_ != 0; ++done) {
      AddOne(source, done, sink);
    }
    const size_t blocks = (stripes - done) / kStripesPerBlock;
    const size_t first = done;
    AddBlocks(source + first * kStripeBytes, blocks,
              [&](size_t i, const Stripe& stripe) { sink(first + i, stripe); });
    for (done += blocks * kStripesPerBlock; done < stripes; ++done) {
      AddOne(source, done, sink);
    }
  }

  // `last` is the 64 bytes at the end of the payload, which overlap with the stripe before.
  KernelDigest Finish(const char* last, uint64_t payload_bytes) {
    lanes_.Accumulate(Stripe::Load(last), SecretAt(kSecretBytes - kStripeBytes - 7));
    alignas(64) uint64_t lanes[8];
    lanes_.Store(reinterpret_cast<char*>(lanes));
    return {MergeLanes(lanes, SecretAt(kSecretBytes - kStripeBytes - 11),
                       ~(payload_bytes * kPrime64x2)),
            MergeLanes(lanes, SecretAt(11), payload_bytes * kPrime64x1)};
  }

 private:
  template <typename Sink>
  inline void AddOne(const char* source, size_t i, Sink sink) {
    const Stripe stripe = Stripe::Load(source + i * kStripeBytes);
    Add(stripe);
    sink(i, stripe);
  }

  Stripe lanes_ = Stripe::Load(reinterpret_cast<const char*>(kInitialLanes));
  size_t in_block_ = 0;
};

inline bool Aligned(const char* at) {
  return reinterpret_cast<uintptr_t>(at) % kStripeBytes == 0;
}

// Non-temporal copy. A stripe a turn: neither more of them nor prefetching made it faster, with any
// size of page (tests/bench/one_pass_bench.cc).
inline void StreamOut(const char* source, char* destination, size_t bytes) {
  const size_t head =
      (kStripeBytes - reinterpret_cast<uintptr_t>(destination) % kStripeBytes) % kStripeBytes;
  if (bytes < head + kStripeBytes) {
    memcpy(destination, source, bytes);
    return;
  }
  memcpy(destination, source, head);
  source += head;
  destination += head;
  bytes -= head;
  for (; bytes >= kStripeBytes; bytes -= kStripeBytes) {
    Stripe::Load(source).Stream(destination);
    source += kStripeBytes;
    destination += kStripeBytes;
  }
  memcpy(destination, source, bytes);
}

// Hashes whole stripes and stores them.
inline void HashAndStream(Hasher& hasher, const char* source, char* destination, size_t stripes) {
  if (Aligned(destination)) {
    hasher.AddStripes(source, stripes,
                      [=](size_t i, const Stripe& s) { s.Stream(destination + i * kStripeBytes); });
    return;
  }
  alignas(kStripeBytes) char bounce[kBounceBytes];
  while (stripes > 0) {
    const size_t step =
        stripes < kBounceBytes / kStripeBytes ? stripes : kBounceBytes / kStripeBytes;
    hasher.AddStripes(source, step,
                      [&](size_t i, const Stripe& s) { s.Store(bounce + i * kStripeBytes); });
    StreamOut(bounce, destination, step * kStripeBytes);
    source += step * kStripeBytes;
    destination += step * kStripeBytes;
    stripes -= step;
  }
}

// The end of a payload: the last two stripes, of which the first is whole and the second may be
// short. A stripe that straddles pieces is gathered here too.
struct Tail {
  alignas(kStripeBytes) char bytes[2 * kStripeBytes];
  [[nodiscard]] char* stripe() { return bytes + kStripeBytes; }
  // The gathered stripe becomes the one before.
  void Shift() { memcpy(bytes, bytes + kStripeBytes, kStripeBytes); }
};

// Copies pieces to one place. The last whole stripe before the end goes through the tail, because
// its bytes are hashed a second time in the overlapping last stripe and must not be read from the
// source again.
KernelDigest CopyAndHash(const ConstPiece* source, size_t pieces, char* destination) {
  uint64_t payload_bytes = 0;
  for (size_t i = 0; i < pieces; ++i) {
    payload_bytes += source[i].bytes;
  }
  Hasher hasher;
  Tail tail;
  size_t gathered = 0;
  size_t stripes_left = (payload_bytes - 1) / kStripeBytes;
  for (size_t i = 0; i < pieces; ++i) {
    const char* at = source[i].data;
    size_t left = source[i].bytes;
    while (left > 0) {
      if (gathered == 0 && stripes_left > 1 && left >= kStripeBytes) {
        const size_t whole = left / kStripeBytes;
        const size_t direct = whole < stripes_left ? whole : stripes_left - 1;
        HashAndStream(hasher, at, destination, direct);
        at += direct * kStripeBytes;
        destination += direct * kStripeBytes;
        left -= direct * kStripeBytes;
        stripes_left -= direct;
        continue;
      }
      const size_t room = kStripeBytes - gathered;
      const size_t part = left < room ? left : room;
      memcpy(tail.stripe() + gathered, at, part);
      gathered += part;
      at += part;
      left -= part;
      if (gathered == kStripeBytes && stripes_left > 0) {
        HashAndStream(hasher, tail.stripe(), destination, 1);
        destination += kStripeBytes;
        tail.Shift();
        gathered = 0;
        --stripes_left;
      }
    }
  }
  memcpy(destination, tail.stripe(), gathered);
  Stripe::Fence();
  return hasher.Finish(tail.bytes + gathered, payload_bytes);
}

void CopyOut(const char* source, const Piece* destination, size_t pieces) {
  for (size_t i = 0; i < pieces; ++i) {
    StreamOut(source, destination[i].data, destination[i].bytes);
    source += destination[i].bytes;
  }
  Stripe::Fence();
}

KernelDigest Hash(const char* payload, size_t bytes) {
  Hasher hasher;
  hasher.AddStripes(payload, (bytes - 1) / kStripeBytes, [](size_t, const Stripe&) {});
  return hasher.Finish(payload + bytes - kStripeBytes, bytes);
}

// The source is the arena, which nobody else writes: a stripe that straddles two pieces is read
// again to be copied, and the last one to be hashed.
KernelDigest CopyOutAndHash(const char* source, const Piece* destination, size_t pieces) {
  uint64_t payload_bytes = 0;
  for (size_t i = 0; i < pieces; ++i) {
    payload_bytes += destination[i].bytes;
  }
  Hasher hasher;
  const char* const end = source + payload_bytes;
  size_t stripes_left = (payload_bytes - 1) / kStripeBytes;
  size_t hashed_ahead = 0;  // bytes at `source` that a straddling stripe has hashed already
  for (size_t i = 0; i < pieces; ++i) {
    char* to = destination[i].data;
    size_t left = destination[i].bytes;
    const size_t ahead = hashed_ahead < left ? hashed_ahead : left;
    StreamOut(source, to, ahead);
    source += ahead;
    to += ahead;
    left -= ahead;
    hashed_ahead -= ahead;
    const size_t whole = left / kStripeBytes;
    const size_t direct = whole < stripes_left ? whole : stripes_left;
    HashAndStream(hasher, source, to, direct);
    source += direct * kStripeBytes;
    to += direct * kStripeBytes;
    left -= direct * kStripeBytes;
    stripes_left -= direct;
    if (left > 0) {
      if (stripes_left > 0) {
        hasher.Add(Stripe::Load(source));
        --stripes_left;
        hashed_ahead = kStripeBytes - left;
      }
      StreamOut(source, to, left);
      source += left;
    }
  }
  Stripe::Fence();
  return hasher.Finish(end - kStripeBytes, payload_bytes);
}

constexpr CopyKernels kKernels = {CopyAndHash, CopyOut, CopyOutAndHash, Hash};

}  // namespace
}  // namespace terrace
// NOLINTEND(cert-dcl59-cpp,misc-definitions-in-headers)
