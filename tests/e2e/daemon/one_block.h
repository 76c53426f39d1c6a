// The smallest thing that a test can ask a daemon for: one key of a namespace of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "terrace/v1/cache.grpc.pb.h"

namespace terrace {

// A stub on terrace.sock of this runtime folder. Does not connect yet.
std::unique_ptr<v1::Cache::Stub> CacheStub(const std::string& runtime_dir);

// Opens a namespace of blocks of `block_bytes`, which is the same one at every call with the same
// size; the part names one key in it, which is always the same, too. Blocks until the daemon
// answers. Errors: as the daemon gives them.
absl::StatusOr<v1::Part> OneBlockPart(v1::Cache::Stub& stub, uint64_t block_bytes);

}  // namespace terrace
