#include "daemon/events/event_publisher.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

#include "daemon/events/event_encoding.h"
#include "daemon/events/event_sockets.h"
#include "daemon/events/replay_buffer.h"
#include "daemon/events/router_feed.h"

namespace terrace {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(50);
constexpr size_t kBatchBytes = size_t{64} << 10;  // an event that exceeds it ends a batch
// What is told is gathered while there is more: a snapshot is few messages, not one a look.
constexpr size_t kEventsAtOnce = 256;
constexpr int kLooksAtOnce = 16;
constexpr int kRequestsAtOnce = 16;
constexpr size_t kMaxReplays = 32;   // that are under way
constexpr int kRepliesAtOnce = 256;  // to one reader, before others have their turn
constexpr absl::Duration kReaderPatience = absl::Seconds(10);  // with one that reads nothing
constexpr uint64_t kEndOfReplay = ~uint64_t{0};

class ZmqEventPublisher final : public EventPublisher {
 public:
  ZmqEventPublisher(const EventPublisherOptions& options,
                    std::unique_ptr<EventSockets> sockets,
                    TenantId tenant,
                    const Parts& parts)
      : sockets_(std::move(sockets)),
        clock_(*parts.clock),
        feed_(
            {options.model, options.dram_medium, options.local_medium},
            [store = parts.store, tenant](WatchCall call) {
              return store->Watch(tenant, std::move(call));
            },
            *parts.clock),
        writer_(options.format, options.hashes, options.data_parallel_rank),
        kept_(options.buffer_steps,
              options.buffer_bytes,
              static_cast<uint64_t>(absl::ToUnixMicros(absl::Now()))) {
    figures_.tenant = options.tenant;
    figures_.endpoint = sockets_->endpoint();
    figures_.replay_endpoint = sockets_->replay_endpoint();
    shown_ = figures_;
    thread_ = std::thread([this] { Run(); });
  }
  ZmqEventPublisher(const ZmqEventPublisher&) = delete;
  ZmqEventPublisher& operator=(const ZmqEventPublisher&) = delete;
  ~ZmqEventPublisher() override {
    stop_.store(true);
    sockets_->Wake();
    thread_.join();
  }

  [[nodiscard]] std::string endpoint() const override { return sockets_->endpoint(); }
  [[nodiscard]] std::string replay_endpoint() const override { return sockets_->replay_endpoint(); }
  [[nodiscard]] EventPublisherFigures figures() const override {
    absl::MutexLock lock(&mutex_);
    return shown_;
  }

 private:
  struct Replay {
    std::string peer;
    uint64_t next = 0;
    absl::Duration moved_at;
  };

  void Run() {
    std::vector<RouterEvent> events;
    while (!stop_.load()) {
      RouterFeed::Step step = RouterFeed::Step::kBusy;
      for (int i = 0;
           i < kLooksAtOnce && step == RouterFeed::Step::kBusy && events.size() < kEventsAtOnce;
           ++i) {
        step = feed_.Next(&events);
      }
      Publish(events);
      events.clear();
      TakeRequests();
      const bool replayed = ServeReplays();
      Show();
      if (step == RouterFeed::Step::kIdle && !replayed) {
        sockets_->Wait(kLookInterval);
      }
    }
    events.emplace_back().kind = RouterEvent::Kind::kAllCleared;
    Publish(events);
  }

  void Publish(const std::vector<RouterEvent>& events) {
    for (const RouterEvent& event : events) {
      writer_.Add(event);
      switch (event.kind) {
        case RouterEvent::Kind::kStored:
          figures_.stored += event.hashes.size();
          break;
        case RouterEvent::Kind::kRemoved:
          figures_.removed += event.hashes.size();
          break;
        case RouterEvent::Kind::kAllCleared:
          ++figures_.clears;
          break;
      }
      if (writer_.bytes() >= kBatchBytes) {
        SendBatch();
      }
    }
    if (!writer_.empty()) {
      SendBatch();
    }
  }

  void SendBatch() {
    std::string batch = writer_.Finish(absl::Now() - absl::UnixEpoch());
    figures_.unsent += sockets_->Publish(kept_.end(), batch) ? 0 : 1;
    ++figures_.batches;
    figures_.bytes += batch.size();
    kept_.Add(std::move(batch));
  }

  void TakeRequests() {
    for (int i = 0; i < kRequestsAtOnce; ++i) {
      ReplayQuestion request;
      switch (sockets_->NextRequest(&request)) {
        case EventSockets::Asked::kNothing:
          return;
        case EventSockets::Asked::kNoRequest:
          ++figures_.bad_requests;
          break;
        case EventSockets::Asked::kRequest:
          BeginReplay(request);
          break;
      }
    }
  }

  // One at a time for a peer: who asks again begins again. Where there are too many, the one goes
  // that has stood longest.
  void BeginReplay(const ReplayQuestion& request) {
    ++figures_.replays;
    const auto same = std::find_if(replays_.begin(), replays_.end(), [&](const Replay& replay) {
      return replay.peer == request.peer;
    });
    if (same != replays_.end()) {
      replays_.erase(same);
    } else if (replays_.size() >= kMaxReplays) {
      replays_.erase(std::min_element(
          replays_.begin(), replays_.end(),
          [](const Replay& one, const Replay& other) { return one.moved_at < other.moved_at; }));
      ++figures_.replays_ended;
    }
    replays_.push_back({request.peer, request.first, clock_.Now()});
  }

  // Whether anything was sent.
  bool ServeReplays() {
    bool sent = false;
    for (auto replay = replays_.begin(); replay != replays_.end();) {
      const uint64_t before = replay->next;
      const bool is_over = Serve(*replay);
      sent = sent || replay->next != before || is_over;
      replay = is_over ? replays_.erase(replay) : std::next(replay);
    }
    return sent;
  }

  // Whether it is over, one way or the other.
  bool Serve(Replay& replay) {
    for (int i = 0; i < kRepliesAtOnce; ++i) {
      const bool is_end = replay.next >= kept_.end();
      switch (SendNext(replay)) {
        case EventSockets::Sent::kSent:
          if (is_end) {
            return true;
          }
          ++replay.next;
          ++figures_.replayed_batches;
          replay.moved_at = clock_.Now();
          break;
        case EventSockets::Sent::kFull:
          if (clock_.Now() < replay.moved_at + kReaderPatience) {
            return false;
          }
          ++figures_.replays_ended;
          return true;
        case EventSockets::Sent::kGone:
          ++figures_.replays_ended;
          return true;
      }
    }
    return false;
  }

  // Where not all is kept that it wants, what its reader knew may be wrong.
  EventSockets::Sent SendNext(Replay& replay) {
    if (replay.next >= kept_.end()) {
      return sockets_->Reply(replay.peer, kEndOfReplay, "");
    }
    if (replay.next >= kept_.oldest()) {
      return sockets_->Reply(replay.peer, replay.next, kept_.at(replay.next));
    }
    if (kept_.oldest() == kept_.first()) {  // of an earlier life; this one begins with a clear
      replay.next = kept_.first();
      return sockets_->Reply(replay.peer, replay.next, kept_.at(replay.next));
    }
    replay.next = kept_.oldest() - 1;
    writer_.Add(RouterEvent());
    return sockets_->Reply(replay.peer, replay.next,
                           writer_.Finish(absl::Now() - absl::UnixEpoch()));
  }

  void Show() {
    figures_.snapshots = feed_.figures().snapshots;
    figures_.watch_refusals = feed_.figures().watch_refusals;
    figures_.next_sequence = kept_.end();
    absl::MutexLock lock(&mutex_);
    shown_ = figures_;
  }

  // Of the thread, but for what EventSockets lets others call.
  const std::unique_ptr<EventSockets> sockets_;
  const Clock& clock_;
  RouterFeed feed_;
  EventBatchWriter writer_;
  ReplayBuffer kept_;
  std::list<Replay> replays_;
  EventPublisherFigures figures_;

  mutable absl::Mutex mutex_;
  EventPublisherFigures shown_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EventPublisher>> EventPublisher::Start(
    const EventPublisherOptions& options, const Parts& parts) {
  const absl::StatusOr<TenantId> tenant = parts.store->OpenTenant(options.tenant);
  if (!tenant.ok()) {
    return tenant.status();
  }
  absl::StatusOr<std::unique_ptr<EventSockets>> sockets = EventSockets::Open(options);
  if (!sockets.ok()) {
    return sockets.status();
  }
  return std::make_unique<ZmqEventPublisher>(options, *std::move(sockets), *tenant, parts);
}

}  // namespace terrace
