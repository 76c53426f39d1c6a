#include <cstdio>
#include <fstream>
#include <string>

#include "tests/doubles/cuda/device_memory.h"

namespace terrace::stand_in {
namespace {

// Whether all of a range is mapped writable, by the kernel's own list.
bool Writable(uintptr_t begin, uintptr_t end) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (begin < end && std::getline(maps, line)) {
    unsigned long from = 0;
    unsigned long to = 0;
    char access[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, access) != 3) {
      return false;
    }
    if (begin >= from && begin < to) {
      if (access[1] != 'w') {
        return false;
      }
      begin = to;
    }
  }
  return begin >= end;
}

}  // namespace

HostRegistry& HostRegistry::Instance() {
  static auto* const registry = new HostRegistry();
  return *registry;
}

cuda::Result HostRegistry::Register(void* memory, size_t bytes, unsigned flags) {
  const bool read_only = (flags & cuda::kHostRegisterReadOnly) != 0;
  if (memory == nullptr || bytes == 0) {
    return cuda::kInvalidValue;
  }
  if (read_only && !ReadOnlyRegistration()) {
    return cuda::kNotSupported;
  }
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  if (!read_only && !Writable(begin, begin + bytes)) {
    return cuda::kInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto after = entries_.lower_bound(begin + bytes);
  if (after != entries_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second.bytes > begin) {
      return cuda::kHostMemoryAlreadyRegistered;
    }
  }
  entries_.emplace(begin, Entry{bytes, read_only});
  Counters().registered_bytes += bytes;
  return cuda::kSuccess;
}

cuda::Result HostRegistry::Unregister(void* memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(reinterpret_cast<uintptr_t>(memory));
  if (found == entries_.end()) {
    return cuda::kHostMemoryNotRegistered;
  }
  Counters().registered_bytes -= found->second.bytes;
  entries_.erase(found);
  return cuda::kSuccess;
}

HostRegistry::Lookup HostRegistry::Find(const void* memory, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto after = entries_.upper_bound(begin);
  if (after == entries_.begin()) {
    return Lookup::kPageable;
  }
  const auto found = std::prev(after);
  if (begin + bytes > found->first + found->second.bytes) {
    return Lookup::kPageable;
  }
  return found->second.read_only ? Lookup::kReadOnly : Lookup::kReadWrite;
}

}  // namespace terrace::stand_in
