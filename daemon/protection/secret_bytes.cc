#include "daemon/protection/secret_bytes.h"

#include <sys/mman.h>

#include <utility>

#include <openssl/crypto.h>

#include "tiers/vocab/check.h"

namespace terrace {

SecretBytes::SecretBytes(size_t bytes) : pages_(bytes), size_(bytes) {
  TERRACE_CHECK(bytes > 0 && pages_.bytes() != nullptr);
  Wipe(pages_.span());
  // Best effort: a small limit of locked memory is no reason not to start.
  static_cast<void>(mlock(pages_.bytes(), pages_.size()));
  static_cast<void>(madvise(pages_.bytes(), pages_.size(), MADV_DONTDUMP));
  static_cast<void>(madvise(pages_.bytes(), pages_.size(), MADV_WIPEONFORK));
}

SecretBytes::~SecretBytes() {
  Release();
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : pages_(std::move(other.pages_)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  Release();
  pages_ = std::move(other.pages_);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

// Whoever gets this memory next finds it as any other.
void SecretBytes::Release() {
  if (size_ == 0) {
    return;
  }
  Wipe(pages_.span());
  static_cast<void>(madvise(pages_.bytes(), pages_.size(), MADV_KEEPONFORK));
  static_cast<void>(madvise(pages_.bytes(), pages_.size(), MADV_DODUMP));
  static_cast<void>(munlock(pages_.bytes(), pages_.size()));
  size_ = 0;
}

void SecretBytes::Shrink(size_t bytes) {
  TERRACE_CHECK(bytes > 0 && bytes <= size_);
  Wipe(span().subspan(bytes));
  size_ = bytes;
}

void Wipe(absl::Span<char> bytes) {
  OPENSSL_cleanse(bytes.data(), bytes.size());
}

}  // namespace terrace
