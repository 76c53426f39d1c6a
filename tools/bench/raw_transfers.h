// Reads and writes of a plain file, O_DIRECT through io_uring, from and into registered memory:
// what a tier on the same folder is measured against. Confined to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tiers/os/async_io.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"

namespace terrace::bench {

class RawTransfers {
 public:
  struct Options {
    std::string folder;  // made if absent
    uint64_t block_bytes = 0;
    uint32_t blocks = 0;  // of the file
    uint32_t depth = 1;   // transfers at a time
  };
  // Makes the file, every byte of it written. Errors: UNAVAILABLE where the kernel has no io_uring,
  // FAILED_PRECONDITION where the file system has no O_DIRECT; else those of the file.
  static absl::StatusOr<std::unique_ptr<RawTransfers>> Create(const Options& options);

  // Makes the file anew: preallocated, and nothing of it written, which makes writes slower. Its
  // owner's folder keeps no more than one file.
  absl::Status Renew();

  // Seconds for `count` blocks from `begin`.
  absl::StatusOr<double> Read(uint32_t begin, uint32_t count) {
    return Run(IoKind::kRead, begin, count);
  }
  absl::StatusOr<double> Write(uint32_t begin, uint32_t count) {
    return Run(IoKind::kWrite, begin, count);
  }

 private:
  explicit RawTransfers(Options options) : options_(std::move(options)) {}
  absl::StatusOr<double> Run(IoKind kind, uint32_t begin, uint32_t count);

  const Options options_;
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<File> file_;
  SealedMemory memory_;
  std::unique_ptr<AsyncIo> io_;
};

}  // namespace terrace::bench
