#include "tiers/gpu/kernel_image.h"

#ifdef TERRACE_KERNEL_IMAGE
// The assembler takes the file as it is; a symbol before it and one behind say where it lies.
asm(".section .rodata\n"
    ".balign 16\n"
    "terrace_kernel_image_begin:\n"
    ".incbin \"" TERRACE_KERNEL_IMAGE
    "\"\n"
    "terrace_kernel_image_end:\n"
    ".previous\n");

extern "C" {
__attribute__((visibility("hidden"))) extern const char terrace_kernel_image_begin[];
__attribute__((visibility("hidden"))) extern const char terrace_kernel_image_end[];
}
#endif

namespace terrace {

absl::Span<const char> KernelImage() {
#ifdef TERRACE_KERNEL_IMAGE
  return {terrace_kernel_image_begin,
          static_cast<size_t>(terrace_kernel_image_end - terrace_kernel_image_begin)};
#else
  return {};
#endif
}

}  // namespace terrace
