// Memory for keys that live long: locked where the limits allow it, in no core dump, in no child
// that is forked, and zeros before it is given back. Thread-compatible; moved, and never copied.
#pragma once

#include <cstddef>

#include "absl/types/span.h"

#include "tiers/os/file_system.h"

namespace terrace {

class SecretBytes {
 public:
  // Zeros. Aborts where there is no memory.
  explicit SecretBytes(size_t bytes);
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  [[nodiscard]] absl::Span<char> span() { return pages_.span().first(size_); }
  [[nodiscard]] absl::Span<const char> view() const { return pages_.span().first(size_); }
  // Only the first so many, at least one, are of use; the others become zeros.
  void Shrink(size_t bytes);

 private:
  void Release();

  AlignedBuffer pages_;
  size_t size_ = 0;
};

// Zeros, which the compiler does not leave out.
void Wipe(absl::Span<char> bytes);

}  // namespace terrace
