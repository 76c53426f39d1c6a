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
#include "absl/synchronization/mutex.h"

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

// As mmap of `bytes` of the file, at an address that is a multiple of `alignment`; MAP_FAILED with
// errno set.
//
// Never MAP_FIXED over a reservation: the kernel takes the reservation away before it fails, as it
// does with ENOMEM where no huge pages are reserved, and another thread's mapping may then lie in
// the hole before anybody could tell. So the place is looked for, left, and taken only if it is
// still free; one thread at a time, so that those of this room don't take it from each other.
void* MapAligned(int fd, uint64_t offset, uint64_t bytes, int protection, uint64_t alignment) {
  constexpr int kTries = 1000;
  static absl::Mutex one_at_a_time(absl::kConstInit);
  absl::MutexLock lock(&one_at_a_time);
  const uint64_t slack = bytes + alignment;
  for (int i = 0; i < kTries; ++i) {
    void* const found =
        mmap(nullptr, slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) {
      return MAP_FAILED;
    }
    munmap(found, slack);
    const auto address = reinterpret_cast<uintptr_t>(found);
    void* const place = static_cast<char*>(found) + (RoundUp(address, alignment) - address);
    void* const mapped = mmap(place, bytes, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
                              static_cast<off_t>(offset));
    if (mapped == place) {
      return mapped;
    }
    if (mapped != MAP_FAILED) {  // before Linux 4.17 the place is a wish
      munmap(mapped, bytes);
    } else if (errno != EEXIST) {
      return MAP_FAILED;
    }
  }
  errno = ENOMEM;
  return MAP_FAILED;
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
  const int protection = access == MapAccess::kReadOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  void* const place = MapAligned(fd, offset, mapped_bytes, protection, alignment);
  if (place == MAP_FAILED) {
    return errno == EBADF ? absl::InvalidArgumentError("map: not an open descriptor")
                          : StatusFromErrno(errno, "map");
  }
  Mapping mapping;
  mapping.data_ = static_cast<char*>(place);
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
