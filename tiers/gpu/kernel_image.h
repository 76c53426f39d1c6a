// The compiled kernels of gather_kernels.cu, as they lie in this binary, or in the file that the
// environment's TERRACE_GATHER_KERNELS names: a host may have a driver that is older than the
// compiler of this build, and a compiler that fits it.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"

namespace terrace {

// For cuModuleLoadData; valid as long as the process. Empty: a build without nvcc, or a file that
// cannot be read.
absl::Span<const char> KernelImage();

// Of pieces that are gathered the largest, in bytes, where the environment's
// TERRACE_GATHER_PIECE_BYTES says it: for hosts on which measuring it comes out wrong. nullopt: it
// says nothing, or no number.
std::optional<uint64_t> FixedPieceBytes();

}  // namespace terrace
