// RAII for kernel objects that the other rooms hold: descriptors, mappings, event descriptors,
// pidfds. Every type is move-only and thread-compatible. Destructors release and never report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace terrace {

// An open file descriptor; -1 is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  // A second descriptor of the same open file, close-on-exec. Errors: RESOURCE_EXHAUSTED (EMFILE,
  // ENFILE), INTERNAL.
  [[nodiscard]] absl::StatusOr<Descriptor> Duplicate() const;

 private:
  int fd_ = -1;
};

enum class MapAccess : uint8_t { kReadOnly, kReadWrite };

// A shared mapping of a descriptor.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // Maps [offset, offset + bytes); offset a multiple of the page size; no page is touched. Ranges
  // of 2 MiB and more are placed so that huge pages can back them. Errors: INVALID_ARGUMENT (not
  // mappable or bad range), PERMISSION_DENIED, RESOURCE_EXHAUSTED (ENOMEM).
  static absl::StatusOr<Mapping> Map(int fd, uint64_t offset, uint64_t bytes, MapAccess access);

  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }
  // size() rounded up to the page size of the file: 2 MiB and more on hugetlbfs.
  [[nodiscard]] size_t mapped_bytes() const { return mapped_bytes_; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_bytes_ = 0;
};

// What the kernel gave us for a slab: measured by how it behaves, not by what was asked for.
enum class PageKind : uint8_t { kHuge, kTransparentHuge, kSmall };
std::string_view PageKindName(PageKind kind);

// A memfd sealed with SHRINK|GROW|SEAL, and with FUTURE_WRITE where its only writable mapping is
// here: then others may map `descriptor()` read-only and in no other way.
class SealedMemory {
 public:
  enum class Writers : uint8_t { kHereAlone, kWhoeverMapsIt };
  struct Options {
    uint64_t bytes = 0;          // rounded up to the page size in use
    bool huge_pages = true;      // transparent ones on shmem at least
    bool reserved_pages = true;  // and before them those that were set aside (MFD_HUGETLB)
    int touch_threads = 1;       // pages are touched before Create returns; 0: none is
    Writers writers = Writers::kHereAlone;
  };
  // Blocks while touching (tens of ms per GiB with huge pages, about a second per GiB without).
  // Errors: RESOURCE_EXHAUSTED (not enough memory, descriptors), UNIMPLEMENTED (kernel without the
  // seals).
  static absl::StatusOr<SealedMemory> Create(const Options& options);
  // Takes over a descriptor of memory that an earlier life of this process made with these
  // `writers`. Mapped for reading alone: kHereAlone keeps every later mapping from writing, for
  // good. INVALID_ARGUMENT: not such memory, or not sealed so. RESOURCE_EXHAUSTED: the mapping.
  static absl::StatusOr<SealedMemory> Adopt(Descriptor descriptor, Writers writers);

  [[nodiscard]] absl::Span<char> memory() const { return {mapping_.data(), mapping_.size()}; }
  [[nodiscard]] const Descriptor& descriptor() const { return fd_; }
  [[nodiscard]] PageKind page_kind() const { return page_kind_; }

 private:
  Descriptor fd_;
  Mapping mapping_;
  PageKind page_kind_ = PageKind::kSmall;
};

// eventfd(2), non-blocking.
class EventDescriptor {
 public:
  static absl::StatusOr<EventDescriptor> Create();
  void Notify() const;  // never blocks; many notifications may merge into one
  void Clear() const;
  [[nodiscard]] int get() const { return fd_.get(); }

 private:
  Descriptor fd_;
};

// A process, by pidfd: cannot be confused with a later process of the same number.
class PidDescriptor {
 public:
  PidDescriptor() = default;
  // Takes over a descriptor that a peer passed; INVALID_ARGUMENT when it is not a pidfd.
  static absl::StatusOr<PidDescriptor> FromPassed(Descriptor fd);
  static absl::StatusOr<PidDescriptor> Open(int pid);
  // Whether the process has ended (poll without waiting).
  [[nodiscard]] bool Exited() const;
  [[nodiscard]] int get() const { return fd_.get(); }  // readable when the process has ended
  [[nodiscard]] bool valid() const { return fd_.valid(); }
  // Pid in our pid namespace from fdinfo; 0 when it has none there or has been reaped, -1 when
  // unreadable.
  [[nodiscard]] int Pid() const;

 private:
  Descriptor fd_;
};

// 128 and 64 random bits from getrandom(2); aborts when the kernel has no entropy source.
void FillRandom(absl::Span<char> out);

// absl::Status from errno with "what: strerror".
absl::Status StatusFromErrno(int error, std::string_view what);

}  // namespace terrace
