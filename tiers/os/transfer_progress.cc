#include "tiers/os/transfer_progress.h"

#include <errno.h>

#include <cstdint>
#include <limits>

#include "absl/status/status.h"

#include "tiers/os/async_io.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

// Going on inside one of these would be refused as unaligned by some media.
constexpr uint64_t kDirectBytes = AlignedBuffer::kAlignment;

const char* NameOf(IoKind kind) {
  switch (kind) {
    case IoKind::kRead:
      return "read";
    case IoKind::kWrite:
      return "write";
    case IoKind::kSync:
      return "sync";
  }
  return "?";
}

}  // namespace

TransferProgress::TransferProgress(const IoRequest& request)
    : kind_(request.kind),
      direct_(request.file->direct()),
      offset_(request.offset),
      rest_(request.pieces) {
  for (const absl::Span<char> piece : rest_) {
    rest_bytes_ += piece.size();
  }
}

void TransferProgress::Advance(uint64_t bytes) {
  bytes_ += bytes;
  offset_ += bytes;
  rest_bytes_ -= bytes;
  size_t whole = 0;
  while (whole < rest_.size() && bytes >= rest_[whole].size()) {
    bytes -= rest_[whole].size();
    ++whole;
  }
  rest_.erase(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(whole));
  if (!rest_.empty()) {
    rest_.front().remove_prefix(bytes);
  }
}

bool TransferProgress::Take(int64_t result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++repeats_ <= kMaxRepeats) {
      return false;
    }
  }
  if (result < 0) {
    status_ = StatusFromErrno(static_cast<int>(-result), NameOf(kind_));
    return true;
  }
  if (kind_ == IoKind::kSync) {
    return true;
  }
  const auto moved = static_cast<uint64_t>(result);
  if (moved > rest_bytes_) {
    status_ = absl::InternalError("more bytes moved than were asked for");
    return true;
  }
  Advance(moved);
  if (rest_bytes_ == 0) {
    return true;
  }
  if (kind_ == IoKind::kRead) {
    // A direct read that stops there stopped at the end of the file.
    return moved == 0 || (direct_ && moved % kDirectBytes != 0);
  }
  if (moved == 0 || (direct_ && moved % kDirectBytes != 0)) {
    // A full file system may show first as a write that moves less.
    status_ = absl::ResourceExhaustedError("write: nothing more was taken");
    return true;
  }
  repeats_ = 0;
  return false;
}

absl::Status ValidateRequest(const IoRequest& request) {
  if (request.file == nullptr) {
    return absl::InvalidArgumentError("file: none");
  }
  if (request.kind == IoKind::kSync) {
    return request.pieces.empty() ? absl::OkStatus()
                                  : absl::InvalidArgumentError("pieces: a sync has none");
  }
  if (request.pieces.empty() || request.pieces.size() > kMaxIoPieces) {
    return absl::InvalidArgumentError("pieces: 1 to 64");
  }
  uint64_t bytes = 0;
  for (const absl::Span<char> piece : request.pieces) {
    bytes += piece.size();
  }
  if (bytes == 0 || bytes > uint64_t{1} << 30) {
    return absl::InvalidArgumentError("pieces: 1 byte to 1 GiB together");
  }
  if (request.offset > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) - bytes) {
    return absl::InvalidArgumentError("offset: beyond what a file can have");
  }
  return absl::OkStatus();
}

}  // namespace terrace
