#include "daemon/gpu/gpu_get.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "daemon/gpu/part_slice.h"

namespace terrace {
namespace {

// Payload that a call has pinned or being read at a time: several pieces for the copy engine, and
// enough for a lower tier to be read at its full rate.
constexpr uint64_t kWindowBytes = uint64_t{512} << 20;

GetOutcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return GetOutcome::kOk;
    case absl::StatusCode::kCancelled:
      return GetOutcome::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return GetOutcome::kDeadline;
    case absl::StatusCode::kInvalidArgument:
      return GetOutcome::kInvalid;
    case absl::StatusCode::kResourceExhausted:
      return GetOutcome::kBusy;
    default:
      return GetOutcome::kRegionFailed;
  }
}

class GpuGet final : public GpuCall {
 public:
  explicit GpuGet(GpuGetParts parts) : parts_(std::move(parts)) {
    uint32_t position = 0;
    for (uint32_t p = 0; p < parts_.call.parts.size(); ++p) {
      const uint32_t keys = parts_.call.parts[p].key_count();
      const GpuRegion& region = *parts_.regions[p];
      const auto most = static_cast<uint32_t>(
          std::clamp<uint64_t>(kGpuPieceBytes / std::max<uint64_t>(region.payload_bytes, 1), 1,
                               std::min(kMaxBlocksOfPiece, region.MaxBlocksOfCopy())));
      part_states_.push_back({position, (keys + most - 1) / most, false, false});
      for (uint32_t first = 0; first < keys; first += most) {
        waiting_.push_back({p, first, std::min(most, keys - first)});
      }
      position += keys;
    }
    result_.outcomes.assign(position, static_cast<char>(GetOutcome::kMiss));
    result_.payload_bytes.assign(position, 0);
  }

 private:
  void Work() override {
    AskStore();
    for (PartCopy& copy : TakeCopies()) {
      Begin(std::move(copy));
    }
  }

  [[nodiscard]] bool IsOverLocked() const override ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return uploads_ == 0 && found_.empty() && (cancelled_ || (waiting_.empty() && asked_ == 0));
  }

  void Finish() override {
    GetResult result;
    {
      const absl::MutexLock lock(&mutex_);
      if (cancelled_) {
        for (const Group& group : waiting_) {
          const auto first = static_cast<std::ptrdiff_t>(part_states_[group.part].position) +
                             static_cast<std::ptrdiff_t>(group.first);
          std::fill_n(result_.outcomes.begin() + first, group.count,
                      static_cast<char>(GetOutcome::kCancelled));
        }
      }
      HideWhatFollowsMissesLocked();
      result = std::move(result_);
    }
    std::exchange(parts_.done, nullptr)(std::move(result));
  }

  // Keys of a part that follow each other.
  struct Group {
    uint32_t part = 0;
    uint32_t first = 0;
    uint32_t count = 0;
  };
  struct PartState {
    uint32_t position = 0;     // of its first key in the reply
    uint32_t groups_left = 0;  // that the store has not answered for
    bool begun = false;        // a copy of it
    bool stopped = false;      // what follows could not be used
  };
  struct Found {
    Group group;
    GetResult result;
  };
  // What is copied together: of one part.
  struct PartCopy {
    uint32_t part = 0;
    std::vector<GpuBlock> blocks;
    std::vector<uint32_t> positions;      // in the reply, of each block
    std::vector<uint32_t> payload_bytes;  // likewise
    std::vector<std::shared_ptr<const void>> reading;
    bool whole_part = false;
  };

  [[nodiscard]] uint64_t BytesOf(const Group& group) const {
    return group.count * parts_.regions[group.part]->payload_bytes;
  }

  // Asks for groups as long as the window allows it.
  void AskStore() {
    for (;;) {
      Group group;
      {
        const absl::MutexLock lock(&mutex_);
        DropStoppedLocked();
        if (cancelled_ || blocked_ || waiting_.empty() ||
            (window_ > 0 && window_ + BytesOf(waiting_.front()) > kWindowBytes)) {
          return;
        }
        group = waiting_.front();
        waiting_.pop_front();
        window_ += BytesOf(group);
        ++asked_;
      }
      GetCall call;
      call.parts.push_back(SliceOf(parts_.call.parts[group.part], group.first, group.count));
      call.delivery = Delivery::kInPlace;
      call.sampled = true;
      call.hold_id = parts_.call.hold_id;
      call.wait_pending = parts_.call.wait_pending;
      call.deadline = parts_.call.deadline;
      parts_.get(std::move(call),
                 [this, self = shared_from_this(), group](absl::StatusOr<GetResult> result) {
                   Answered(group, std::move(result));
                 });
    }
  }

  // Behind a miss in a chain nothing is looked up.
  void DropStoppedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!waiting_.empty() && part_states_[waiting_.front().part].stopped) {
      --part_states_[waiting_.front().part].groups_left;
      waiting_.pop_front();
    }
  }

  void Answered(const Group& group, absl::StatusOr<GetResult> result) {
    {
      const absl::MutexLock lock(&mutex_);
      --asked_;
      if (ended_) {
        return;  // cancelled: the blocks are given back with the result
      }
      PartState& part = part_states_[group.part];
      --part.groups_left;
      if (!result.ok()) {
        part.stopped = true;
        window_ -= BytesOf(group);
      } else {
        found_.push_back({group, *std::move(result)});
      }
    }
    Pump();
  }

  // What the store has found is made into one copy a part.
  std::vector<PartCopy> TakeCopies() {
    std::vector<Found> dropped;  // given back without the lock
    const absl::MutexLock lock(&mutex_);
    if (cancelled_) {
      for (const Found& found : found_) {
        waiting_.push_back(found.group);
      }
      dropped.swap(found_);
      return {};
    }
    std::vector<PartCopy> copies;
    for (Found& found : std::exchange(found_, {})) {
      const uint64_t most = parts_.regions[found.group.part]->MaxBlocksOfCopy();
      const auto same = std::find_if(copies.begin(), copies.end(), [&](const PartCopy& copy) {
        return copy.part == found.group.part && copy.blocks.size() + found.group.count <= most;
      });
      PartCopy& copy = same != copies.end() ? *same : copies.emplace_back();
      copy.part = found.group.part;
      TakeFoundLocked(found, copy);
    }
    std::erase_if(copies, [](const PartCopy& copy) { return copy.blocks.empty(); });
    for (PartCopy& copy : copies) {
      PartState& part = part_states_[copy.part];
      const auto of_part = std::count_if(copies.begin(), copies.end(), [&](const PartCopy& other) {
        return other.part == copy.part;
      });
      copy.whole_part = of_part == 1 && !part.begun && part.groups_left == 0;
    }
    for (const PartCopy& copy : copies) {
      part_states_[copy.part].begun = true;
    }
    uploads_ += copies.size();
    return copies;
  }

  void TakeFoundLocked(Found& found, PartCopy& copy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Group& group = found.group;
    PartState& part = part_states_[group.part];
    const bool is_chain = parts_.call.parts[group.part].rule == Rule::kPrefix;
    uint64_t pinned = 0;
    uint32_t taken = group.count;  // keys that are decided
    for (uint32_t i = 0; i < group.count; ++i) {
      const uint32_t position = part.position + group.first + i;
      auto outcome = static_cast<GetOutcome>(found.result.outcomes[i]);
      const uint32_t index = parts_.call.regions[group.part].block_indexes[group.first + i];
      const GpuRegion& region = *parts_.regions[group.part];
      if (outcome == GetOutcome::kOk &&
          (index >= region.block_count || found.result.payload_bytes[i] > region.payload_bytes)) {
        outcome = GetOutcome::kInvalid;
      }
      if (outcome == GetOutcome::kBusy && (uploads_ > 0 || !copy.blocks.empty())) {
        taken = i;  // what is pinned goes up first, and makes room
        break;
      }
      result_.outcomes[position] = static_cast<char>(outcome);
      if (outcome == GetOutcome::kOk) {
        copy.blocks.push_back({found.result.slab_ids[i], index, found.result.slab_offsets[i],
                               found.result.payload_bytes[i]});
        copy.positions.push_back(position);
        copy.payload_bytes.push_back(found.result.payload_bytes[i]);
        pinned += region.payload_bytes;
      } else {
        part.stopped = part.stopped || is_chain;
      }
    }
    if (found.result.reading != nullptr) {
      copy.reading.push_back(std::move(found.result.reading));
    }
    if (taken < group.count) {
      waiting_.push_front({group.part, group.first + taken, group.count - taken});
      ++part.groups_left;
      blocked_ = true;
    }
    window_ -= BytesOf(group) - pinned;
  }

  void Begin(PartCopy copy) {
    const GpuOrder& order = parts_.orders[copy.part];
    const GpuRegion& region = *parts_.regions[copy.part];
    GpuCopyCall call;
    call.region = region.number;
    call.tenant = parts_.tenant;
    call.direction = cuda::CopyDirection::kToDevice;
    call.blocks = std::move(copy.blocks);
    call.behind = order.behind;
    call.deadline = parts_.call.deadline;
    if (copy.whole_part) {
      call.progress_slot = order.progress_slot;
    }
    const auto shared = std::make_shared<PartCopy>(std::move(copy));
    Copy(region.device, std::move(call),
         [this, shared](const absl::Status& status) { Copied(*shared, status); });
  }

  void Copied(PartCopy& copy, const absl::Status& status) {
    copy.reading.clear();
    const absl::MutexLock lock(&mutex_);
    --uploads_;
    blocked_ = false;
    const GetOutcome outcome = OutcomeOf(status);
    for (size_t i = 0; i < copy.positions.size(); ++i) {
      result_.outcomes[copy.positions[i]] = static_cast<char>(outcome);
      result_.payload_bytes[copy.positions[i]] =
          outcome == GetOutcome::kOk ? copy.payload_bytes[i] : 0;
      window_ -= parts_.regions[copy.part]->payload_bytes;
    }
    PartState& part = part_states_[copy.part];
    part.stopped = part.stopped || (outcome != GetOutcome::kOk &&
                                    parts_.call.parts[copy.part].rule == Rule::kPrefix);
  }

  // Groups are looked up beside each other: one behind a miss may have been found, and copied.
  void HideWhatFollowsMissesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (size_t p = 0; p < part_states_.size(); ++p) {
      if (parts_.call.parts[p].rule != Rule::kPrefix) {
        continue;
      }
      bool missed = false;
      const uint32_t begin = part_states_[p].position;
      for (uint32_t i = begin; i < begin + parts_.call.parts[p].key_count(); ++i) {
        if (missed && result_.outcomes[i] == static_cast<char>(GetOutcome::kOk)) {
          result_.outcomes[i] = static_cast<char>(GetOutcome::kMiss);
          result_.payload_bytes[i] = 0;
        }
        missed = missed || result_.outcomes[i] == static_cast<char>(GetOutcome::kMiss);
      }
    }
  }

  GpuGetParts parts_;
  std::vector<PartState> part_states_ ABSL_GUARDED_BY(mutex_);
  std::deque<Group> waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<Found> found_ ABSL_GUARDED_BY(mutex_);
  GetResult result_ ABSL_GUARDED_BY(mutex_);
  uint64_t window_ ABSL_GUARDED_BY(mutex_) = 0;   // bytes of groups that have not come to an end
  uint32_t asked_ ABSL_GUARDED_BY(mutex_) = 0;    // groups that the store is to answer for
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;  // until a copy has given blocks back
  // Copies that say nothing yet in the result. Not those of copies_: one that has left it is still
  // to tell how it ended.
  uint64_t uploads_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

std::shared_ptr<GpuCall> BeginGpuGet(GpuGetParts parts) {
  auto get = std::make_shared<GpuGet>(std::move(parts));
  get->Pump();
  return get;
}

}  // namespace terrace
