#include "daemon/protection/secret_bytes.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include <openssl/crypto.h>

#include "tiers/vocab/check.h"

namespace terrace {

SecretBytes::SecretBytes(size_t bytes) : size_(bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapped_ = (bytes + page - 1) / page * page;
  void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TERRACE_CHECK(bytes > 0 && memory != MAP_FAILED);
  bytes_ = static_cast<char*>(memory);
  // Best effort: a small limit of locked memory is no reason not to start.
  static_cast<void>(mlock(memory, mapped_));
  static_cast<void>(madvise(memory, mapped_, MADV_DONTDUMP));
  static_cast<void>(madvise(memory, mapped_, MADV_WIPEONFORK));
}

SecretBytes::~SecretBytes() {
  if (bytes_ != nullptr) {
    OPENSSL_cleanse(bytes_, mapped_);
    munmap(bytes_, mapped_);
  }
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : bytes_(std::exchange(other.bytes_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

void SecretBytes::Shrink(size_t bytes) {
  TERRACE_CHECK(bytes <= size_);
  OPENSSL_cleanse(bytes_ + bytes, size_ - bytes);
  size_ = bytes;
}

void Wipe(absl::Span<char> bytes) {
  OPENSSL_cleanse(bytes.data(), bytes.size());
}

}  // namespace terrace
