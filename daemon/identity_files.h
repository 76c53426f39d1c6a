// What this node is called in pools, and which pools they were: small files of the data folder,
// each 32 hexadecimal digits and a newline.
//
// DATA/node       this node, made once; a second daemon with a copy of the data folder would be the
//                 same node, and the pool refuses neither: make each data folder anew
// DATA/pool-NAME  the pool of the shared tier NAME, so that no other one is taken for it
//
// Threads: calls for different files from any; for one, from one at a time.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

// Made, durably, where there is none yet. Errors: FAILED_PRECONDITION (what lies there is no such
// file), PERMISSION_DENIED, INTERNAL; each names the file.
absl::StatusOr<Digest128> NodeIdentity(const std::string& data_dir);

// Zero: none is remembered. The same errors.
absl::StatusOr<Digest128> RememberedPool(const std::string& data_dir, const std::string& tier);
absl::Status RememberPool(const std::string& data_dir,
                          const std::string& tier,
                          const Digest128& pool);

}  // namespace terrace
