#include "tiers/gpu/imported_allocations.h"

#include <utility>

#include "absl/status/status.h"

namespace terrace::cuda {
namespace {

absl::StatusOr<std::shared_ptr<const ImportedMemory>> Share(absl::StatusOr<ImportedMemory> memory) {
  if (!memory.ok()) {
    return memory.status();
  }
  return std::make_shared<const ImportedMemory>(*std::move(memory));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ImportedMemory>> ImportedAllocations::OpenIpc(
    const PrimaryContext& context, const IpcMemHandle& handle, uint64_t allocation_bytes) {
  absl::erase_if(open_, [](const auto& entry) { return entry.second.memory.expired(); });
  const std::string name(handle.reserved, sizeof(handle.reserved));
  if (const auto known = open_.find(name); known != open_.end()) {
    if (known->second.allocation_bytes != allocation_bytes) {
      return absl::InvalidArgumentError("allocation_bytes: another region says otherwise");
    }
    return known->second.memory.lock();
  }
  absl::StatusOr<std::shared_ptr<const ImportedMemory>> memory =
      Share(ImportedMemory::OpenIpc(context, handle, allocation_bytes));
  if (memory.ok()) {
    open_[name] = {*memory, allocation_bytes};
  }
  return memory;
}

absl::StatusOr<std::shared_ptr<const ImportedMemory>> ImportedAllocations::MapShared(
    const PrimaryContext& context, const Descriptor& descriptor, uint64_t allocation_bytes) {
  return Share(ImportedMemory::MapShared(context, descriptor, allocation_bytes));
}

}  // namespace terrace::cuda
