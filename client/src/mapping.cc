#include <cerrno>

#include "client/src/descriptor.h"

namespace terrace::client {
namespace {

constexpr uintptr_t kHugePageBytes = uintptr_t{2} << 20;

void* MapAnywhere(const Descriptor& fd, size_t bytes, int protection) {
  return ::mmap(nullptr, bytes, protection, MAP_SHARED, fd.get(), 0);
}

// As mmap, at a multiple of kHugePageBytes. A place is looked for, left, and taken only if it is
// free still: over a reservation MAP_FIXED would leave a hole behind when it fails, into which
// another thread's mapping may fall before anybody could tell.
void* MapAligned(const Descriptor& fd, size_t bytes, int protection) {
  constexpr int kTries = 8;  // each is lost to another thread that maps at that moment
  const size_t slack = bytes + kHugePageBytes;
  for (int i = 0; i < kTries; ++i) {
    void* const found =
        ::mmap(nullptr, slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) {
      break;
    }
    ::munmap(found, slack);
    const uintptr_t beyond = reinterpret_cast<uintptr_t>(found) % kHugePageBytes;
    void* const place = static_cast<char*>(found) + (beyond == 0 ? 0 : kHugePageBytes - beyond);
    void* const mapped =
        ::mmap(place, bytes, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd.get(), 0);
    if (mapped != MAP_FAILED) {
      return mapped;  // elsewhere before Linux 4.17, where the place is a wish
    }
    if (errno != EEXIST) {
      break;
    }
  }
  return MapAnywhere(fd, bytes, protection);
}

}  // namespace

Mapping Mapping::Map(const Descriptor& fd, size_t bytes, int protection) {
  Mapping mapping;
  void* const address = bytes >= kHugePageBytes ? MapAligned(fd, bytes, protection)
                                                : MapAnywhere(fd, bytes, protection);
  if (address != MAP_FAILED) {
    mapping.data_ = static_cast<char*>(address);
    mapping.bytes_ = bytes;
  }
  return mapping;
}

}  // namespace terrace::client
