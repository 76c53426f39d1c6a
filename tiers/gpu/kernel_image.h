// The compiled kernels of gather_kernels.cu, as they lie in this binary.
#pragma once

#include "absl/types/span.h"

namespace terrace {

// For cuModuleLoadData; empty in a build without nvcc.
absl::Span<const char> KernelImage();

}  // namespace terrace
