#include "daemon/wire/grpc_watch.h"

#include <memory>
#include <utility>

#include <grpcpp/alarm.h>

#include "daemon/wire/watch_feed.h"
#include "daemon/wire/write_stream.h"

namespace terrace {
namespace {

// At work from the beginning until it sees that it has ended: it writes, or its alarm is set.
class WatchStream final : public WriteStream {
 public:
  explicit WatchStream(std::shared_ptr<FrontShared> shared) : WriteStream(std::move(shared)) {}

  void OnWriteDone(bool ok) override {
    writing_ = false;
    if (ok) {
      Look();
      return;
    }
    LeaveForGood();
    call_->FinishStream(absl::CancelledError("the client is gone"));
  }

 private:
  // Not at work any more. What it held is given back before its client can begin another.
  void LeaveForGood() {
    feed_.reset();
    Leave();
  }

  // The alarm keeps what it has called, which keeps this.
  void Done() override { alarm_.reset(); }

  void Begin(const grpc::ByteBuffer& bytes) override {
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
      LeaveForGood();
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
                [this, self = shared_from_this()](bool /*fired*/) { Look(); });
  }

  void Look() {
    if (turn_.ended()) {
      return LeaveForGood();
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
    if (BeginsToWrite()) {
      StartWrite(&message_);
    } else {
      LeaveForGood();
    }
  }

  // From here on: only who is at work.
  std::unique_ptr<WatchFeed> feed_;
  std::unique_ptr<grpc::Alarm> alarm_;
  grpc::ByteBuffer message_;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* RunWatch(GrpcCallTable& table, GrpcCallSite site) {
  return WriteStream::Start<WatchStream>(table, std::move(site));
}

}  // namespace terrace
