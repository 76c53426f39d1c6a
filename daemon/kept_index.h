// An index that one tier keeps in a folder, from its first opening to the end of the process.
//
// Threads: confined to one at a time.
#pragma once

#include <memory>
#include <string>

#include "daemon/log.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

class KeptIndex {
 public:
  // `of`: in the log, "a local drive".
  KeptIndex(std::string folder, std::string of, Log& log);

  // nullptr: it cannot be used, which is logged; the tier does without, and every start reads the
  // footers of its segments. Blocks for as long as OpenRocksdbBlockIndex does. Another uuid ends
  // what was open before.
  BlockIndex* Open(const Digest128& uuid);

 private:
  const std::string folder_;
  const std::string of_;
  Log& log_;
  Digest128 uuid_;
  std::unique_ptr<BlockIndex> index_;
};

}  // namespace terrace
