#include "tiers/gpu/kernel_image.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/numbers.h"

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
namespace {

constexpr char kFileVariable[] = "TERRACE_GATHER_KERNELS";
constexpr char kPieceVariable[] = "TERRACE_GATHER_PIECE_BYTES";

absl::Span<const char> CompiledIn() {
#ifdef TERRACE_KERNEL_IMAGE
  return {terrace_kernel_image_begin,
          static_cast<size_t>(terrace_kernel_image_end - terrace_kernel_image_begin)};
#else
  return {};
#endif
}

}  // namespace

absl::Span<const char> KernelImage() {
  const char* const named = std::getenv(kFileVariable);
  if (named == nullptr || *named == '\0') {
    return CompiledIn();
  }
  static const std::string* const read = [named] {
    std::ifstream file(named, std::ios::binary);
    // Ends in a zero byte, as the driver expects of PTX.
    return new std::string(std::istreambuf_iterator<char>(file), {});
  }();
  return *read;
}

std::optional<uint64_t> FixedPieceBytes() {
  const char* const said = std::getenv(kPieceVariable);
  uint64_t bytes = 0;
  return said != nullptr && absl::SimpleAtoi(said, &bytes) ? std::optional<uint64_t>(bytes)
                                                           : std::nullopt;
}

}  // namespace terrace
