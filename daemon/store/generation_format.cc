#include "daemon/store/generation_format.h"

#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kBytes = 9;

}  // namespace

std::string EncodeGeneration(uint64_t generation) {
  std::string value(kBytes, '\0');
  FieldWriter out(absl::MakeSpan(value));
  out.U8(kVersion);
  out.U64(generation);
  return value;
}

std::optional<uint64_t> DecodeGeneration(std::string_view value) {
  FieldReader in({value.data(), value.size()});
  if (value.size() != kBytes || in.U8() != kVersion) {
    return std::nullopt;
  }
  const uint64_t generation = in.U64();
  return generation >= 2 ? std::optional<uint64_t>(generation) : std::nullopt;
}

}  // namespace terrace
