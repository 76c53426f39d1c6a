// Device memory of other processes, each allocation opened once however many regions lie in it: a
// legacy handle cannot be opened twice by one process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "tiers/gpu/cuda_objects.h"
#include "tiers/os/descriptor.h"

namespace terrace::cuda {

// Thread-compatible; outlives nothing: owners of the memory may outlive it.
class ImportedAllocations {
 public:
  // Owners: the regions. Errors: as ImportedMemory::OpenIpc; INVALID_ARGUMENT too where the
  // allocation is open with another size.
  absl::StatusOr<std::shared_ptr<const ImportedMemory>> OpenIpc(const PrimaryContext& context,
                                                                const IpcMemHandle& handle,
                                                                uint64_t allocation_bytes);
  // As ImportedMemory::MapShared: every descriptor is an allocation of its own.
  static absl::StatusOr<std::shared_ptr<const ImportedMemory>> MapShared(
      const PrimaryContext& context, const Descriptor& descriptor, uint64_t allocation_bytes);

 private:
  struct Open {
    std::weak_ptr<const ImportedMemory> memory;
    uint64_t allocation_bytes = 0;
  };
  absl::flat_hash_map<std::string, Open> open_;  // by handle
};

}  // namespace terrace::cuda
