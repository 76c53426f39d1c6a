// BlockIndex over RocksDB, in a folder of its own.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

struct RocksdbBlockIndexOptions {
  std::string path;                  // made when absent; its parent is not
  Digest128 tier_uuid;               // whose index it is
  uint64_t memory_bytes = 32 << 20;  // of write buffers and cache together
};

struct OpenedBlockIndex {
  std::unique_ptr<BlockIndex> index;
  // Why it begins empty: "" when it does not, or was never there.
  std::string rebuilt_because;
};

// What cannot be opened, belongs to another tier, or is of another version begins anew: the folder
// is set aside as PATH.bad (an earlier one is removed) and an empty index made. A folder that holds
// anything but an index of this kind is left alone.
// FAILED_PRECONDITION: such a folder. UNAVAILABLE: another process has it open.
// Blocks: below a second while batches are synced regularly.
absl::StatusOr<OpenedBlockIndex> OpenRocksdbBlockIndex(const RocksdbBlockIndexOptions& options);

}  // namespace terrace
