// The stand-in's device memory: allocations in memfds, and the addresses at which they lie.
// Thread-safe.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "tests/doubles/cuda/state.h"
#include "tiers/os/descriptor.h"

namespace terrace::stand_in {

inline constexpr size_t kGranule = size_t{2} << 20;

// The first page of every allocation's memfd, which all processes that map it share.
struct SharedHeader {
  uint64_t magic;
  uint64_t id;  // random, so that a handle whose descriptor was used again is found out
  uint64_t bytes;
  int64_t device;
  // Ranges that kernels have been told to write and have not written yet.
  struct PendingWrite {
    std::atomic<uint64_t> begin;
    std::atomic<uint64_t> end;  // 0: unused
  };
  std::array<PendingWrite, 128> pending;
};

// One allocation.
class Backing {
 public:
  static std::shared_ptr<Backing> Create(size_t bytes);
  // Of a descriptor that was made here or in another process; null where it is none.
  static std::shared_ptr<Backing> Adopt(Descriptor fd);

  [[nodiscard]] char* bytes() const { return mapping_.data() + kHeaderBytes; }
  [[nodiscard]] size_t size() const { return header().bytes; }
  [[nodiscard]] SharedHeader& header() const {
    return *reinterpret_cast<SharedHeader*>(mapping_.data());
  }
  [[nodiscard]] const Descriptor& fd() const { return fd_; }

  // The slot of a pending write, to be ended; -1 where all are in use.
  int BeginPendingWrite(uint64_t begin, uint64_t end);
  void EndPendingWrite(int slot);
  [[nodiscard]] bool UnderPendingWrite(uint64_t begin, uint64_t end) const;

 private:
  static constexpr size_t kHeaderBytes = 4096;
  static_assert(sizeof(SharedHeader) <= kHeaderBytes);

  Descriptor fd_;
  Mapping mapping_;
};

// Where the bytes behind an address are, at one moment.
struct Located {
  std::shared_ptr<Backing> backing;
  uint64_t offset = 0;
  uint64_t generation = 0;  // of the range of addresses
  bool exporter_dead = false;
  [[nodiscard]] char* bytes() const { return backing->bytes() + offset; }
};

class DeviceMemory {
 public:
  static DeviceMemory& Instance();

  cuda::Result Allocate(cuda::DevicePointer* pointer, size_t bytes);
  cuda::Result Free(cuda::DevicePointer pointer);
  cuda::Result RangeOf(cuda::DevicePointer* start, size_t* bytes, cuda::DevicePointer any);
  std::optional<Located> Locate(cuda::DevicePointer pointer, size_t bytes);

  cuda::Result Export(cuda::IpcMemHandle* handle, cuda::DevicePointer pointer);
  cuda::Result Import(cuda::DevicePointer* pointer, const cuda::IpcMemHandle& handle);
  cuda::Result CloseImport(cuda::DevicePointer pointer);

  cuda::Result CreateHandle(cuda::AllocationHandle* handle, size_t bytes);
  cuda::Result ExportHandle(int* fd, cuda::AllocationHandle handle);
  cuda::Result ImportHandle(cuda::AllocationHandle* handle, int fd);
  cuda::Result ReleaseHandle(cuda::AllocationHandle handle);
  cuda::Result Reserve(cuda::DevicePointer* pointer, size_t bytes);
  cuda::Result FreeReserved(cuda::DevicePointer pointer, size_t bytes);
  cuda::Result Map(cuda::DevicePointer pointer,
                   size_t bytes,
                   size_t offset,
                   cuda::AllocationHandle handle);
  cuda::Result Unmap(cuda::DevicePointer pointer, size_t bytes);
  cuda::Result SetAccess(cuda::DevicePointer pointer, size_t bytes);

 private:
  enum class Kind : uint8_t { kAllocated, kImported, kReserved };
  struct Range {
    Kind kind = Kind::kAllocated;
    size_t bytes = 0;
    std::shared_ptr<Backing> backing;
    uint64_t backing_offset = 0;
    bool accessible = false;
    uint64_t generation = 0;
    PidDescriptor exporter;  // of kImported
  };
  struct Handle {
    std::shared_ptr<Backing> backing;
    bool created_here = false;
  };

  DeviceMemory();
  std::optional<cuda::DevicePointer> TakeAddressLocked(size_t bytes);
  Range* FindLocked(cuda::DevicePointer pointer, Kind kind);
  void GiveBackLocked(cuda::DevicePointer pointer);

  std::mutex mutex_;
  cuda::DevicePointer next_address_ = 0;
  cuda::DevicePointer end_address_ = 0;
  uint64_t generations_ = 0;
  std::map<cuda::DevicePointer, Range> ranges_;
  std::unordered_map<size_t, std::vector<cuda::DevicePointer>> given_back_;  // by size, last first
  std::unordered_map<cuda::AllocationHandle, Handle> handles_;
  cuda::AllocationHandle next_handle_ = 1;
};

// Host memory that is registered.
class HostRegistry {
 public:
  static HostRegistry& Instance();
  cuda::Result Register(void* memory, size_t bytes, unsigned flags);
  cuda::Result Unregister(void* memory);
  enum class Lookup : uint8_t { kPageable, kReadOnly, kReadWrite };
  Lookup Find(const void* memory, size_t bytes);

 private:
  struct Entry {
    size_t bytes = 0;
    bool read_only = false;
  };
  std::mutex mutex_;
  std::map<uintptr_t, Entry> entries_;
};

}  // namespace terrace::stand_in
