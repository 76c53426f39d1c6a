// Sealed memory: which pages it gets, how they are touched, and the seals.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <system_error>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

#include "tiers/os/descriptor.h"

// Newer than the C library of Debian 12; from linux/memfd.h, linux/fcntl.h and
// asm-generic/mman-common.h.
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace terrace {
namespace {

constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;
constexpr uint64_t kSmallPageBytes = 4096;
constexpr int kMaxTouchThreads = 64;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

enum class Pages : uint8_t { kHugetlb, kTransparent, kSmall };

absl::StatusOr<Descriptor> OpenMemfd(uint64_t bytes, Pages pages) {
  const unsigned huge = pages == Pages::kHugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0U;
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | huge;
  Descriptor fd(memfd_create("terrace-slab", flags | MFD_NOEXEC_SEAL));
  if (!fd.valid() && errno == EINVAL) {  // before Linux 6.3
    fd = Descriptor(memfd_create("terrace-slab", flags));
  }
  if (!fd.valid()) {
    return StatusFromErrno(errno, "memfd_create");
  }
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return StatusFromErrno(errno, "ftruncate slab");
  }
  return fd;
}

// Runs once per thread's share of a mapping; shares are multiples of 2 MiB but for the last.
int TouchShare(absl::Span<char> share, Pages pages) {
  if (pages == Pages::kTransparent) {
    // Collapsing works whatever /sys/kernel/mm/transparent_hugepage/shmem_enabled says, short of
    // "deny", but only where some page is present (madvise(2); Linux 6.1). It is ten times as fast
    // as touching small pages.
    for (size_t at = 0; at < share.size(); at += kHugePageBytes) {
      if (madvise(share.data() + at, kSmallPageBytes, MADV_POPULATE_WRITE) != 0) {
        break;
      }
    }
    madvise(share.data(), share.size(), MADV_COLLAPSE);
  }
  int result = 0;
  do {
    result = madvise(share.data(), share.size(), MADV_POPULATE_WRITE);
  } while (result != 0 && (errno == EINTR || errno == EAGAIN));
  if (result == 0) {
    return 0;
  }
  if (errno != EINVAL) {
    return errno == EFAULT ? ENOMEM : errno;
  }
  for (size_t at = 0; at < share.size(); at += kSmallPageBytes) {  // before Linux 5.14
    *static_cast<volatile char*>(share.data() + at) = 0;
  }
  return 0;
}

// Touches all pages in parallel. Returns 0 or an errno.
int Touch(absl::Span<char> memory, Pages pages, int threads) {
  const uint64_t wanted = static_cast<uint64_t>(std::clamp(threads, 1, kMaxTouchThreads));
  const uint64_t share_bytes =
      RoundUp(std::max<uint64_t>(memory.size() / wanted, 1), kHugePageBytes);
  std::vector<int> errors((memory.size() + share_bytes - 1) / share_bytes, 0);
  std::vector<std::thread> workers;
  for (size_t i = 0; i < errors.size(); ++i) {
    const auto touch = [share = memory.subspan(i * share_bytes, share_bytes), pages,
                        error = &errors[i]] { *error = TouchShare(share, pages); };
    if (i + 1 == errors.size()) {
      touch();
      break;
    }
    try {
      workers.emplace_back(touch);
    } catch (const std::system_error&) {  // no thread to be had: this one does it
      touch();
    }
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  const auto failed =
      std::find_if(errors.begin(), errors.end(), [](int error) { return error != 0; });
  return failed == errors.end() ? 0 : *failed;
}

// The number of KiB in a line "NAME:   N kB" of a file below /proc; -1 when the line is another
// one.
int64_t KibOf(const std::string& line, std::string_view name) {
  if (line.rfind(name, 0) != 0) {
    return -1;
  }
  const size_t digits = line.find_first_of("0123456789", name.size());
  int64_t kib = -1;
  if (digits != std::string::npos) {
    std::from_chars(line.data() + digits, line.data() + line.size(), kib);
  }
  return kib;
}

// Whether so many bytes can be had without the kernel killing somebody for them. True when unknown.
bool MemoryAvailable(uint64_t bytes) {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (const int64_t kib = KibOf(line, "MemAvailable:"); kib >= 0) {
      return bytes / 1024 < static_cast<uint64_t>(kib);
    }
  }
  return true;
}

// Bytes of the range that huge pages map, by ioctl PAGEMAP_SCAN (Linux 6.7:
// admin-guide/mm/pagemap.rst); -1 where the kernel has no such call.
int64_t HugeBytesByScan(absl::Span<const char> memory) {
  struct PageRegion {
    uint64_t start, end, categories;
  };
  struct ScanArguments {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
  };
  constexpr uint64_t kPageIsHuge = uint64_t{1} << 6;
  const Descriptor pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::vector<PageRegion> regions(256);
  ScanArguments scan{};
  scan.size = sizeof(scan);
  scan.start = reinterpret_cast<uintptr_t>(memory.data());
  scan.end = scan.start + RoundUp(memory.size(), kSmallPageBytes);
  scan.vec = reinterpret_cast<uintptr_t>(regions.data());
  scan.vec_len = regions.size();
  scan.category_mask = kPageIsHuge;
  scan.return_mask = kPageIsHuge;
  int64_t huge = 0;
  while (scan.start < scan.end) {
    const int found = ioctl(pagemap.get(), _IOWR('f', 16, ScanArguments), &scan);
    if (found < 0) {
      return -1;
    }
    for (size_t i = 0; i < static_cast<size_t>(found); ++i) {
      huge += static_cast<int64_t>(regions[i].end - regions[i].start);
    }
    if (scan.walk_end <= scan.start) {
      break;
    }
    scan.start = scan.walk_end;
  }
  return huge;
}

// The same from the line ShmemPmdMapped of /proc/self/smaps; slow in processes with many mappings.
int64_t HugeBytesBySmaps(absl::Span<const char> memory) {
  std::ifstream smaps("/proc/self/smaps");
  const std::string head = absl::StrCat(absl::Hex(reinterpret_cast<uintptr_t>(memory.data())), "-");
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    ours = ours || line.rfind(head, 0) == 0;
    if (const int64_t kib = ours ? KibOf(line, "ShmemPmdMapped:") : -1; kib >= 0) {
      return kib * 1024;
    }
  }
  return 0;
}

PageKind MeasurePages(int fd, absl::Span<const char> memory) {
  struct statfs system {};
  if (fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC) {
    return PageKind::kHuge;
  }
  int64_t huge = HugeBytesByScan(memory);
  if (huge < 0) {
    huge = HugeBytesBySmaps(memory);
  }
  return static_cast<uint64_t>(huge) * 2 > memory.size() ? PageKind::kTransparentHuge
                                                         : PageKind::kSmall;
}

struct TouchedMemory {
  Descriptor fd;
  Mapping mapping;
};

absl::StatusOr<TouchedMemory> MakeTouched(uint64_t bytes, Pages pages, int threads) {
  TouchedMemory made;
  absl::StatusOr<Descriptor> fd = OpenMemfd(bytes, pages);
  if (!fd.ok()) {
    return fd.status();
  }
  made.fd = *std::move(fd);
  // Reserves the huge pages, so that a pool that is too small shows here and not as SIGBUS later.
  absl::StatusOr<Mapping> mapping = Mapping::Map(made.fd.get(), 0, bytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return mapping.status();
  }
  made.mapping = *std::move(mapping);
  if (pages == Pages::kTransparent) {
    madvise(made.mapping.data(), bytes, MADV_HUGEPAGE);  // a wish: kernels without them refuse
  }
  // Payload stays out of core dumps.
  if (madvise(made.mapping.data(), bytes, MADV_DONTDUMP) != 0) {
    return StatusFromErrno(errno, "madvise slab");
  }
  if (threads == 0) {
    return made;
  }
  if (const int error = Touch({made.mapping.data(), bytes}, pages, threads); error != 0) {
    return StatusFromErrno(error, "touch slab");
  }
  return made;
}

}  // namespace

std::string_view PageKindName(PageKind kind) {
  switch (kind) {
    case PageKind::kHuge:
      return "huge";
    case PageKind::kTransparentHuge:
      return "transparent-huge";
    case PageKind::kSmall:
      return "small";
  }
  return "?";
}

absl::StatusOr<SealedMemory> SealedMemory::Create(const Options& options) {
  constexpr uint64_t kMaxBytes = uint64_t{1} << 46;
  if (options.bytes == 0 || options.bytes > kMaxBytes) {
    return absl::InvalidArgumentError("slab bytes: 1 to 2^46");
  }
  absl::StatusOr<TouchedMemory> made = absl::ResourceExhaustedError("slab");
  if (options.huge_pages && options.reserved_pages) {
    made =
        MakeTouched(RoundUp(options.bytes, kHugePageBytes), Pages::kHugetlb, options.touch_threads);
  }
  if (!made.ok() && options.touch_threads > 0 && !MemoryAvailable(options.bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("slab of ", options.bytes, " bytes: more than is available"));
  }
  if (!made.ok() && options.huge_pages && options.bytes >= kHugePageBytes) {
    made = MakeTouched(RoundUp(options.bytes, kHugePageBytes), Pages::kTransparent,
                       options.touch_threads);
  } else if (!made.ok()) {
    made =
        MakeTouched(RoundUp(options.bytes, kSmallPageBytes), Pages::kSmall, options.touch_threads);
  }
  if (!made.ok()) {
    return made.status();
  }
  const int writers = options.writers == Writers::kHereAlone ? F_SEAL_FUTURE_WRITE : 0;
  if (fcntl(made->fd.get(), F_ADD_SEALS, kSeals | writers) != 0) {
    return absl::UnimplementedError(StatusFromErrno(errno, "seal slab").message());
  }
  SealedMemory sealed;
  sealed.page_kind_ = MeasurePages(made->fd.get(), {made->mapping.data(), made->mapping.size()});
  sealed.fd_ = std::move(made->fd);
  sealed.mapping_ = std::move(made->mapping);
  return sealed;
}

absl::StatusOr<SealedMemory> SealedMemory::Adopt(Descriptor descriptor, Writers writers) {
  const int wanted = kSeals | (writers == Writers::kHereAlone ? F_SEAL_FUTURE_WRITE : 0);
  const int seals = fcntl(descriptor.get(), F_GET_SEALS);
  struct stat facts {};
  if (seals < 0 || (seals & (wanted | F_SEAL_FUTURE_WRITE)) != wanted ||
      fstat(descriptor.get(), &facts) != 0 || facts.st_size <= 0) {
    return absl::InvalidArgumentError("no memory that is sealed as a slab is");
  }
  const auto bytes = static_cast<uint64_t>(facts.st_size);
  absl::StatusOr<Mapping> mapping = Mapping::Map(descriptor.get(), 0, bytes, MapAccess::kReadOnly);
  if (!mapping.ok()) {
    return mapping.status();
  }
  if (madvise(mapping->data(), bytes, MADV_DONTDUMP) != 0) {
    return StatusFromErrno(errno, "madvise slab");
  }
  SealedMemory sealed;
  sealed.page_kind_ = MeasurePages(descriptor.get(), {mapping->data(), mapping->size()});
  sealed.fd_ = std::move(descriptor);
  sealed.mapping_ = *std::move(mapping);
  return sealed;
}

}  // namespace terrace
