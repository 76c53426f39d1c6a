// A call over gRPC that is answered by a stream: how it begins, and that it ends once.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "daemon/wire/grpc_call.h"
#include "daemon/wire/stream_turn.h"

namespace terrace {

// Owners: itself, from Start to OnDone, and callbacks that will come. What derives from it is at
// work from Begin until it says Leave, and begins no write when it is not.
class WriteStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public std::enable_shared_from_this<WriteStream> {
 public:
  template <typename Stream>
  static WriteStream* Start(GrpcCallTable& table, GrpcCallSite site) {
    const std::shared_ptr<WriteStream> stream = std::make_shared<Stream>(table.shared());
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

  void OnCancel() final { call_->FinishStream(absl::CancelledError("cancelled by the client")); }
  void OnDone() final {
    const std::shared_ptr<WriteStream> last = std::move(self_);
    Done();
  }

 protected:
  explicit WriteStream(std::shared_ptr<FrontShared> shared) : shared_(std::move(shared)) {}

  virtual void Begin(const grpc::ByteBuffer& bytes) = 0;
  // gRPC is done with it.
  virtual void Done() {}

  void Leave() {
    if (turn_.Leave()) {
      Finish(turn_.status());
    }
  }
  // False: it has ended, and no write is begun. In this order: who ends the stream from now on
  // cancels the write, and who has ended it before is seen here.
  [[nodiscard]] bool BeginsToWrite() {
    writing_ = true;
    return !turn_.ended();
  }

  const std::shared_ptr<FrontShared> shared_;
  std::shared_ptr<GrpcCall> call_;
  StreamTurn turn_;
  std::atomic<bool> writing_{false};

 private:
  void End(const grpc::Status& status) {
    const std::shared_ptr<WriteStream> alive = shared_from_this();
    if (turn_.End(status) == StreamTurn::Others::kAtWork && writing_) {
      // A write waits for a client that may never read. gRPC's part of the stream lives until the
      // last one leaves.
      context_->TryCancel();
    }
    Leave();
  }

  std::shared_ptr<WriteStream> self_;
  grpc::CallbackServerContext* context_ = nullptr;
};

}  // namespace terrace
