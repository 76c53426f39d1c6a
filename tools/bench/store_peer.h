// Other stores that keep bytes under keys in DRAM, each started privately on a Unix socket and
// spoken to in its own protocol without a library in between: bytes go from and to the caller's
// memory directly, which is the fastest that the protocol allows. One call at a time; confined to
// one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace terrace::bench {

class StorePeer {
 public:
  virtual ~StorePeer() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;  // as its figures begin
  // key: printable, without spaces.
  virtual absl::Status Put(std::string_view key, absl::Span<const char> payload) = 0;
  // The payload must have exactly out.size() bytes. NOT_FOUND: it isn't there.
  virtual absl::Status Get(std::string_view key, absl::Span<char> out) = 0;
  virtual absl::Status Delete(std::string_view key) = 0;
};

struct PeerKind {
  const char* name;
  const char* program;
  absl::StatusOr<std::unique_ptr<StorePeer>> (*start)(const std::string& folder,
                                                      uint64_t memory_bytes);
};
// All that are known. `start` makes sockets and logs in `folder`. Errors: NOT_FOUND where the
// program is not installed.
absl::Span<const PeerKind> PeerKinds();

}  // namespace terrace::bench
