#include "daemon/kept_index.h"

#include <utility>

#include "tiers/index/rocksdb_block_index.h"

namespace terrace {

KeptIndex::KeptIndex(std::string folder, std::string of, Log& log)
    : folder_(std::move(folder)), of_(std::move(of)), log_(log) {}

BlockIndex* KeptIndex::Open(const Digest128& uuid) {
  if (index_ != nullptr && uuid_ == uuid) {
    return index_.get();
  }
  index_.reset();
  uuid_ = uuid;
  RocksdbBlockIndexOptions options;
  options.path = folder_;
  options.tier_uuid = uuid;
  absl::StatusOr<OpenedBlockIndex> opened = OpenRocksdbBlockIndex(options);
  if (!opened.ok()) {
    log_.Warning(
        "an index cannot be used; a start reads the segments instead",
        {{"of", of_}, {"index", folder_}, {"error", std::string(opened.status().message())}});
    return nullptr;
  }
  if (!opened->rebuilt_because.empty()) {
    log_.Warning("an index is built anew",
                 {{"of", of_}, {"index", folder_}, {"because", opened->rebuilt_because}});
  }
  index_ = std::move(opened->index);
  return index_.get();
}

}  // namespace terrace
