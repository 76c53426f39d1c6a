// The copy engine's thread.
#include <algorithm>
#include <utility>

#include "absl/time/time.h"

#include "tiers/gpu/copy_engine_core.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// How soon what the driver has finished is seen. A callback of the driver's would be sooner, and
// would not come after an error; events are asked about in any case.
constexpr absl::Duration kLookAtCopies = absl::Microseconds(50);
constexpr absl::Duration kLookAtProducers = absl::Microseconds(200);

}  // namespace

CopyEngineCore::Lane& CopyEngineCore::LaneOf(const TransferState& transfer) {
  return lanes_[transfer.transfer().direction == cuda::CopyDirection::kToDevice ? 0 : 1];
}

CopyEngineCore::Ring* CopyEngineCore::ring() {
  const absl::MutexLock lock(&mutex_);
  return ring_.get();
}

void CopyEngineCore::Loop() {
  if (!context_.MakeCurrent().ok()) {
    Fail(cuda::kInvalidContext, "cuCtxSetCurrent");
  }
  while (!stopping_ || !live_.empty()) {
    Accept(TakeInbox());
    for (Lane& lane : lanes_) {
      Reap(lane);
    }
    for (Lane& lane : lanes_) {
      BeginAll(lane);
    }
    FinishEnded();
  }
}

bool CopyEngineCore::HasToLook() const {
  return std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
    return !lane.with_driver.empty() || !lane.waiting.empty();
  });
}

CopyEngineCore::Inbox CopyEngineCore::TakeInbox() {
  const bool copies = !lanes_[0].with_driver.empty() || !lanes_[1].with_driver.empty();
  const absl::Duration patience = !HasToLook() ? absl::InfiniteDuration()
                                  : copies     ? kLookAtCopies
                                               : kLookAtProducers;
  const auto called = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !inbox_.empty(); };
  const absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&called), patience);
  return std::exchange(inbox_, Inbox{});
}

void CopyEngineCore::Accept(Inbox inbox) {
  for (Transfer& transfer : inbox.arrivals) {
    live_.emplace(transfer->token(), transfer);
    if (failed_ || stopping_) {
      transfer->Abandon();
      NoteEnd(transfer);
    } else {
      if (gathering_->Suits(transfer->transfer().direction, transfer->transfer().plan.pieces)) {
        transfer->Gather();
      }
      LaneOf(*transfer).waiting.push_back(std::move(transfer));
    }
  }
  for (const uint64_t token : inbox.cancels) {
    CancelOne(token);
  }
  if (inbox.stop) {
    stopping_ = true;
    std::vector<uint64_t> tokens;
    for (const auto& [token, transfer] : live_) {
      tokens.push_back(token);
    }
    std::for_each(tokens.begin(), tokens.end(), [this](uint64_t token) { CancelOne(token); });
  }
  for (Running& running : inbox.ring_copied) {
    Lane& lane = LaneOf(*running.owner);
    const bool filled = lane.direction == cuda::CopyDirection::kToDevice;
    if (filled && !running.owner->abandoned()) {
      GiveToDriver(lane, std::move(running));
    } else {
      Land(lane, running);
    }
  }
}

void CopyEngineCore::CancelOne(uint64_t token) {
  const auto found = live_.find(token);
  if (found == live_.end() || found->second->abandoned()) {
    return;
  }
  const Transfer transfer = found->second;
  transfer->Abandon();
  std::deque<Transfer>& waiting = LaneOf(*transfer).waiting;
  waiting.erase(std::remove(waiting.begin(), waiting.end(), transfer), waiting.end());
  NoteEnd(transfer);
}

void CopyEngineCore::Reap(Lane& lane) {
  while (!lane.with_driver.empty()) {
    const cuda::Result result = driver_->EventQuery(lane.with_driver.front().landed);
    if (result == cuda::kNotReady) {
      return;
    }
    if (result != cuda::kSuccess) {
      Fail(result, "copy");
      return;
    }
    Running running = std::move(lane.with_driver.front());
    lane.with_driver.pop_front();
    free_events_.push_back(std::exchange(running.landed, nullptr));
    // What was cancelled is not taken out of the ring: its memory is not touched any more.
    const bool drains = running.half >= 0 && lane.direction == cuda::CopyDirection::kToHost &&
                        !running.owner->abandoned();
    if (drains) {
      CopyByHost(lane, std::move(running));
    } else {
      Land(lane, running);
    }
  }
}

void CopyEngineCore::BeginAll(Lane& lane) {
  for (size_t i = 0; i < lane.waiting.size() && !failed_;) {
    const Transfer transfer = lane.waiting[i];
    const bool open = GateOpen(*transfer);
    if (failed_) {
      return;  // and nothing waits any more
    }
    if (transfer->abandoned()) {
      lane.waiting.erase(lane.waiting.begin() + static_cast<std::ptrdiff_t>(i));
      NoteEnd(transfer);
      continue;
    }
    if (!open) {
      ++i;
      continue;
    }
    const Begun begun = BeginOne(lane, transfer);
    if (failed_ || begun == Begun::kNoRoom) {
      return;
    }
    if (begun == Begun::kAll) {
      lane.waiting.erase(lane.waiting.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
}

bool CopyEngineCore::GateOpen(TransferState& transfer) {
  if (transfer.gate_open()) {
    return true;
  }
  if (const cuda::Event behind = transfer.transfer().behind; behind != nullptr) {
    const cuda::Result result = driver_->EventQuery(behind);
    if (result == cuda::kNotReady) {
      return false;
    }
    // An event that is none any more is its owner's affair, and no reason to end the others'
    // copies.
    if (result != cuda::kSuccess && !cuda::CudaDriver::EndsContext(result)) {
      transfer.Refuse(driver_.StatusOf(result, "the producer's event"));
      return false;
    }
    if (result != cuda::kSuccess) {
      Fail(result, "the producer's event");
      return false;
    }
  }
  transfer.OpenGate();
  return true;
}

CopyEngineCore::Begun CopyEngineCore::BeginOne(Lane& lane, const Transfer& transfer) {
  const uint64_t direct_bytes = options_.max_bytes_in_flight / 4;
  while (!transfer->AllBegun() && !failed_) {
    const bool by_ring = transfer->NextPath() == HostPath::kRing;
    const bool gathers = transfer->gathers();
    uint64_t limit = by_ring ? options_.ring_half_bytes : direct_bytes;
    limit = gathers ? std::min(limit, stage_bytes_) : limit;
    const uint64_t bytes = transfer->NextBytes(limit);
    if (lane.bytes_in_flight + bytes > options_.max_bytes_in_flight ||
        lane.batches_in_flight == kMaxBatchesInFlight) {
      return Begun::kNoRoom;
    }
    Running running;
    if (!TakePlaces(lane, *transfer, &running)) {
      return Begun::kNoPlace;
    }
    running.owner = transfer;
    running.batch = transfer->TakeBatch({bytes, gathers ? kMaxPiecesOfStage : kMaxCopiesOfBatch});
    running.copies = running.batch->copies;
    lane.bytes_in_flight += running.batch->bytes;
    ++lane.batches_in_flight;
    if (by_ring) {
      char* half =
          ring()->memory.bytes() + static_cast<uint64_t>(running.half) * options_.ring_half_bytes;
      for (cuda::CopyRange& copy : running.copies) {
        copy.host = half;
        half += copy.bytes;
      }
    }
    if (by_ring && lane.direction == cuda::CopyDirection::kToDevice) {
      CopyByHost(lane, std::move(running));
    } else {
      GiveToDriver(lane, std::move(running));
    }
  }
  return Begun::kAll;
}

// What the next batch of the transfer needs beside room in flight.
bool CopyEngineCore::TakePlaces(const Lane& lane, const TransferState& transfer, Running* running) {
  if (transfer.gathers()) {
    running->stage = gathering_->TakeStage(lane.direction);
    if (!running->stage.has_value()) {
      return false;
    }
  }
  if (transfer.NextPath() == HostPath::kRing) {
    running->half = TakeHalf(lane);
    if (running->half < 0) {
      if (running->stage.has_value()) {
        gathering_->GiveBack(lane.direction, *running->stage);
      }
      return false;
    }
  }
  return true;
}

// Saves have one half at most, so that a load waits for one batch of theirs and never for two.
int CopyEngineCore::TakeHalf(const Lane& lane) {
  std::array<Ring::Use, 2>& uses = ring()->uses;
  const bool saves = lane.direction == cuda::CopyDirection::kToHost;
  if (saves && std::find(uses.begin(), uses.end(), Ring::Use::kSave) != uses.end()) {
    return -1;
  }
  const auto free = std::find(uses.begin(), uses.end(), Ring::Use::kFree);
  if (free == uses.end()) {
    return -1;
  }
  *free = saves ? Ring::Use::kSave : Ring::Use::kLoad;
  return static_cast<int>(free - uses.begin());
}

// Fills the half of a load, or empties that of a save.
void CopyEngineCore::CopyByHost(const Lane& lane, Running running) {
  const bool fills = lane.direction == cuda::CopyDirection::kToDevice;
  std::vector<HostCopy> copies;
  copies.reserve(running.copies.size());
  for (size_t i = 0; i < running.copies.size(); ++i) {
    char* const in_ring = running.copies[i].host;
    char* const in_memory = running.batch->copies[i].host;
    copies.push_back(
        {fills ? in_ring : in_memory, fills ? in_memory : in_ring, running.copies[i].bytes});
  }
  HostCopier& copier = *ring()->copier;
  copier.Copy(std::move(copies), [this, running = std::move(running)] {
    const absl::MutexLock lock(&mutex_);
    inbox_.ring_copied.push_back(running);
  });
}

void CopyEngineCore::GiveToDriver(Lane& lane, Running running) {
  const cuda::Stream stream = lane.stream->get();
  TERRACE_CHECK(!free_events_.empty());
  running.landed = free_events_.back();
  free_events_.pop_back();
  const Transfer owner = running.owner;
  cuda::Result result = running.stage.has_value()
                            ? gathering_->Enqueue(lane.direction, running.copies, *running.stage,
                                                  stream, &running.gathered_bytes)
                            : driver_.EnqueueCopies(lane.direction, running.copies, stream);
  if (result == cuda::kSuccess) {
    result = driver_->EventRecord(running.landed, stream);
  }
  lane.with_driver.push_back(std::move(running));
  const cuda::Event after = owner->transfer().after;
  if (result == cuda::kSuccess && owner->Enqueued() && after != nullptr) {
    result = driver_->EventRecord(after, stream);
  }
  if (result != cuda::kSuccess) {
    Fail(result, "copy");
  }
}

void CopyEngineCore::Land(Lane& lane, const Running& running) {
  if (running.half >= 0) {
    ring()->uses[static_cast<size_t>(running.half)] = Ring::Use::kFree;
  }
  if (running.stage.has_value()) {
    gathering_->GiveBack(lane.direction, *running.stage);
  }
  lane.bytes_in_flight -= running.batch->bytes;
  --lane.batches_in_flight;
  if (!running.owner->abandoned()) {
    const bool to_device = lane.direction == cuda::CopyDirection::kToDevice;
    (to_device ? bytes_to_device_ : bytes_to_host_) += running.batch->bytes;
    bytes_through_ring_ += running.half >= 0 ? running.batch->bytes : 0;
    bytes_gathered_ += running.gathered_bytes;
  }
  running.owner->Landed(*running.batch);
  NoteEnd(running.owner);
}

void CopyEngineCore::Fail(cuda::Result result, absl::string_view what) {
  if (!failed_) {
    failed_ = true;
    const absl::MutexLock lock(&mutex_);
    failure_ = driver_.StatusOf(result, std::string(what));
  }
  for (const auto& [token, transfer] : live_) {
    transfer->Abandon();
    NoteEnd(transfer);
  }
  for (Lane& lane : lanes_) {
    lane.waiting.clear();
    // What the driver has begun goes on after an error that did not end the context. After one that
    // did, this returns at once.
    driver_->StreamSynchronize(lane.stream->get());
    while (!lane.with_driver.empty()) {
      Running running = std::move(lane.with_driver.front());
      lane.with_driver.pop_front();
      free_events_.push_back(running.landed);
      Land(lane, running);
    }
  }
}

void CopyEngineCore::NoteEnd(const Transfer& transfer) {
  if (transfer->NothingOutstanding() && (transfer->AllBegun() || transfer->abandoned())) {
    ended_.push_back(transfer);
  }
}

void CopyEngineCore::FinishEnded() {
  for (const Transfer& transfer : std::exchange(ended_, {})) {
    if (live_.erase(transfer->token()) == 0) {
      continue;  // noted twice
    }
    absl::Status status;
    {
      const absl::MutexLock lock(&mutex_);
      const auto named = named_.find(transfer->token());
      for (const uintptr_t begin : named->second) {
        --memories_[begin].transfers;
      }
      named_.erase(named);
      if (transfer->abandoned()) {
        status = failure_.ok() ? absl::CancelledError("cancelled") : failure_;
        status = transfer->refusal().ok() ? status : transfer->refusal();
      }
    }
    transfer->TakeDone()(status);
  }
}

}  // namespace terrace
