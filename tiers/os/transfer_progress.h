// How far one transfer has come: what a result of the kernel means, and what is left to move. Pure.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tiers/os/async_io.h"

namespace terrace {

// Thread-compatible.
class TransferProgress {
 public:
  // Interrupted or refused without having moved anything, so often in a row, is a fault.
  static constexpr uint32_t kMaxRepeats = 64;

  TransferProgress() = default;
  explicit TransferProgress(const IoRequest& request);

  // Takes the result of a system call or a completion: bytes moved, or a negative errno. True: the
  // transfer is over, with status() and bytes(). False: move rest() at offset().
  bool Take(int64_t result);

  [[nodiscard]] uint64_t offset() const { return offset_; }
  [[nodiscard]] const IoPieces& rest() const { return rest_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] const absl::Status& status() const { return status_; }

 private:
  void Advance(uint64_t bytes);

  IoKind kind_ = IoKind::kRead;
  bool direct_ = false;
  uint64_t offset_ = 0;
  IoPieces rest_;
  uint64_t rest_bytes_ = 0;
  uint64_t bytes_ = 0;
  uint32_t repeats_ = 0;
  absl::Status status_;
};

// INVALID_ARGUMENT naming what is wrong with a request.
absl::Status ValidateRequest(const IoRequest& request);

}  // namespace terrace
