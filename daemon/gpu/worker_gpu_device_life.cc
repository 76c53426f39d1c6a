// The thread of a GPU's device: the worker's life, and the messages that go and come.
#include <poll.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"

#include "daemon/gpu/worker_gpu_device.h"

namespace terrace {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);
constexpr absl::Duration kDying = absl::Milliseconds(200);

// For the log.
std::string Described(const GpuReady& ready) {
  const std::string place = ready.node == kNoNode ? "" : absl::StrCat(", on node ", ready.node);
  const std::string pieces =
      ready.plain_reason.empty()
          ? absl::StrCat("pieces are gathered up to ", ready.load_piece_bytes, " bytes for loads, ",
                         ready.save_piece_bytes, " for saves")
          : absl::StrCat("small pieces are copied one by one: ", ready.plain_reason);
  const std::string copies =
      ready.single_reason.empty() ? "" : absl::StrCat("; one call a copy: ", ready.single_reason);
  return absl::StrCat("a worker serves, GPU ", ready.ordinal, ", driver ", ready.driver_version,
                      place, "; ", pieces, copies);
}

}  // namespace

void WorkerGpuDevice::Run() {
  for (;;) {
    std::vector<std::function<void()>> posted;
    {
      const absl::MutexLock lock(&mutex_);
      posted.swap(posted_);
    }
    for (const std::function<void()>& work : posted) {
      work();
    }
    if (stopping_) {
      break;
    }
    const absl::Duration now = clock_.Now();
    ReapLeaving();
    RunRetries(now);
    MaybeStart(now);
    MaybeEnd(now);
    Expire(now);
    SendOutgoing();
    Wait(now);
    Receive();
  }
  End();
}

void WorkerGpuDevice::End() {
  if (seat_.has_value()) {
    Abandon("the daemon stops");
  }
  for (Leaving& leaving : std::exchange(leaving_, {})) {
    leaving.child.Gone(kDying);
    for (const std::function<void()>& run : leaving.at_end) {
      run();
    }
  }
  retries_.clear();
  for (const auto& [number, region] : std::exchange(regions_, {})) {
    Refuse(*region, absl::CancelledError("the daemon stops"));
  }
  // What came meanwhile. Callers that see the thread gone run their work themselves.
  for (bool more = true; more;) {
    std::vector<std::function<void()>> posted;
    {
      const absl::MutexLock lock(&mutex_);
      posted.swap(posted_);
      stopped_ = posted.empty();
    }
    for (const std::function<void()>& work : posted) {
      work();
    }
    more = !posted.empty();
  }
}

void WorkerGpuDevice::ReapLeaving() {
  std::vector<std::function<void()>> at_end;
  std::erase_if(leaving_, [&at_end](Leaving& leaving) {
    if (!leaving.child.Gone()) {
      return false;
    }
    std::move(leaving.at_end.begin(), leaving.at_end.end(), std::back_inserter(at_end));
    return true;
  });
  {
    const absl::MutexLock lock(&mutex_);
    figures_.workers_leaving = leaving_.size();
  }
  for (const std::function<void()>& run : at_end) {
    run();
  }
}

void WorkerGpuDevice::RunRetries(absl::Duration now) {
  std::vector<Retry> retries = std::exchange(retries_, {});
  for (Retry& retry : retries) {
    if (retry.at <= now) {
      retry.run();
    } else {
      retries_.push_back(std::move(retry));
    }
  }
}

void WorkerGpuDevice::MaybeStart(absl::Duration now) {
  if (seat_.has_value() || regions_.empty() || now < restarts_.next_start()) {
    return;
  }
  if (leaving_.size() >= options_.max_stuck) {
    return FailFirstOpens(absl::UnavailableError("too many workers of this GPU hang"));
  }
  if (const absl::Status started = StartWorker(now); !started.ok()) {
    restarts_.Failed(now);
    NoteFault(absl::StrCat("a worker cannot be started: ", started.message()));
    FailFirstOpens(absl::UnavailableError(started.message()));
  }
}

absl::Status WorkerGpuDevice::StartWorker(absl::Duration now) {
  absl::StatusOr<std::shared_ptr<BounceRoom>> staging = BounceRoom::Make(options_.staging_bytes);
  if (!staging.ok()) {
    return staging.status();
  }
  absl::StatusOr<std::pair<Descriptor, Descriptor>> ends = WorkerChannel::MakePair();
  if (!ends.ok()) {
    return ends.status();
  }
  absl::StatusOr<WorkerChild> child = WorkerChild::Start(
      options_.program, absl::StrCat("gpu:", options_.number), std::move(ends->second));
  if (!child.ok()) {
    return child.status();
  }
  seat_.emplace(*std::move(child), WorkerChannel(std::move(ends->first)), *std::move(staging), now);
  {
    const absl::MutexLock lock(&mutex_);
    ++figures_.worker_starts;
    figures_.worker_pid = seat_->child.pid();
  }
  // If it cannot be sent, the worker has ended, and that is noticed as any other end.
  static_cast<void>(seat_->channel.Send(Encode(GpuGreeting{options_.uuid, seat_->staging->bytes()}),
                                        Waiting::kDont, seat_->staging->descriptor()));
  return absl::OkStatus();
}

void WorkerGpuDevice::MaybeEnd(absl::Duration now) {
  if (!seat_.has_value() || !regions_.empty()) {
    idle_since_.reset();
    return;
  }
  if (!idle_since_.has_value()) {
    idle_since_ = now;
  }
  if (now - *idle_since_ >= options_.linger) {
    Abandon("it has nothing to do");
  }
}

void WorkerGpuDevice::LoseWorker(const std::string& why) {
  restarts_.Failed(clock_.Now());
  NoteFault(why);
  {
    const absl::MutexLock lock(&mutex_);
    ++figures_.workers_lost;
  }
  Abandon(why);
}

void WorkerGpuDevice::NoteFault(const std::string& why) {
  {
    const absl::MutexLock lock(&mutex_);
    figures_.last_fault = why;
  }
  Say(why);
}

void WorkerGpuDevice::Abandon(const std::string& why) {
  Seat seat = std::move(*seat_);
  seat_.reset();
  idle_since_.reset();
  {
    const absl::MutexLock lock(&mutex_);
    staging_ = nullptr;
    figures_.serving = false;
    figures_.worker_pid = 0;
    figures_.worker = {};
    figures_.workers_leaving = leaving_.size() + 1;
  }
  seat.child.Kill();
  Leaving leaving{std::move(seat.child), {}};
  for (auto& [number, owed] : seat.owed) {
    leaving.at_end.emplace_back(
        [done = std::move(owed.done), why] { done(absl::UnavailableError(why)); });
  }
  for (auto entry = regions_.begin(); entry != regions_.end();) {
    const std::shared_ptr<Region> region = entry->second;
    // One whose first opening may be what the worker died of is not tried on the next one.
    if (region->opened && region->state == Region::State::kOpening) {
      entry = regions_.erase(entry);
      leaving.at_end.emplace_back(
          [this, region, why] { Refuse(*region, absl::UnavailableError(why)); });
      continue;
    }
    region->state = Region::State::kClosed;
    ++entry;
  }
  leaving_.push_back(std::move(leaving));
  CountRegions();
}

void WorkerGpuDevice::FailFirstOpens(const absl::Status& status) {
  for (auto region = regions_.begin(); region != regions_.end();) {
    if (region->second->opened) {
      const std::shared_ptr<Region> failed = region->second;
      region = regions_.erase(region);
      CountRegions();
      Refuse(*failed, status);
    } else {
      ++region;
    }
  }
}

void WorkerGpuDevice::Queue(std::string packet, std::shared_ptr<const Descriptor> passed) {
  seat_->outgoing.push_back({std::move(packet), std::move(passed)});
}

uint64_t WorkerGpuDevice::Owe(std::function<void(const absl::Status&)> done) {
  const uint64_t call = NextCall();
  seat_->owed[call] = {clock_.Now() + options_.answer_deadline, std::move(done), nullptr};
  return call;
}

void WorkerGpuDevice::SendOutgoing() {
  while (seat_.has_value() && seat_->ready && !seat_->outgoing.empty()) {
    const Outgoing& first = seat_->outgoing.front();
    const int passed = first.passed == nullptr ? -1 : first.passed->get();
    if (!seat_->channel.Send(first.packet, Waiting::kDont, passed).ok()) {
      return;  // it takes nothing now, or is closed, which Receive notices
    }
    seat_->outgoing.pop_front();
  }
}

void WorkerGpuDevice::Wait(absl::Duration now) {
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  if (seat_.has_value()) {
    const bool full = seat_->ready && !seat_->outgoing.empty();
    fds.push_back({seat_->channel.get(), static_cast<short>(POLLIN | (full ? POLLOUT : 0)), 0});
  }
  for (const Leaving& leaving : leaving_) {
    fds.push_back({leaving.child.exit_descriptor(), POLLIN, 0});
  }
  const bool idle = !seat_.has_value() && regions_.empty() && retries_.empty();
  const bool quiet = seat_.has_value() && seat_->ready && seat_->owed.empty() &&
                     !regions_.empty() && retries_.empty();
  absl::Duration wait = kGpuDeviceTurn;
  if (quiet) {
    wait = std::clamp(seat_->look_at - now, absl::ZeroDuration(), kLookInterval);
  }
  poll(fds.data(), fds.size(), idle ? -1 : static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1);
  wake_.Clear();
}

void WorkerGpuDevice::Receive() {
  while (seat_.has_value()) {
    const absl::StatusOr<ReceivedPacket> packet =
        seat_->channel.Receive(absl::MakeSpan(packet_), Waiting::kDont);
    if (absl::IsUnavailable(packet.status())) {
      return;
    }
    if (!packet.ok() || packet->bytes.empty()) {
      LoseWorker(absl::StrCat("the worker has ended", seat_->last_words));
    } else if (!seat_->ready) {
      TakeReady(packet->bytes);
    } else if (!TakeAnswer(packet->bytes)) {
      LoseWorker("the worker does not keep the rules");
    }
  }
}

void WorkerGpuDevice::TakeReady(absl::Span<const char> bytes) {
  const std::optional<GpuReady> ready = DecodeGpuReady(bytes);
  if (!ready.has_value()) {
    return LoseWorker("the worker does not keep the rules");
  }
  if (!ready->status.ok()) {
    LoseWorker(std::string(ready->status.message()));
    return FailFirstOpens(ready->status);
  }
  seat_->ready = true;
  seat_->look_at = clock_.Now() + kLookInterval;
  restarts_.Serves();
  {
    const absl::MutexLock lock(&mutex_);
    staging_ = seat_->staging;
    figures_.serving = true;
    figures_.ordinal = ready->ordinal;
    figures_.read_only_memory = ready->read_only_memory;
    figures_.load_piece_bytes = ready->load_piece_bytes;
    figures_.save_piece_bytes = ready->save_piece_bytes;
    figures_.plain_reason = ready->plain_reason;
    figures_.single_reason = ready->single_reason;
  }
  Say(Described(*ready));
  for (const auto& [number, region] : regions_) {
    OpenIfFree(number, region);
  }
}

bool WorkerGpuDevice::TakeAnswer(absl::Span<const char> bytes) {
  if (const std::optional<GpuSeen> seen = DecodeGpuSeen(bytes)) {
    const absl::MutexLock lock(&mutex_);
    figures_.worker = seen->facts;
    return seat_->owed.erase(seen->call) == 1;
  }
  const std::optional<GpuDone> done = DecodeGpuDone(bytes);
  if (done.has_value() && done->call == kLastWords) {
    seat_->last_words = absl::StrCat(": ", done->status.message());
    return true;
  }
  const auto owed = done.has_value() ? seat_->owed.find(done->call) : seat_->owed.end();
  if (owed == seat_->owed.end()) {
    return false;
  }
  const std::function<void(const absl::Status&)> run = std::move(owed->second.done);
  seat_->owed.erase(owed);
  run(done->status);
  return true;
}

void WorkerGpuDevice::Expire(absl::Duration now) {
  for (const auto& [number, region] : regions_) {
    std::vector<uint64_t> late;
    for (const auto& [token, copy] : region->waiting) {
      if (copy->call.deadline <= now) {
        late.push_back(token);
      }
    }
    for (const uint64_t token : late) {
      CancelCopy(token, absl::DeadlineExceededError("the GPU's worker did not come back in time"));
    }
  }
  if (!seat_.has_value()) {
    return;
  }
  if (!seat_->ready && seat_->started + options_.start_deadline <= now) {
    LoseWorker("the worker did not begin to serve in time");
    return FailFirstOpens(absl::UnavailableError("the GPU's worker did not begin to serve"));
  }
  if (seat_->ready && seat_->look_at <= now) {
    seat_->look_at = now + kLookInterval;
    Queue(EncodeNumber(GpuMessage::kLook, Owe([](const absl::Status&) {})));
  }
  std::vector<uint64_t> late;
  for (const auto& [number, owed] : seat_->owed) {
    if (owed.answer_by <= now) {
      late.push_back(number);
    }
  }
  for (const uint64_t number : late) {
    const Owed& owed = seat_->owed.at(number);
    if (owed.copy == nullptr || !owed.copy->ended_by.ok()) {
      return LoseWorker("the worker did not answer in time");
    }
    CancelCopy(number, absl::DeadlineExceededError("the deadline passed"));
  }
}

}  // namespace terrace
