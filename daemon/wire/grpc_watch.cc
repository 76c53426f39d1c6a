#include "daemon/wire/grpc_watch.h"

#include <atomic>
#include <memory>
#include <utility>

#include <grpcpp/alarm.h>

#include "daemon/wire/stream_turn.h"
#include "daemon/wire/watch_feed.h"

namespace terrace {
namespace {

// Owner: itself, from Start to OnDone. At work from the beginning until it sees that it has ended:
// it writes, or its alarm is set.
class WatchStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  explicit WatchStream(std::shared_ptr<FrontShared> shared) : shared_(std::move(shared)) {}

  static WatchStream* Start(GrpcCallTable& table, GrpcCallSite site) {
    const auto stream = std::make_shared<WatchStream>(table.shared());
    stream->self_ = stream;
    stream->context_ = site.context;
    // The call ends before the stream is done with, and but once.
    site.end = [stream = stream.get()](const grpc::Status& status,
                                       const grpc::ByteBuffer& /*none*/) { stream->End(status); };
    stream->call_ = table.Begin(site);
    if (stream->turn_.Enter()) {
      stream->Begin(*site.bytes);
    }
    return stream.get();
  }

  void OnWriteDone(bool ok) override {
    writing_ = false;
    if (ok) {
      Look();
      return;
    }
    Leave();
    call_->FinishStream(absl::CancelledError("the client is gone"));
  }

  void OnCancel() override { call_->FinishStream(absl::CancelledError("cancelled by the client")); }

  void OnDone() override {
    const std::shared_ptr<WatchStream> last = std::move(self_);
    alarm_.reset();  // it keeps what it has called, which keeps this
  }

 private:
  void End(const grpc::Status& status) {
    const std::shared_ptr<WatchStream> alive = shared_from_this();
    if (turn_.End(status) == StreamTurn::Others::kAtWork && writing_) {
      context_->TryCancel();  // a write waits for a client that may never read
    }
    if (turn_.Leave()) {
      Finish(turn_.status());
    }
  }

  // Not at work any more. What it held is given back before its client can begin another.
  void Leave() {
    feed_.reset();
    if (turn_.Leave()) {
      Finish(turn_.status());
    }
  }

  void Begin(const grpc::ByteBuffer& bytes) {
    v1::WatchRequest request;
    absl::Status status = ParseGrpcMessage(bytes, &request);
    if (status.ok()) {
      absl::StatusOr<std::unique_ptr<WatchFeed>> feed =
          shared_->calls.Watch(call_->call, request, shared_->clock);
      status = feed.status();
      if (feed.ok()) {
        feed_ = *std::move(feed);
      }
    }
    if (!status.ok()) {
      Leave();
      call_->FinishStream(status);
      return;
    }
    // So that a client sees at once that it watches.
    StartSendInitialMetadata();
    LookIn(absl::ZeroDuration());
  }

  // A new alarm each time, because the last one may be what runs this.
  void LookIn(absl::Duration delay) {
    alarm_ = std::make_unique<grpc::Alarm>();
    const gpr_timespec wait = gpr_time_from_micros(absl::ToInt64Microseconds(delay), GPR_TIMESPAN);
    alarm_->Set(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), wait),
                [self = shared_from_this()](bool /*fired*/) { self->Look(); });
  }

  void Look() {
    if (turn_.ended()) {
      return Leave();
    }
    v1::WatchReply reply;
    switch (feed_->Next(&reply)) {
      case WatchFeed::Step::kIdle:
        return LookIn(kWatchPollInterval);
      case WatchFeed::Step::kBusy:
        return LookIn(absl::ZeroDuration());
      case WatchFeed::Step::kMessage:
        break;
    }
    message_ = GrpcBytesOf(reply);
    // In this order: who ends the stream from now on cancels the write, and who has ended it before
    // is seen here.
    writing_ = true;
    if (turn_.ended()) {
      writing_ = false;
      Leave();
    } else {
      StartWrite(&message_);
    }
  }

  const std::shared_ptr<FrontShared> shared_;
  std::shared_ptr<WatchStream> self_;
  std::shared_ptr<GrpcCall> call_;
  grpc::CallbackServerContext* context_ = nullptr;
  StreamTurn turn_;
  std::atomic<bool> writing_{false};
  // From here on: only who is at work.
  std::unique_ptr<WatchFeed> feed_;
  std::unique_ptr<grpc::Alarm> alarm_;
  grpc::ByteBuffer message_;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* RunWatch(GrpcCallTable& table, GrpcCallSite site) {
  return WatchStream::Start(table, std::move(site));
}

}  // namespace terrace
