// Shared mappings, placed so that the kernel can use huge pages for them.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Page size of the file behind a descriptor. Only hugetlbfs differs, and only memory files know
// seals, so that no other file system is asked anything.
uint64_t PageBytesOf(int fd) {
  const uint64_t small = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  struct statfs system {};
  if (fcntl(fd, F_GET_SEALS) < 0 || fstatfs(fd, &system) != 0 || system.f_type != HUGETLBFS_MAGIC) {
    return small;
  }
  return static_cast<uint64_t>(system.f_bsize);
}

// Address space of `bytes` at a multiple of `alignment`, reserved and inaccessible; nullptr with
// errno set.
char* ReserveAligned(uint64_t bytes, uint64_t alignment) {
  const uint64_t slack = bytes + alignment;
  void* reserved =
      mmap(nullptr, slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) {
    return nullptr;
  }
  char* const begin = static_cast<char*>(reserved);
  const uint64_t skip =
      RoundUp(reinterpret_cast<uintptr_t>(begin), alignment) - reinterpret_cast<uintptr_t>(begin);
  if (skip > 0) {
    munmap(begin, skip);
  }
  if (slack - skip > bytes) {
    munmap(begin + skip + bytes, slack - skip - bytes);
  }
  return begin + skip;
}

}  // namespace

absl::StatusOr<Mapping> Mapping::Map(int fd, uint64_t offset, uint64_t bytes, MapAccess access) {
  constexpr uint64_t kMaxEnd =
      static_cast<uint64_t>(std::numeric_limits<off_t>::max()) - kHugePageBytes;
  if (bytes == 0 || bytes > kMaxEnd || offset > kMaxEnd - bytes) {
    return absl::InvalidArgumentError("map: range is empty or too large");
  }
  struct stat file {};
  if (fstat(fd, &file) != 0) {
    return absl::InvalidArgumentError("map: not an open descriptor");
  }
  if (S_ISREG(file.st_mode) && static_cast<uint64_t>(file.st_size) < offset + bytes) {
    return absl::InvalidArgumentError("map: range ends behind the end of the file");
  }
  const uint64_t page_bytes = PageBytesOf(fd);
  const uint64_t mapped_bytes = RoundUp(bytes, page_bytes);
  // A transparent huge page needs address and file offset to agree modulo its size.
  const bool large = mapped_bytes >= kHugePageBytes && offset % kHugePageBytes == 0;
  const uint64_t alignment = std::max(page_bytes, large ? kHugePageBytes : page_bytes);
  char* const place = ReserveAligned(mapped_bytes, alignment);
  if (place == nullptr) {
    return StatusFromErrno(errno, "map: reserve address space");
  }
  const int protection = access == MapAccess::kReadOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  if (mmap(place, mapped_bytes, protection, MAP_SHARED | MAP_FIXED, fd,
           static_cast<off_t>(offset)) == MAP_FAILED) {
    const int error = errno;
    munmap(place, mapped_bytes);
    return error == EBADF ? absl::InvalidArgumentError("map: not an open descriptor")
                          : StatusFromErrno(error, "map");
  }
  Mapping mapping;
  mapping.data_ = place;
  mapping.size_ = bytes;
  mapping.mapped_bytes_ = mapped_bytes;
  return mapping;
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  Mapping taken(std::move(other));
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(mapped_bytes_, taken.mapped_bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) {
    munmap(data_, mapped_bytes_);
  }
}

}  // namespace terrace
