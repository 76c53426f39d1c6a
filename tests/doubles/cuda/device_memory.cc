#include "tests/doubles/cuda/device_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

namespace terrace::stand_in {
namespace {

constexpr uint64_t kMagic = 0x544e4953'55444143;
constexpr size_t kAddressSpace = size_t{64} << 30;

size_t RoundUp(size_t bytes) {
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

// What an exported handle says; the rest of its 64 bytes is 0.
struct HandleWords {
  uint64_t magic;
  uint64_t id;
  int32_t pid;
  int32_t fd;
};

uint64_t RandomWord() {
  uint64_t word = 0;
  FillRandom({reinterpret_cast<char*>(&word), sizeof word});
  return word;
}

}  // namespace

std::shared_ptr<Backing> Backing::Create(size_t bytes) {
  Descriptor fd(memfd_create("stand-in-device-memory", MFD_CLOEXEC));
  if (!fd.valid() || ftruncate(fd.get(), static_cast<off_t>(kHeaderBytes + bytes)) != 0) {
    return nullptr;
  }
  absl::StatusOr<Mapping> mapping =
      Mapping::Map(fd.get(), 0, kHeaderBytes + bytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return nullptr;
  }
  auto backing = std::make_shared<Backing>();
  backing->fd_ = std::move(fd);
  backing->mapping_ = *std::move(mapping);
  backing->header().magic = kMagic;
  backing->header().id = RandomWord();
  backing->header().bytes = bytes;
  backing->header().device = CurrentDevice();
  return backing;
}

std::shared_ptr<Backing> Backing::Adopt(Descriptor fd) {
  struct stat facts {};
  if (!fd.valid() || fstat(fd.get(), &facts) != 0 || !S_ISREG(facts.st_mode) ||
      facts.st_size <= static_cast<off_t>(kHeaderBytes)) {
    return nullptr;
  }
  absl::StatusOr<Mapping> mapping =
      Mapping::Map(fd.get(), 0, static_cast<uint64_t>(facts.st_size), MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return nullptr;
  }
  auto backing = std::make_shared<Backing>();
  backing->fd_ = std::move(fd);
  backing->mapping_ = *std::move(mapping);
  if (backing->header().magic != kMagic ||
      backing->header().bytes + kHeaderBytes != static_cast<uint64_t>(facts.st_size)) {
    return nullptr;
  }
  return backing;
}

int Backing::BeginPendingWrite(uint64_t begin, uint64_t end) {
  for (size_t i = 0; i < header().pending.size(); ++i) {
    SharedHeader::PendingWrite& slot = header().pending[i];
    uint64_t unused = 0;
    if (slot.end.compare_exchange_strong(unused, end)) {
      slot.begin = begin;
      return static_cast<int>(i);
    }
  }
  return -1;
}

void Backing::EndPendingWrite(int slot) {
  if (slot >= 0) {
    header().pending[static_cast<size_t>(slot)].end = 0;
  }
}

bool Backing::UnderPendingWrite(uint64_t begin, uint64_t end) const {
  for (const SharedHeader::PendingWrite& slot : header().pending) {
    if (slot.end > begin && slot.begin < end) {
      return true;
    }
  }
  return false;
}

DeviceMemory& DeviceMemory::Instance() {
  static auto* const memory = new DeviceMemory();
  return *memory;
}

DeviceMemory::DeviceMemory() {
  // Addresses that belong to nobody else in this process, and that the processor cannot touch.
  void* space =
      mmap(nullptr, kAddressSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space != MAP_FAILED) {
    const auto address = reinterpret_cast<cuda::DevicePointer>(space);
    next_address_ = RoundUp(address);
    end_address_ = address + kAddressSpace;
  }
}

std::optional<cuda::DevicePointer> DeviceMemory::TakeAddressLocked(size_t bytes) {
  const size_t rounded = RoundUp(bytes);
  std::vector<cuda::DevicePointer>& again = given_back_[rounded];
  if (!again.empty()) {
    const cuda::DevicePointer address = again.back();
    again.pop_back();
    return address;
  }
  if (end_address_ - next_address_ < rounded) {
    return std::nullopt;
  }
  return std::exchange(next_address_, next_address_ + rounded);
}

void DeviceMemory::GiveBackLocked(cuda::DevicePointer pointer) {
  const auto found = ranges_.find(pointer);
  given_back_[RoundUp(found->second.bytes)].push_back(pointer);
  ranges_.erase(found);
}

DeviceMemory::Range* DeviceMemory::FindLocked(cuda::DevicePointer pointer, Kind kind) {
  const auto found = ranges_.find(pointer);
  return found != ranges_.end() && found->second.kind == kind ? &found->second : nullptr;
}

cuda::Result DeviceMemory::Allocate(cuda::DevicePointer* pointer, size_t bytes) {
  if (bytes == 0) {
    return cuda::kInvalidValue;
  }
  std::shared_ptr<Backing> backing = Backing::Create(bytes);
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<cuda::DevicePointer> address = TakeAddressLocked(bytes);
  if (backing == nullptr || !address) {
    return cuda::kOutOfMemory;
  }
  Range range;
  range.bytes = bytes;
  range.backing = std::move(backing);
  range.accessible = true;
  range.generation = ++generations_;
  ranges_.emplace(*address, std::move(range));
  Counters().allocated_bytes += bytes;
  *pointer = *address;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::Free(cuda::DevicePointer pointer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Range* range = FindLocked(pointer, Kind::kAllocated);
  if (range == nullptr) {
    return cuda::kInvalidValue;
  }
  Counters().allocated_bytes -= range->bytes;
  GiveBackLocked(pointer);
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::RangeOf(cuda::DevicePointer* start,
                                   size_t* bytes,
                                   cuda::DevicePointer any) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto after = ranges_.upper_bound(any);
  if (after == ranges_.begin()) {
    return cuda::kNotFound;
  }
  --after;
  if (any >= after->first + after->second.bytes) {
    return cuda::kNotFound;
  }
  *start = after->first;
  *bytes = after->second.bytes;
  return cuda::kSuccess;
}

std::optional<Located> DeviceMemory::Locate(cuda::DevicePointer pointer, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto after = ranges_.upper_bound(pointer);
  if (after == ranges_.begin()) {
    return std::nullopt;
  }
  --after;
  const Range& range = after->second;
  const uint64_t offset = pointer - after->first;
  if (range.backing == nullptr || !range.accessible || offset > range.bytes ||
      bytes > range.bytes - offset) {
    return std::nullopt;
  }
  Located located;
  located.backing = range.backing;
  located.offset = range.backing_offset + offset;
  located.generation = range.generation;
  located.exporter_dead = range.exporter.valid() && range.exporter.Exited();
  return located;
}

cuda::Result DeviceMemory::Export(cuda::IpcMemHandle* handle, cuda::DevicePointer pointer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Range* range = FindLocked(pointer, Kind::kAllocated);
  if (range == nullptr) {
    return cuda::kInvalidValue;
  }
  const HandleWords words{kMagic, range->backing->header().id, getpid(),
                          range->backing->fd().get()};
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle, &words, sizeof words);
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::Import(cuda::DevicePointer* pointer, const cuda::IpcMemHandle& handle) {
  HandleWords words{};
  std::memcpy(&words, &handle, sizeof words);
  if (words.magic != kMagic) {
    return cuda::kInvalidValue;
  }
  if (words.pid == getpid()) {
    return cuda::kInvalidContext;  // as the driver: never in the process that exported it
  }
  const std::string path = "/proc/" + std::to_string(words.pid) + "/fd/" + std::to_string(words.fd);
  std::shared_ptr<Backing> backing =
      Backing::Adopt(Descriptor(open(path.c_str(), O_RDWR | O_CLOEXEC)));
  absl::StatusOr<PidDescriptor> exporter = PidDescriptor::Open(words.pid);
  if (backing == nullptr || backing->header().id != words.id || !exporter.ok() ||
      backing->header().device != CurrentDevice()) {
    return cuda::kInvalidHandle;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [address, range] : ranges_) {
    if (range.kind == Kind::kImported && range.backing->header().id == words.id) {
      return cuda::kAlreadyMapped;
    }
  }
  const size_t bytes = backing->size();
  const std::optional<cuda::DevicePointer> address = TakeAddressLocked(bytes);
  if (!address) {
    return cuda::kOutOfMemory;
  }
  Range range;
  range.kind = Kind::kImported;
  range.bytes = bytes;
  range.backing = std::move(backing);
  range.accessible = true;
  range.generation = ++generations_;
  range.exporter = *std::move(exporter);
  ranges_.emplace(*address, std::move(range));
  ++Counters().open_ipc_mappings;
  Counters().mapped_bytes += bytes;
  *pointer = *address;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::CloseImport(cuda::DevicePointer pointer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Range* range = FindLocked(pointer, Kind::kImported);
  if (range == nullptr) {
    return cuda::kInvalidValue;
  }
  --Counters().open_ipc_mappings;
  Counters().mapped_bytes -= range->bytes;
  GiveBackLocked(pointer);
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::CreateHandle(cuda::AllocationHandle* handle, size_t bytes) {
  if (bytes == 0 || bytes % kGranule != 0) {
    return cuda::kInvalidValue;
  }
  std::shared_ptr<Backing> backing = Backing::Create(bytes);
  if (backing == nullptr) {
    return cuda::kOutOfMemory;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  *handle = next_handle_++;
  handles_.emplace(*handle, Handle{std::move(backing), true});
  ++Counters().allocation_handles;
  Counters().allocated_bytes += bytes;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::ExportHandle(int* fd, cuda::AllocationHandle handle) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end()) {
    return cuda::kInvalidValue;
  }
  absl::StatusOr<Descriptor> copy = found->second.backing->fd().Duplicate();
  if (!copy.ok()) {
    return cuda::kOperatingSystem;
  }
  *fd = copy->Release();
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::ImportHandle(cuda::AllocationHandle* handle, int fd) {
  // The caller keeps its descriptor, as with the driver.
  std::shared_ptr<Backing> backing = Backing::Adopt(Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, 0)));
  if (backing == nullptr) {
    return cuda::kInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  *handle = next_handle_++;
  handles_.emplace(*handle, Handle{std::move(backing), false});
  ++Counters().allocation_handles;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::ReleaseHandle(cuda::AllocationHandle handle) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end()) {
    return cuda::kInvalidValue;
  }
  if (found->second.created_here) {
    Counters().allocated_bytes -= found->second.backing->size();
  }
  --Counters().allocation_handles;
  handles_.erase(found);
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::Reserve(cuda::DevicePointer* pointer, size_t bytes) {
  if (bytes == 0 || bytes % kGranule != 0) {
    return cuda::kInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::optional<cuda::DevicePointer> address = TakeAddressLocked(bytes);
  if (!address) {
    return cuda::kOutOfMemory;
  }
  Range range;
  range.kind = Kind::kReserved;
  range.bytes = bytes;
  range.generation = ++generations_;
  ranges_.emplace(*address, std::move(range));
  ++Counters().reserved_ranges;
  *pointer = *address;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::FreeReserved(cuda::DevicePointer pointer, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Range* range = FindLocked(pointer, Kind::kReserved);
  if (range == nullptr || range->bytes != bytes || range->backing != nullptr) {
    return cuda::kInvalidValue;
  }
  --Counters().reserved_ranges;
  GiveBackLocked(pointer);
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::Map(cuda::DevicePointer pointer,
                               size_t bytes,
                               size_t offset,
                               cuda::AllocationHandle handle) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Range* range = FindLocked(pointer, Kind::kReserved);
  const auto found = handles_.find(handle);
  // A range is mapped as a whole here; the driver could map several allocations into one.
  if (range == nullptr || range->bytes != bytes || found == handles_.end() ||
      offset > found->second.backing->size() || bytes > found->second.backing->size() - offset) {
    return cuda::kInvalidValue;
  }
  if (range->backing != nullptr) {
    return cuda::kAlreadyMapped;
  }
  range->backing = found->second.backing;
  range->backing_offset = offset;
  range->generation = ++generations_;
  Counters().mapped_bytes += bytes;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::Unmap(cuda::DevicePointer pointer, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Range* range = FindLocked(pointer, Kind::kReserved);
  if (range == nullptr || range->bytes != bytes || range->backing == nullptr) {
    return cuda::kInvalidValue;
  }
  range->backing = nullptr;
  range->accessible = false;
  Counters().mapped_bytes -= bytes;
  return cuda::kSuccess;
}

cuda::Result DeviceMemory::SetAccess(cuda::DevicePointer pointer, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Range* range = FindLocked(pointer, Kind::kReserved);
  if (range == nullptr || range->bytes != bytes || range->backing == nullptr) {
    return cuda::kInvalidValue;
  }
  range->accessible = true;
  return cuda::kSuccess;
}

}  // namespace terrace::stand_in
