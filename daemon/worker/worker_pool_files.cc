#include "daemon/worker/worker_pool_files.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "daemon/worker/bounce_room.h"
#include "daemon/worker/call_queue.h"
#include "daemon/worker/restart_rule.h"
#include "daemon/worker/worker_channel.h"
#include "daemon/worker/worker_child.h"
#include "daemon/worker/worker_frame.h"
#include "tiers/os/descriptor.h"
#include "tiers/shared/pool_call.h"

namespace terrace {
namespace {

// Deadlines are looked at so often at least: the clock may not be the kernel's.
constexpr absl::Duration kTurn = absl::Milliseconds(50);
// What a worker that does not hang needs to end at a signal.
constexpr absl::Duration kDying = absl::Milliseconds(200);
constexpr absl::Duration kStuckForLong = absl::Seconds(1);
constexpr uint64_t kProbe = 0;  // number of the call by which a worker shows that it can serve

bool Changes(PoolOp op) {
  return op != PoolOp::kRead && op != PoolOp::kList && op != PoolOp::kSpace &&
         op != PoolOp::kCheckRoot;
}

class WorkerPoolFiles final : public PoolFiles {
 public:
  WorkerPoolFiles(const WorkerPoolFilesOptions& options,
                  const WorkerPoolFilesParts& parts,
                  std::shared_ptr<BounceRoom> room,
                  EventDescriptor wake)
      : options_(options),
        clock_(*parts.clock),
        say_(parts.say),
        wake_(std::move(wake)),
        packet_(kMaxWorkerPacket, '\0'),
        restarts_(options.first_backoff, options.max_backoff),
        room_(std::move(room)),
        thread_([this] { Run(); }) {}
  WorkerPoolFiles(const WorkerPoolFiles&) = delete;
  WorkerPoolFiles& operator=(const WorkerPoolFiles&) = delete;
  WorkerPoolFiles(WorkerPoolFiles&&) = delete;
  WorkerPoolFiles& operator=(WorkerPoolFiles&&) = delete;

  ~WorkerPoolFiles() override {
    Stop();
    thread_.join();
  }

  std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) override {
    std::shared_ptr<BounceRoom> room;
    {
      absl::MutexLock lock(&mutex_);
      room = room_;
    }
    return room == nullptr ? nullptr : room->Take(bytes);
  }
  [[nodiscard]] uint64_t max_buffer_bytes() const override { return options_.buffer_bytes; }

  void Submit(PoolCall call, std::function<void(PoolReply)> done) override {
    PendingCall pending{std::move(call), std::move(done), nullptr, {}};
    absl::Status admitted = CheckPoolCall(pending.call);
    if (admitted.ok()) {
      absl::MutexLock lock(&mutex_);
      admitted = AdmitLocked(pending);
    }
    if (admitted.ok()) {
      wake_.Notify();
    } else {
      pending.End(std::move(admitted));
    }
  }

  void Stop() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    wake_.Notify();
  }

  [[nodiscard]] PoolFilesFigures figures() const override {
    absl::MutexLock lock(&mutex_);
    PoolFilesFigures figures = figures_;
    figures.buffer_bytes = options_.buffer_bytes;
    figures.buffer_bytes_used = room_ == nullptr ? 0 : room_->used();
    return figures;
  }

 private:
  struct Seated {
    WorkerChild child;
    WorkerChannel channel;
    std::shared_ptr<BounceRoom> room;  // which it sees; owned by buffers too
    absl::Duration started;
    bool ready = false;    // has opened the root
    bool serving = false;  // and has answered the probe
    uint64_t root_inode = 0;
  };
  struct Stuck {
    WorkerChild child;
    absl::Duration since;
  };

  // Takes the call unless it says otherwise.
  absl::Status AdmitLocked(PendingCall& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopping_) {
      return absl::CancelledError("the pool is closed");
    }
    if (!accepting_) {
      return absl::UnavailableError(absl::StrCat("no worker serves: ", figures_.last_fault));
    }
    if (figures_.calls_in_flight >= kMaxWaitingCalls) {
      return absl::UnavailableError("too many calls are waiting");
    }
    ++figures_.calls[static_cast<size_t>(pending.call.op)];
    ++figures_.calls_in_flight;
    arrived_.push_back(std::move(pending));
    return absl::OkStatus();
  }

  // ---- the thread; all that is not under the lock is confined to it -----------------------------

  void Run() {
    while (TakeArrived()) {
      const absl::Duration now = clock_.Now();
      Expire(now);
      ReapStuck(now);
      MaybeStart(now);
      SendWaiting();
      Wait(now);
      ReadReplies();
    }
    EndWaiting(absl::CancelledError("the pool is closed"));
    EndMaking(absl::CancelledError("the pool is closed"));
    if (worker_.has_value()) {
      worker_->child.Kill();
      worker_->child.Gone(kDying);
    }
  }

  // False: the files are at their end.
  bool TakeArrived() {
    std::vector<PendingCall> arrived;
    bool stopping = false;
    bool accepting = false;
    {
      absl::MutexLock lock(&mutex_);
      arrived.swap(arrived_);
      stopping = stopping_;
      accepting = accepting_;
    }
    for (PendingCall& pending : arrived) {
      if (accepting || stopping) {
        waiting_.Push(std::move(pending));
      } else {
        Finish(std::move(pending), {absl::UnavailableError("no worker serves"), 0, {}, {}});
      }
    }
    return !stopping;
  }

  void Expire(absl::Duration now) {
    for (PendingCall& pending : waiting_.TakeExpired(now)) {
      Finish(
          std::move(pending),
          {absl::DeadlineExceededError("the deadline passed before the call was made"), 0, {}, {}});
    }
    std::vector<PendingCall> late;
    for (auto call = making_.begin(); call != making_.end();) {
      if (call->second.call.deadline <= now) {
        late.push_back(std::move(call->second));
        call = making_.erase(call);
      } else {
        ++call;
      }
    }
    const bool slow_start = worker_.has_value() && !worker_->serving &&
                            worker_->started + options_.start_deadline <= now;
    if (late.empty() && !slow_start) {
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      ++figures_.abandoned;
    }
    GiveUp(late.empty() ? "it did not begin to serve in time" : "a call was not answered in time");
    for (PendingCall& pending : late) {
      Finish(std::move(pending),
             {absl::DeadlineExceededError("the file system did not answer"), 0, {}, {}});
    }
  }

  void ReapStuck(absl::Duration now) {
    const size_t before = stuck_.size();
    std::erase_if(stuck_, [this, now](Stuck& stuck) {
      if (!stuck.child.Gone()) {
        return false;
      }
      if (now - stuck.since >= kStuckForLong) {
        restarts_.Stirs(now);
      }
      return true;
    });
    if (stuck_.size() != before) {
      ShowState();
    }
  }

  void MaybeStart(absl::Duration now) {
    if (worker_.has_value() || stuck_.size() >= options_.max_stuck ||
        now < restarts_.next_start()) {
      return;
    }
    const absl::Status started = Start(now);
    if (!started.ok()) {
      restarts_.Failed(now);
      NoteFault(absl::StrCat("a worker cannot be started: ", std::string(started.message())));
    }
    ShowState();
    if (!started.ok()) {
      EndWaiting(absl::UnavailableError("no worker can be started"));
    }
  }

  absl::Status Start(absl::Duration now) {
    std::shared_ptr<BounceRoom> room;
    {
      absl::MutexLock lock(&mutex_);
      room = room_;
    }
    if (room == nullptr) {
      absl::StatusOr<std::shared_ptr<BounceRoom>> made = BounceRoom::Make(options_.buffer_bytes);
      if (!made.ok()) {
        return made.status();
      }
      room = *std::move(made);
    }
    absl::StatusOr<std::pair<Descriptor, Descriptor>> ends = WorkerChannel::MakePair();
    if (!ends.ok()) {
      return ends.status();
    }
    absl::StatusOr<WorkerChild> child = WorkerChild::Start(
        options_.program, absl::StrCat("shared:", options_.name), std::move(ends->second));
    if (!child.ok()) {
      return child.status();
    }
    worker_ = Seated{*std::move(child), WorkerChannel(std::move(ends->first)), room, now};
    {
      absl::MutexLock lock(&mutex_);
      room_ = room;
      ++figures_.starts;
    }
    // If it cannot be sent, the worker has ended, and that is noticed as any other end.
    static_cast<void>(
        worker_->channel.Send(EncodeGreeting({options_.root, room->bytes(), options_.max_calls}),
                              Waiting::kDont, room->descriptor()));
    return absl::OkStatus();
  }

  void SendWaiting() {
    while (worker_.has_value() && worker_->serving && making_.size() < options_.max_calls) {
      std::optional<PendingCall> pending = waiting_.Pop();
      if (!pending.has_value()) {
        return;
      }
      const absl::StatusOr<uint64_t> offset = Place(*pending);
      if (!offset.ok()) {
        Finish(*std::move(pending), {offset.status(), 0, {}, {}});
        continue;
      }
      const PoolCall& call = pending->call;
      const uint64_t number = ++last_call_;
      const absl::Status sent = worker_->channel.Send(
          EncodeRequest({number, call.op, call.how, call.path, call.offset, call.length, *offset}),
          Waiting::kDont);
      making_.emplace(number, *std::move(pending));
      if (!sent.ok()) {
        GiveUp("it takes no calls");
      }
    }
  }

  // Where the call's buffer lies in the memory that the worker sees. One of an earlier worker's
  // memory is staged.
  absl::StatusOr<uint64_t> Place(PendingCall& pending) {
    const PoolCall& call = pending.call;
    if (!UsesBuffer(call.op) || call.length == 0) {
      return 0;
    }
    if (const std::optional<uint64_t> offset = worker_->room->OffsetOf(*call.buffer)) {
      return *offset;
    }
    pending.staged = worker_->room->Take(call.length);
    if (pending.staged == nullptr) {
      return absl::UnavailableError("the buffer is of a worker that is gone, and there is no room");
    }
    if (call.op != PoolOp::kRead) {
      std::memcpy(pending.staged->memory().data(), call.buffer->memory().data(), call.length);
    }
    return *worker_->room->OffsetOf(*pending.staged);
  }

  void Wait(absl::Duration now) {
    absl::Duration until = waiting_.earliest_deadline();
    for (const auto& [number, pending] : making_) {
      until = std::min(until, pending.call.deadline);
    }
    if (!worker_.has_value() && stuck_.size() < options_.max_stuck) {
      until = std::min(until, restarts_.next_start());
    } else if (worker_.has_value() && !worker_->serving) {
      until = std::min(until, worker_->started + options_.start_deadline);
    }
    int timeout_ms = -1;
    if (until != absl::InfiniteDuration()) {
      const absl::Duration left = std::clamp(until - now, absl::ZeroDuration(), kTurn);
      timeout_ms =
          static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))));
    }
    std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
    if (worker_.has_value()) {
      fds.push_back({worker_->channel.get(), POLLIN, 0});
    }
    for (const Stuck& stuck : stuck_) {
      fds.push_back({stuck.child.exit_descriptor(), POLLIN, 0});
    }
    poll(fds.data(), fds.size(), timeout_ms);
    wake_.Clear();
  }

  void ReadReplies() {
    while (worker_.has_value()) {
      const absl::StatusOr<ReceivedPacket> packet =
          worker_->channel.Receive(absl::MakeSpan(packet_), Waiting::kDont);
      if (absl::IsUnavailable(packet.status())) {
        return;
      }
      if (!packet.ok() || packet->bytes.empty()) {
        GiveUp("it has died");
      } else if (!worker_->ready) {
        TakeReady(packet->bytes);
      } else {
        TakeReply(packet->bytes);
      }
    }
  }

  void TakeReady(absl::Span<const char> bytes) {
    const std::optional<WorkerReady> ready = DecodeReady(bytes);
    if (!ready.has_value()) {
      GiveUp("it does not keep the rules");
    } else if (!ready->status.ok()) {
      GiveUp(std::string(ready->status.message()));
    } else if (written_root_.has_value() && *written_root_ != ready->root_inode) {
      GiveUp("the root is another folder than the one that was written to");
    } else {
      worker_->ready = true;
      worker_->root_inode = ready->root_inode;
      const WorkerRequest probe{kProbe, PoolOp::kSpace, ReadHow::kKept, "", 0, 0, 0};
      if (!worker_->channel.Send(EncodeRequest(probe), Waiting::kDont).ok()) {
        GiveUp("it takes no calls");
      }
    }
  }

  void TakeReply(absl::Span<const char> bytes) {
    std::optional<WorkerReply> reply = DecodeReply(bytes);
    if (reply.has_value() && reply->call == kProbe && !worker_->serving) {
      TakeProbe(reply->reply.status);
      return;
    }
    const auto made = reply.has_value() ? making_.find(reply->call) : making_.end();
    if (made == making_.end() || reply->reply.bytes > made->second.call.length ||
        made->second.entries.size() + reply->reply.entries.size() > RootedFiles::kMaxEntries) {
      GiveUp("it does not keep the rules");
      return;
    }
    std::vector<FolderEntry>& entries = made->second.entries;
    std::move(reply->reply.entries.begin(), reply->reply.entries.end(),
              std::back_inserter(entries));
    if (reply->more) {
      return;
    }
    reply->reply.entries = std::move(entries);
    PendingCall pending = std::move(made->second);
    making_.erase(made);
    TakeAnswer(std::move(pending), std::move(reply->reply));
  }

  void TakeProbe(const absl::Status& status) {
    if (!status.ok()) {
      GiveUp(std::string(status.message()));
      return;
    }
    worker_->serving = true;
    faults_in_a_row_ = 0;
    restarts_.Serves();
    ShowState();
    Say("a worker serves");
  }

  void TakeAnswer(PendingCall pending, PoolReply reply) {
    if (pending.staged != nullptr && pending.call.op == PoolOp::kRead && reply.status.ok()) {
      std::memcpy(pending.call.buffer->memory().data(), pending.staged->memory().data(),
                  reply.bytes);
    }
    const PoolOp op = pending.call.op;
    const bool root_lost = op == PoolOp::kCheckRoot && absl::IsUnavailable(reply.status);
    if (IsPoolFault(reply.status)) {
      ++faults_in_a_row_;
    } else {
      faults_in_a_row_ = 0;
      restarts_.Works();
    }
    if (reply.status.ok() && Changes(op)) {
      written_root_ = worker_->root_inode;
    }
    Finish(std::move(pending), std::move(reply));
    if (root_lost) {
      GiveUp("its root is not the folder under its path any more");
    } else if (faults_in_a_row_ >= options_.faults_in_a_row) {
      restarts_.Suspend();
      GiveUp("the file system fails again and again");
    }
  }

  // The worker loses its place, and the calls that it was making and those that wait end.
  void GiveUp(const std::string& why) {
    const absl::Duration now = clock_.Now();
    Seated given_up = *std::move(worker_);
    worker_.reset();
    given_up.child.Kill();
    if (!given_up.child.Gone()) {
      stuck_.push_back({std::move(given_up.child), now});
    }
    ReplaceRoom();  // what still runs may still write there
    restarts_.Failed(now);
    if (stuck_.size() >= options_.max_stuck) {
      restarts_.Suspend();
    }
    NoteFault(why);
    ShowState();
    Say(absl::StrCat("a worker lost its place: ", why));
    const absl::Status status =
        absl::UnavailableError(absl::StrCat("the worker was given up: ", why));
    EndMaking(status);
    EndWaiting(status);
  }

  // Memory for the next worker, made now so that buffers can be taken meanwhile. If there is none,
  // the next start will say so.
  void ReplaceRoom() {
    absl::StatusOr<std::shared_ptr<BounceRoom>> made = BounceRoom::Make(options_.buffer_bytes);
    std::shared_ptr<BounceRoom> room = made.ok() ? *std::move(made) : nullptr;
    absl::MutexLock lock(&mutex_);
    room_.swap(room);  // unmapped without the lock, if nobody has a buffer of it
  }

  void EndWaiting(const absl::Status& status) {
    for (PendingCall& pending : waiting_.TakeAll()) {
      Finish(std::move(pending), {status, 0, {}, {}});
    }
  }

  void EndMaking(const absl::Status& status) {
    std::map<uint64_t, PendingCall> ended;
    ended.swap(making_);
    for (auto& [number, pending] : ended) {
      Finish(std::move(pending), {status, 0, {}, {}});
    }
  }

  void Finish(PendingCall pending, PoolReply reply) {
    {
      absl::MutexLock lock(&mutex_);
      --figures_.calls_in_flight;
      figures_.deadlines += absl::IsDeadlineExceeded(reply.status) ? 1 : 0;
      if (IsPoolFault(reply.status)) {
        ++figures_.faults;
        figures_.last_fault = std::string(reply.status.message());
      }
    }
    pending.End(std::move(reply));
  }

  void NoteFault(const std::string& fault) {
    absl::MutexLock lock(&mutex_);
    figures_.last_fault = fault;
  }

  void ShowState() {
    absl::MutexLock lock(&mutex_);
    figures_.serving = worker_.has_value() && worker_->serving;
    figures_.suspended = restarts_.suspended();
    figures_.pid = worker_.has_value() ? static_cast<uint64_t>(worker_->child.pid()) : 0;
    figures_.stuck = static_cast<uint32_t>(stuck_.size());
    // Before the first worker has failed or served, calls wait for it.
    first_start_ = first_start_ && !figures_.serving && !restarts_.ever_failed();
    accepting_ = figures_.serving || first_start_;
  }

  void Say(const std::string& event) const {
    if (say_ != nullptr) {
      say_(event);
    }
  }

  const WorkerPoolFilesOptions options_;
  const Clock& clock_;
  const std::function<void(const std::string&)> say_;
  const EventDescriptor wake_;

  // Confined to the thread.
  std::string packet_;
  RestartRule restarts_;
  std::optional<Seated> worker_;
  std::vector<Stuck> stuck_;  // at most max_stuck
  CallQueue waiting_;
  std::map<uint64_t, PendingCall> making_;  // at most max_calls
  uint64_t last_call_ = kProbe;
  uint32_t faults_in_a_row_ = 0;
  std::optional<uint64_t> written_root_;
  bool first_start_ = true;

  mutable absl::Mutex mutex_;
  std::vector<PendingCall> arrived_ ABSL_GUARDED_BY(mutex_);  // at most kMaxWaitingCalls
  std::shared_ptr<BounceRoom> room_ ABSL_GUARDED_BY(mutex_);  // of the worker, or the next
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool accepting_ ABSL_GUARDED_BY(mutex_) = true;
  PoolFilesFigures figures_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

absl::Status CheckOptions(const WorkerPoolFilesOptions& options) {
  if (!IsRootedPath(options.name) || options.name.find('/') != std::string::npos ||
      options.name.size() > 32) {
    return absl::InvalidArgumentError("name: 1 to 32 letters, digits, '.', '-' and '_'");
  }
  if (options.root.empty() || options.root.front() != '/' || options.root.size() > kMaxRootBytes) {
    return absl::InvalidArgumentError("root: an absolute path");
  }
  if (options.buffer_bytes < uint64_t{1} << 20 || options.buffer_bytes > uint64_t{1} << 34) {
    return absl::InvalidArgumentError("buffer_bytes: 1 MiB to 16 GiB");
  }
  if (options.max_calls == 0 || options.max_calls > 256) {
    return absl::InvalidArgumentError("max_calls: 1 to 256");
  }
  if (options.max_stuck == 0 || options.faults_in_a_row == 0) {
    return absl::InvalidArgumentError("max_stuck and faults_in_a_row: from 1");
  }
  if (options.start_deadline <= absl::ZeroDuration() ||
      options.first_backoff <= absl::ZeroDuration() ||
      options.max_backoff < options.first_backoff) {
    return absl::InvalidArgumentError("start_deadline, first_backoff, max_backoff: above zero");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<PoolFiles>> MakeWorkerPoolFiles(
    const WorkerPoolFilesOptions& options, const WorkerPoolFilesParts& parts) {
  if (absl::Status valid = CheckOptions(options); !valid.ok()) {
    return valid;
  }
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!wake.ok()) {
    return wake.status();
  }
  absl::StatusOr<std::shared_ptr<BounceRoom>> room = BounceRoom::Make(options.buffer_bytes);
  if (!room.ok()) {
    return room.status();
  }
  return std::make_unique<WorkerPoolFiles>(options, parts, *std::move(room), *std::move(wake));
}

}  // namespace terrace
