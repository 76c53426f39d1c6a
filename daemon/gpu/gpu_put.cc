#include "daemon/gpu/gpu_put.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/gpu/part_slice.h"

namespace terrace {
namespace {

// Pieces that are on their way at a time: one is copied from the device while others are taken into
// the arena.
constexpr uint32_t kMaxPieces = 4;
// Where a block begins in the staging memory: at a cache line of its own.
constexpr uint64_t kPlaceAlignment = 256;

constexpr uint64_t RoundedUp(uint64_t bytes) {
  return (bytes + kPlaceAlignment - 1) / kPlaceAlignment * kPlaceAlignment;
}

Reason ReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return Reason::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kDeadline;
    case absl::StatusCode::kInvalidArgument:
      return Reason::kInvalid;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kBusy;
    default:
      return Reason::kRegionFailed;
  }
}

class GpuPut final : public GpuCall {
 public:
  explicit GpuPut(GpuPutParts parts) : parts_(std::move(parts)) {
    const uint32_t keys = parts_.call.part.key_count();
    result_.outcomes.assign(keys, static_cast<char>(PutOutcome::kFailed));
    result_.reasons.assign(keys, static_cast<char>(Reason::kNone));
    result_.levels.assign(keys, '\0');
  }

  void Tick() override {
    {
      const absl::MutexLock lock(&mutex_);
      if (!waits_for_staging_) {
        return;
      }
      if (parts_.clock->Now() >= parts_.call.deadline) {
        EndRestLocked(PutOutcome::kFailed, Reason::kDeadline);
      }
    }
    Pump();
  }

 private:
  void Work() override {
    while (std::shared_ptr<Piece> piece = TakePiece()) {
      Save(piece);
    }
  }
  [[nodiscard]] bool IsOverLocked() const override ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return pieces_ == 0 && next_ == parts_.call.part.key_count();
  }
  void StopLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    EndRestLocked(PutOutcome::kFailed, Reason::kCancelled);
  }
  void Finish() override {
    absl::StatusOr<PutResult> result = PutResult{};
    {
      const absl::MutexLock lock(&mutex_);
      result = refused_.ok() ? absl::StatusOr<PutResult>(std::move(result_)) : refused_;
    }
    std::exchange(parts_.done, nullptr)(std::move(result));
  }

  // Keys that follow each other, and where their payloads are put down.
  struct Piece {
    uint32_t first = 0;
    uint32_t count = 0;
    std::shared_ptr<PoolBuffer> staging;
    std::vector<GpuBlock> blocks;
    uint64_t payload_bytes = 0;
  };

  void EndRestLocked(PutOutcome outcome, Reason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    waits_for_staging_ = false;
    for (; next_ < parts_.call.part.key_count(); ++next_) {
      SetLocked(next_, outcome, reason);
    }
  }
  void SetLocked(uint32_t key, PutOutcome outcome, Reason reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    result_.outcomes[key] = static_cast<char>(outcome);
    result_.reasons[key] = static_cast<char>(reason);
  }

  [[nodiscard]] bool IsValid(uint32_t key) const {
    const uint64_t bytes = parts_.call.payload_bytes[key];
    return bytes > 0 && bytes <= parts_.region->payload_bytes &&
           parts_.call.region.block_indexes[key] < parts_.region->block_count;
  }

  // nullptr: none can be begun now.
  std::shared_ptr<Piece> TakePiece() {
    const absl::MutexLock lock(&mutex_);
    const uint32_t keys = parts_.call.part.key_count();
    for (; next_ < keys && !IsValid(next_); ++next_) {
      SetLocked(next_, PutOutcome::kFailed, Reason::kInvalid);
    }
    if (next_ == keys || pieces_ == kMaxPieces) {
      return nullptr;
    }
    auto piece = std::make_shared<Piece>();
    piece->first = next_;
    const uint64_t most = std::min(kMaxBlocksOfPiece, parts_.region->MaxBlocksOfCopy());
    uint64_t bytes = 0;
    for (uint32_t key = next_; key < keys && IsValid(key) && piece->count < most; ++key) {
      const uint64_t payload = parts_.call.payload_bytes[key];
      if (piece->count > 0 && bytes + payload > kGpuPieceBytes) {
        break;
      }
      piece->blocks.push_back(
          {kStagingSlab, parts_.call.region.block_indexes[key], bytes, payload});
      bytes += RoundedUp(payload);
      piece->payload_bytes += payload;
      ++piece->count;
    }
    piece->staging = parts_.region->device->TakeStaging(bytes);
    waits_for_staging_ = piece->staging == nullptr;
    if (waits_for_staging_) {
      return nullptr;
    }
    next_ += piece->count;
    ++pieces_;
    return piece;
  }

  void Save(const std::shared_ptr<Piece>& piece) {
    GpuCopyCall call;
    call.region = parts_.region->number;
    call.tenant = parts_.tenant;
    call.direction = cuda::CopyDirection::kToHost;
    call.blocks = piece->blocks;
    call.staging = piece->staging;
    call.behind = parts_.order.behind;
    call.deadline = parts_.call.deadline;
    Copy(parts_.region->device, std::move(call),
         [this, piece](const absl::Status& status) { Saved(piece, status); });
  }

  void Saved(const std::shared_ptr<Piece>& piece, const absl::Status& status) {
    if (!status.ok()) {
      const absl::MutexLock lock(&mutex_);
      for (uint32_t i = 0; i < piece->count; ++i) {
        SetLocked(piece->first + i, PutOutcome::kFailed, ReasonOf(status));
      }
      EndRestLocked(PutOutcome::kFailed, ReasonOf(status));
      --pieces_;
      return;
    }
    parts_.saved(piece->payload_bytes);
    const PutCall& whole = parts_.call;
    PutCall call;
    call.part = SliceOf(whole.part, piece->first, piece->count);
    if (piece->first == 0) {
      call.parent = whole.parent;
    } else if (whole.part.rule == Rule::kPrefix) {
      call.parent = std::string(whole.part.key(piece->first - 1));
    }
    call.payload_bytes.assign(whole.payload_bytes.begin() + piece->first,
                              whole.payload_bytes.begin() + piece->first + piece->count);
    for (const GpuBlock& block : piece->blocks) {
      call.in_place.push_back(piece->staging->memory().data() + block.offset);
    }
    if (!whole.metadata.empty()) {
      call.metadata.assign(whole.metadata.begin() + piece->first,
                           whole.metadata.begin() + piece->first + piece->count);
    }
    call.hints = whole.hints;
    call.wait_for = whole.wait_for;
    call.deadline = whole.deadline;
    if (piece->count == whole.part.key_count()) {
      call.compute_time = whole.compute_time;  // it is of all blocks together
    }
    parts_.store->Put({parts_.tenant, kNoSession}, std::move(call),
                      [this, self = shared_from_this(), piece](absl::StatusOr<PutResult> result) {
                        Stored(*piece, result);
                      });
  }

  void Stored(Piece& piece, const absl::StatusOr<PutResult>& result) {
    piece.staging.reset();
    {
      const absl::MutexLock lock(&mutex_);
      --pieces_;
      bool declined = false;
      for (uint32_t i = 0; i < piece.count && result.ok(); ++i) {
        const uint32_t key = piece.first + i;
        result_.outcomes[key] = result->outcomes[i];
        result_.reasons[key] = result->reasons[i];
        result_.levels[key] = result->levels[i];
        declined = declined || result->outcomes[i] == static_cast<char>(PutOutcome::kDeclined);
      }
      if (!result.ok()) {
        refused_ = result.status();
        EndRestLocked(PutOutcome::kFailed, Reason::kCancelled);
      } else if (declined && parts_.call.part.rule == Rule::kPrefix) {
        // What follows a block that was not let in could never be used.
        EndRestLocked(PutOutcome::kDeclined, Reason::kAdmission);
      }
    }
    Pump();
  }

  GpuPutParts parts_;
  uint32_t next_ ABSL_GUARDED_BY(mutex_) = 0;    // key that is not decided or begun
  uint32_t pieces_ ABSL_GUARDED_BY(mutex_) = 0;  // on their way
  PutResult result_ ABSL_GUARDED_BY(mutex_);
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);  // what the store said of a piece
  bool waits_for_staging_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::shared_ptr<GpuCall> BeginGpuPut(GpuPutParts parts) {
  auto put = std::make_shared<GpuPut>(std::move(parts));
  put->Pump();
  return put;
}

}  // namespace terrace
