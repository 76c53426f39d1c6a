#include "daemon/gpu/gpu_put.h"

#include <algorithm>
#include <string>
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
    held_ = std::move(parts_.held);
    held_.resize(keys, '\0');
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
      if (parts_.region->closed) {
        EndRestLocked(PutOutcome::kFailed, Reason::kRegionFailed);
      } else if (parts_.clock->Now() >= parts_.call.deadline) {
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
    return pieces_ == 0 && next_ == parts_.call.part.key_count() && missing_.empty();
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

  // Keys that follow each other: all of them thought to be held, or all copied from the device.
  struct Piece {
    uint32_t first = 0;
    uint32_t count = 0;
    bool is_held = false;
    std::shared_ptr<PoolBuffer> staging;
    std::vector<GpuBlock> blocks;  // and where in the staging memory they are put down
    uint64_t payload_bytes = 0;    // of them
    uint64_t staging_bytes = 0;
  };

  void EndRestLocked(PutOutcome outcome, Reason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    waits_for_staging_ = false;
    for (const uint32_t key : std::exchange(missing_, {})) {
      SetLocked(key, outcome, reason);
    }
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
    if ((next_ == keys && missing_.empty()) || pieces_ == kMaxPieces) {
      return nullptr;
    }
    const bool is_second_try = !missing_.empty();
    const uint32_t first = is_second_try ? missing_.back() : next_;
    const std::shared_ptr<Piece> piece = PieceOfLocked(first, is_second_try ? first + 1 : keys);
    if (!piece->is_held) {
      piece->staging = parts_.region->device->TakeStaging(piece->staging_bytes);
      waits_for_staging_ = piece->staging == nullptr;
      if (waits_for_staging_) {
        return nullptr;
      }
    }
    if (is_second_try) {
      missing_.pop_back();
    } else {
      next_ += piece->count;
    }
    ++pieces_;
    return piece;
  }

  // From the key `first` on, which is valid, and before `end`; without its staging memory.
  [[nodiscard]] std::shared_ptr<Piece> PieceOfLocked(uint32_t first, uint32_t end) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    auto piece = std::make_shared<Piece>();
    piece->first = first;
    const char is_held = held_[first];
    piece->is_held = is_held != '\0';
    const uint64_t most = std::min(kMaxBlocksOfPiece, parts_.region->MaxBlocksOfCopy());
    for (uint32_t key = first; key < end && IsValid(key) && held_[key] == is_held; ++key) {
      const uint64_t payload = parts_.call.payload_bytes[key];
      const bool is_full = piece->count == most || piece->staging_bytes + payload > kGpuPieceBytes;
      if (!piece->is_held && piece->count > 0 && is_full) {
        break;
      }
      ++piece->count;
      if (!piece->is_held) {
        piece->blocks.push_back(
            {kStagingSlab, parts_.call.region.block_indexes[key], piece->staging_bytes, payload});
        piece->staging_bytes += RoundedUp(payload);
        piece->payload_bytes += payload;
      }
    }
    return piece;
  }

  void Save(const std::shared_ptr<Piece>& piece) {
    if (piece->is_held) {
      return Store(piece);
    }
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
    if (status.ok()) {
      parts_.saved(piece->payload_bytes);
      return Store(piece);
    }
    const absl::MutexLock lock(&mutex_);
    for (uint32_t i = 0; i < piece->count; ++i) {
      SetLocked(piece->first + i, PutOutcome::kFailed, ReasonOf(status));
    }
    EndRestLocked(PutOutcome::kFailed, ReasonOf(status));
    --pieces_;
  }

  void Store(const std::shared_ptr<Piece>& piece) {
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
    call.in_place.assign(piece->count, nullptr);
    for (size_t i = 0; i < piece->blocks.size(); ++i) {
      call.in_place[i] = piece->staging->memory().data() + piece->blocks[i].offset;
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
    parts_.put(std::move(call), [this, self = shared_from_this(), piece](
                                    absl::StatusOr<PutResult> result) { Stored(*piece, result); });
  }

  void Stored(Piece& piece, const absl::StatusOr<PutResult>& result) {
    piece.staging.reset();
    {
      const absl::MutexLock lock(&mutex_);
      --pieces_;
      bool declined = false;
      for (uint32_t i = 0; i < piece.count && result.ok(); ++i) {
        const uint32_t key = piece.first + i;
        if (piece.is_held && result->reasons[i] == static_cast<char>(Reason::kInvalid)) {
          TryAgainLocked(key);
          continue;
        }
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

  // A key that the store does not hold: with its bytes.
  void TryAgainLocked(uint32_t key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (cancelled_) {
      SetLocked(key, PutOutcome::kFailed, Reason::kCancelled);
      return;
    }
    held_[key] = '\0';
    missing_.push_back(key);
  }

  GpuPutParts parts_;
  uint32_t next_ ABSL_GUARDED_BY(mutex_) = 0;    // key that is not decided or begun
  // Keys before it that the store did not hold after all, and that are to be copied.
  std::vector<uint32_t> missing_ ABSL_GUARDED_BY(mutex_);
  uint32_t pieces_ ABSL_GUARDED_BY(mutex_) = 0;  // on their way
  std::string held_ ABSL_GUARDED_BY(mutex_);     // keys that need not be copied: a byte each
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
