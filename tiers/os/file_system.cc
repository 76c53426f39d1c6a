// What holds for every file system.
#include "tiers/os/file_system.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/vocab/check.h"

namespace terrace {

absl::Status ReadFully(File& file, uint64_t offset, absl::Span<char> out) {
  while (!out.empty()) {
    const absl::StatusOr<uint64_t> got = file.ReadAt(offset, out);
    if (!got.ok()) {
      return got.status();
    }
    if (*got == 0) {
      return absl::OutOfRangeError("read: the file ends");
    }
    offset += *got;
    out.remove_prefix(*got);
  }
  return absl::OkStatus();
}

absl::Status WriteFully(File& file, uint64_t offset, absl::Span<const char> bytes) {
  while (!bytes.empty()) {
    const absl::StatusOr<uint64_t> taken = file.WriteAt(offset, bytes);
    if (!taken.ok()) {
      return taken.status();
    }
    if (*taken == 0) {
      return absl::ResourceExhaustedError("write: nothing more was taken");
    }
    offset += *taken;
    bytes.remove_prefix(*taken);
  }
  return absl::OkStatus();
}

void AlignedBuffer::Freer::operator()(char* memory) const {
  std::free(memory);  // NOLINT(cppcoreguidelines-owning-memory): AlignedBuffer is the owner
}

AlignedBuffer::AlignedBuffer(uint64_t bytes)
    : size_((bytes + kAlignment - 1) / kAlignment * kAlignment) {
  if (size_ > 0) {
    // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): memory_ is the owner
    memory_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, size_)));
    TERRACE_CHECK(memory_ != nullptr);
    std::memset(memory_.get(), 0, size_);
  }
}

}  // namespace terrace
