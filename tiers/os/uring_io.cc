// AsyncIo by io_uring: one thread submits and reaps the ring.
//
// Depth and polling modes follow measurement, not possibility: SQPOLL burns a core on a small host,
// and registered files save nothing that shows beside 2 MiB.
#include <errno.h>
#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include <liburing.h>

#include "tiers/os/async_io.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/io_queue.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr absl::Duration kDeadlineTurn = absl::Milliseconds(20);
constexpr uint32_t kMaxDepth = 1024;
constexpr uint32_t kMaxBuffers = 4096;
constexpr uint64_t kMaxBufferBytes = uint64_t{1} << 30;  // of one registered buffer (io_uring(7))

// What a completion is about; tokens of operations begin above.
constexpr uint64_t kWakeTag = 1;
constexpr uint64_t kCancelTag = 2;
constexpr uint64_t kFirstToken = 16;

struct Running {
  std::unique_ptr<IoOperation> operation;
  std::vector<iovec> vectors;
};

// Which registered buffer an address lies in. Thread-safe.
class RegisteredMemory {
 public:
  struct Chunk {
    uint64_t bytes = 0;
    uint32_t index = 0;
  };

  // Empty: not all fit.
  std::vector<std::pair<absl::Span<char>, uint32_t>> Reserve(absl::Span<char> memory) {
    absl::MutexLock lock(&mutex_);
    std::vector<std::pair<absl::Span<char>, uint32_t>> chunks;
    for (uint64_t at = 0; at < memory.size(); at += kMaxBufferBytes) {
      uint32_t index = next_index_;
      if (!free_.empty()) {
        index = free_.back();
        free_.pop_back();
      } else if (next_index_ < kMaxBuffers) {
        ++next_index_;
      } else {
        for (const auto& chunk : chunks) {
          free_.push_back(chunk.second);
        }
        return {};
      }
      chunks.emplace_back(memory.subspan(at, kMaxBufferBytes), index);
    }
    return chunks;
  }
  void GiveBack(uint32_t index) {
    absl::MutexLock lock(&mutex_);
    free_.push_back(index);
  }
  void Add(absl::Span<char> memory, uint32_t index) {
    absl::MutexLock lock(&mutex_);
    chunks_[memory.data()] = {memory.size(), index};
    bytes_ += memory.size();
  }
  // The indexes of the chunks that lie in `memory`, which are forgotten.
  std::vector<uint32_t> Take(absl::Span<char> memory) {
    absl::MutexLock lock(&mutex_);
    std::vector<uint32_t> taken;
    auto at = chunks_.lower_bound(memory.data());
    while (at != chunks_.end() && at->first < memory.data() + memory.size()) {
      taken.push_back(at->second.index);
      bytes_ -= at->second.bytes;
      at = chunks_.erase(at);
    }
    return taken;
  }
  // -1: not within one chunk.
  [[nodiscard]] int IndexOf(absl::Span<char> piece) const {
    absl::MutexLock lock(&mutex_);
    auto after = chunks_.upper_bound(piece.data());
    if (after == chunks_.begin()) {
      return -1;
    }
    --after;
    const bool inside = piece.data() + piece.size() <= after->first + after->second.bytes;
    return inside ? static_cast<int>(after->second.index) : -1;
  }
  [[nodiscard]] uint64_t bytes() const {
    absl::MutexLock lock(&mutex_);
    return bytes_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::map<char*, Chunk> chunks_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  uint32_t next_index_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

class UringIo final : public AsyncIo {
 public:
  UringIo(const AsyncIoOptions& options, const Clock& clock, EventDescriptor wake)
      : depth_(std::clamp(options.depth, 1U, kMaxDepth)),
        max_in_flight_(options.max_in_flight),
        clock_(clock),
        wake_(std::move(wake)) {}

  // To be called once; without it the object may only be destroyed.
  absl::Status Start() {
    // Room for every operation, its cancellation and the wake-up at once, and twice that for
    // completions: the completion queue cannot overflow.
    const int made = io_uring_queue_init(depth_ * 2 + 8, &ring_, 0);
    if (made < 0) {
      const absl::Status failure = StatusFromErrno(-made, "io_uring");
      return made == -ENOMEM || made == -EMFILE || made == -ENFILE
                 ? failure
                 : absl::UnavailableError(failure.message());
    }
    started_ = true;
    if (const int sparse = io_uring_register_buffers_sparse(&ring_, kMaxBuffers); sparse < 0) {
      buffer_refusal_ = std::string(StatusFromErrno(-sparse, "buffer table").message());
    }
    thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  }
  UringIo(const UringIo&) = delete;
  UringIo& operator=(const UringIo&) = delete;

  ~UringIo() override {
    if (!started_) {
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    wake_.Notify();
    thread_.join();
    io_uring_queue_exit(&ring_);
  }

  absl::StatusOr<uint64_t> Submit(IoRequest request,
                                  std::function<void(IoCompletion)> done) override {
    if (absl::Status valid = ValidateRequest(request); !valid.ok()) {
      return valid;
    }
    if (request.file->descriptor() < 0) {
      return absl::InvalidArgumentError("file: not the kernel's");
    }
    auto operation = std::make_unique<IoOperation>();
    operation->progress = TransferProgress(request);
    operation->request = std::move(request);
    operation->done = std::move(done);
    uint64_t token = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_ || in_flight_ >= max_in_flight_) {
        return absl::ResourceExhaustedError("too many operations in flight");
      }
      ++in_flight_;
      token = ++last_token_;
      operation->token = token;
      queue_.Push(std::move(operation));
    }
    Ordered();
    return token;
  }

  void Cancel(uint64_t token) override {
    {
      absl::MutexLock lock(&mutex_);
      cancels_.push_back(token);
    }
    Ordered();
  }

  absl::Status RegisterMemory(absl::Span<char> memory) override {
    const auto chunks = memory_.Reserve(memory);
    absl::Status status =
        chunks.empty() ? absl::ResourceExhaustedError("too many buffers") : absl::OkStatus();
    for (const auto& [chunk, index] : chunks) {
      const iovec vector = {chunk.data(), chunk.size()};
      const __u64 tag = 0;
      const int registered =
          status.ok() ? io_uring_register_buffers_update_tag(&ring_, index, &vector, &tag, 1) : 0;
      if (registered == 1) {
        memory_.Add(chunk, index);
        continue;
      }
      memory_.GiveBack(index);
      if (status.ok()) {
        status = RefusalOf(-registered);
      }
    }
    if (!status.ok()) {
      UnregisterMemory(memory);
      absl::MutexLock lock(&mutex_);
      registration_refusal_ = std::string(status.message());
    }
    return status;
  }

  void UnregisterMemory(absl::Span<char> memory) override {
    for (const uint32_t index : memory_.Take(memory)) {
      const iovec nothing = {nullptr, 0};
      const __u64 tag = 0;
      io_uring_register_buffers_update_tag(&ring_, index, &nothing, &tag, 1);
      memory_.GiveBack(index);
    }
  }

  [[nodiscard]] IoFacts facts() const override {
    IoFacts facts;
    facts.engine = "io_uring";
    facts.registered_bytes = memory_.bytes();
    facts.resubmitted = resubmitted_.load();
    absl::MutexLock lock(&mutex_);
    facts.registration_refusal = registration_refusal_;
    return facts;
  }

 private:
  // After an order was left under the lock.
  void Ordered() {
    ordered_.store(true);
    // Either the ring's thread sees the order before it sleeps, or it is seen asleep here.
    if (asleep_.load() && asleep_.exchange(false)) {
      wake_.Notify();
    }
  }

  [[nodiscard]] absl::Status RefusalOf(int error) const {
    if (!buffer_refusal_.empty()) {
      return absl::UnimplementedError(buffer_refusal_);
    }
    return StatusFromErrno(error, "register memory (RLIMIT_MEMLOCK)");
  }

  // ---- below: confined to the ring's thread

  void Loop() {
    ArmWake();
    for (;;) {
      const bool stop = TakeOrders();
      ExpireDeadlines();
      if (stop && running_.empty()) {
        return;
      }
      asleep_.store(true);
      if (!ordered_.load()) {
        Wait();
      }
      asleep_.store(false);
      Reap();
    }
  }

  io_uring_sqe* NextEntry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
      io_uring_submit(&ring_);
      while (ReapOne()) {
      }
      entry = io_uring_get_sqe(&ring_);
    }
    return entry;
  }

  void ArmWake() {
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_poll_add(entry, wake_.get(), POLLIN);
    io_uring_sqe_set_data64(entry, kWakeTag);
  }

  // Begins what there is room for. True: the engine is to stop.
  bool TakeOrders() {
    std::vector<std::unique_ptr<IoOperation>> begun;
    std::vector<std::unique_ptr<IoOperation>> ended;
    std::vector<uint64_t> cancels;
    bool stop = false;
    {
      absl::MutexLock lock(&mutex_);
      ordered_.store(false);
      stop = stopping_;
      cancels.swap(cancels_);
      if (stop) {
        ended = queue_.TakeIf([](const IoOperation&) { return true; });
      } else if (!cancels.empty()) {
        ended = queue_.TakeIf([&cancels](const IoOperation& operation) {
          return std::find(cancels.begin(), cancels.end(), operation.token) != cancels.end();
        });
      }
      in_flight_ -= static_cast<uint32_t>(ended.size());
      while (running_.size() + begun.size() < depth_ && !queue_.empty()) {
        begun.push_back(queue_.Pop());
      }
      waiting_ = !queue_.empty();
    }
    for (std::unique_ptr<IoOperation>& operation : ended) {
      operation->Complete(absl::CancelledError("cancelled"));
    }
    for (std::unique_ptr<IoOperation>& operation : begun) {
      const uint64_t token = operation->token;
      Running& running = running_[token];
      running.operation = std::move(operation);
      Prepare(token, running);
    }
    for (const uint64_t token : cancels) {
      EndEarly(token, absl::CancelledError("cancelled"));
    }
    return stop;
  }

  void EndEarly(uint64_t token, absl::Status why) {
    const auto found = running_.find(token);
    if (found == running_.end() || !found->second.operation->ended_early.ok()) {
      return;
    }
    found->second.operation->ended_early = std::move(why);
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_cancel64(entry, token, 0);
    io_uring_sqe_set_data64(entry, kCancelTag);
  }

  void ExpireDeadlines() {
    const absl::Duration now = clock_.Now();
    std::vector<std::unique_ptr<IoOperation>> ended;
    {
      absl::MutexLock lock(&mutex_);
      ended = queue_.TakeIf(
          [now](const IoOperation& operation) { return operation.request.deadline <= now; });
      in_flight_ -= static_cast<uint32_t>(ended.size());
    }
    for (std::unique_ptr<IoOperation>& operation : ended) {
      operation->Complete(absl::DeadlineExceededError("the deadline passed before it began"));
    }
    std::vector<uint64_t> late;
    for (const auto& [token, running] : running_) {
      if (running.operation->request.deadline <= now && running.operation->ended_early.ok()) {
        late.push_back(token);
      }
    }
    for (const uint64_t token : late) {
      EndEarly(token, absl::DeadlineExceededError("the deadline passed during the transfer"));
    }
  }

  void Prepare(uint64_t token, Running& running) {
    const IoRequest& request = running.operation->request;
    const TransferProgress& progress = running.operation->progress;
    io_uring_sqe* const entry = NextEntry();
    const int fd = request.file->descriptor();
    if (request.kind == IoKind::kSync) {
      io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
    } else if (progress.rest().size() == 1) {
      PrepareOne(entry, fd, request.kind, progress);
    } else {
      running.vectors.clear();
      for (const absl::Span<char> piece : progress.rest()) {
        running.vectors.push_back({piece.data(), piece.size()});
      }
      const auto count = static_cast<unsigned>(running.vectors.size());
      if (request.kind == IoKind::kRead) {
        io_uring_prep_readv(entry, fd, running.vectors.data(), count, progress.offset());
      } else {
        io_uring_prep_writev(entry, fd, running.vectors.data(), count, progress.offset());
      }
    }
    io_uring_sqe_set_data64(entry, token);
  }

  void PrepareOne(io_uring_sqe* entry, int fd, IoKind kind, const TransferProgress& progress) {
    const absl::Span<char> piece = progress.rest().front();
    const auto bytes = static_cast<unsigned>(piece.size());
    const int buffer = memory_.IndexOf(piece);
    if (kind == IoKind::kRead) {
      buffer >= 0
          ? io_uring_prep_read_fixed(entry, fd, piece.data(), bytes, progress.offset(), buffer)
          : io_uring_prep_read(entry, fd, piece.data(), bytes, progress.offset());
    } else {
      buffer >= 0
          ? io_uring_prep_write_fixed(entry, fd, piece.data(), bytes, progress.offset(), buffer)
          : io_uring_prep_write(entry, fd, piece.data(), bytes, progress.offset());
    }
  }

  void Wait() {
    // EAGAIN and EBUSY: the kernel wants completions reaped first; EINTR and ETIME: look again.
    if (running_.empty() && !waiting_) {
      io_uring_submit_and_wait(&ring_, 1);
      return;
    }
    __kernel_timespec turn = {0, absl::ToInt64Nanoseconds(kDeadlineTurn)};
    io_uring_cqe* completion = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &completion, 1, &turn, nullptr);
  }

  void Reap() {
    while (ReapOne()) {
      // Some devices complete all that they have at once. What was ordered since the first of these
      // completions was handed on must not wait for the last: the device would be idle meanwhile.
      if (ordered_.load()) {
        TakeOrders();
        io_uring_submit(&ring_);
      }
    }
  }

  // False: there was none.
  bool ReapOne() {
    io_uring_cqe* completion = nullptr;
    if (io_uring_peek_cqe(&ring_, &completion) != 0) {
      return false;
    }
    const uint64_t tag = io_uring_cqe_get_data64(completion);
    const int32_t result = completion->res;
    io_uring_cqe_seen(&ring_, completion);
    if (tag == kWakeTag) {
      wake_.Clear();
      ArmWake();
    } else if (tag >= kFirstToken) {
      Take(tag, result);
    }
    return true;
  }

  void Take(uint64_t token, int32_t result) {
    const auto found = running_.find(token);
    TERRACE_CHECK(found != running_.end());
    IoOperation& operation = *found->second.operation;
    const bool asked_to_end = !operation.ended_early.ok();
    const bool ended = asked_to_end && result < 0;
    // Cancelled by nobody here: as good as interrupted.
    const bool over =
        ended || operation.progress.Take(result == -ECANCELED ? -EINTR : result) || asked_to_end;
    if (!over) {
      ++resubmitted_;
      Prepare(token, found->second);
      return;
    }
    absl::Status status = operation.progress.status();
    if (ended || (asked_to_end && !operation.progress.rest().empty())) {
      status = operation.ended_early;
    }
    const std::unique_ptr<IoOperation> finished = std::move(found->second.operation);
    running_.erase(found);
    {
      absl::MutexLock lock(&mutex_);
      --in_flight_;
    }
    finished->Complete(std::move(status));
  }

  const uint32_t depth_;
  const uint32_t max_in_flight_;
  const Clock& clock_;
  const EventDescriptor wake_;
  RegisteredMemory memory_;
  std::atomic<uint64_t> resubmitted_{0};
  std::atomic<bool> ordered_{false};  // since the ring's thread last took orders
  std::atomic<bool> asleep_{false};   // the ring's thread, or about to be
  std::string buffer_refusal_;  // constant after Start
  bool started_ = false;        // constant after Start
  std::thread thread_;

  mutable absl::Mutex mutex_;
  IoQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> cancels_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = kFirstToken;
  uint32_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string registration_refusal_ ABSL_GUARDED_BY(mutex_);

  // The ring's thread alone, once it runs.
  io_uring ring_{};
  std::unordered_map<uint64_t, Running> running_;
  bool waiting_ = false;  // operations were left in the queue
};

}  // namespace

absl::StatusOr<std::unique_ptr<AsyncIo>> MakeUringIo(const AsyncIoOptions& options,
                                                     const Clock& clock) {
  absl::StatusOr<EventDescriptor> wake = EventDescriptor::Create();
  if (!wake.ok()) {
    return wake.status();
  }
  auto engine = std::make_unique<UringIo>(options, clock, *std::move(wake));
  if (absl::Status started = engine->Start(); !started.ok()) {
    return started;
  }
  return engine;
}

}  // namespace terrace
