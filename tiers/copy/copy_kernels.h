// The copies compiled per instruction set; one_pass.cc chooses among them.
//
// Each copy_kernel_*.cc is compiled with flags of its own. So that no inline function of a shared
// header is emitted with instructions that this CPU may not have, those files include nothing but
// this, copy_kernel_body.h and intrinsics.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tiers/copy/piece.h"

namespace terrace {

// Payloads up to here have a hash function of their own (XXH3_MIDSIZE_MAX); the kernels hash longer
// ones only.
inline constexpr size_t kMaxShortPayload = 240;

struct KernelDigest {
  uint64_t high = 0;
  uint64_t low = 0;
};

// All pieces of an operation have kMaxShortPayload + 1 bytes or more together, but for copy_out,
// which takes any.
struct CopyKernels {
  KernelDigest (*copy_and_hash)(const ConstPiece* source, size_t pieces, char* destination);
  void (*copy_out)(const char* source, const Piece* destination, size_t pieces);
  KernelDigest (*copy_out_and_hash)(const char* source, const Piece* destination, size_t pieces);
  KernelDigest (*hash)(const char* payload, size_t bytes);
};

extern const CopyKernels kBaselineKernels;
#if defined(__x86_64__)
extern const CopyKernels kAvx2Kernels;
extern const CopyKernels kAvx512Kernels;
#endif

}  // namespace terrace
