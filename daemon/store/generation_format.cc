#include "daemon/store/generation_format.h"

namespace terrace {
namespace {

constexpr char kVersion = 1;
constexpr size_t kBytes = 9;

}  // namespace

std::string EncodeGeneration(uint64_t generation) {
  std::string value(kBytes, kVersion);
  for (size_t i = 1; i < kBytes; ++i) {
    value[i] = static_cast<char>(generation >> (8 * (i - 1)));
  }
  return value;
}

std::optional<uint64_t> DecodeGeneration(std::string_view value) {
  if (value.size() != kBytes || value[0] != kVersion) {
    return std::nullopt;
  }
  uint64_t generation = 0;
  for (size_t i = 1; i < kBytes; ++i) {
    generation |= uint64_t{static_cast<unsigned char>(value[i])} << (8 * (i - 1));
  }
  return generation >= 2 ? std::optional<uint64_t>(generation) : std::nullopt;
}

}  // namespace terrace
