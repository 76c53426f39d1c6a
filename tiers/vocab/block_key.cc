// The byte and text forms of a Digest128.
#include "tiers/vocab/block_key.h"

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"

namespace terrace {
namespace {

constexpr size_t kWordBytes = sizeof(uint64_t);

void AppendBigEndian(uint64_t word, std::string* out) {
  for (size_t i = 0; i < kWordBytes; ++i) {
    out->push_back(static_cast<char>(word >> (8 * (kWordBytes - 1 - i))));
  }
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t word = 0;
  for (const char byte : bytes) {
    word = word << 8 | static_cast<unsigned char>(byte);
  }
  return word;
}

}  // namespace

std::string Digest128::ToBytes() const {
  std::string bytes;
  bytes.reserve(2 * kWordBytes);
  AppendBigEndian(hi, &bytes);
  AppendBigEndian(lo, &bytes);
  return bytes;
}

std::string Digest128::ToHex() const {
  return absl::BytesToHexString(ToBytes());
}

bool Digest128::FromBytes(std::string_view bytes, Digest128* out) {
  if (bytes.size() != 2 * kWordBytes) {
    return false;
  }
  *out = {ReadBigEndian(bytes.substr(0, kWordBytes)), ReadBigEndian(bytes.substr(kWordBytes))};
  return true;
}

}  // namespace terrace
