// Client memory as the double of the service sees it: bytes in a vector, blocks by byte geometry.
// Pure but for the bytes; strides and segments mean what session.proto says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "terrace/v1/session.pb.h"

namespace terrace::doubles {

// Stands for a memfd: owned by the client that made it and by every session that registered it, as
// a descriptor is. Making it smaller while it is registered is what truncating the file would be.
using SharedBytes = std::shared_ptr<std::vector<char>>;

// Payload bytes of one block, or INVALID_ARGUMENT naming what breaks bounds or overlaps.
absl::StatusOr<uint64_t> CheckGeometry(const v1::Geometry& geometry, uint64_t region_bytes);

struct RegionDouble {
  SharedBytes memory;
  uint64_t offset = 0;  // of the region in the memory
  uint64_t bytes = 0;
  v1::Geometry geometry;
  uint64_t payload_bytes = 0;
  bool read_only = false;

  // Copies the first `bytes` of a block out of, or into, the region. False: the memory is no longer
  // that long.
  bool Gather(uint32_t block, uint64_t bytes_wanted, std::string* payload) const;
  bool Scatter(uint32_t block, std::string_view payload) const;
};

}  // namespace terrace::doubles
