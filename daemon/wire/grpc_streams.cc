#include "daemon/wire/grpc_streams.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include <grpcpp/alarm.h>

#include "daemon/wire/call_status.h"
#include "daemon/wire/stream_turn.h"
#include "daemon/wire/write_stream.h"

namespace terrace {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

// A message being read or written, and the same as gRPC has it.
constexpr uint64_t kWindowBytes = 2 * kMaxChunkBytes;
// Tag and length of a chunk: one byte, and at most five.
constexpr size_t kMaxChunkHeader = 6;

absl::Status TooManyStreams(const FrontLimits& limits) {
  return TryLater(
      absl::StrCat("streams: at most ", limits.stream_bytes_per_uid, " bytes a uid at a time"),
      1000);
}

// ---------------------------------------------------------------- put

// Owners: itself, from Start to OnDone, and the store's callback.
class PutStream final : public grpc::ServerReadReactor<grpc::ByteBuffer>,
                        public std::enable_shared_from_this<PutStream> {
 public:
  explicit PutStream(std::shared_ptr<FrontShared> shared) : shared_(std::move(shared)) {}

  static PutStream* Start(GrpcCallTable& table, GrpcCallSite site) {
    const auto stream = std::make_shared<PutStream>(table.shared());
    stream->self_ = stream;
    stream->context_ = site.context;
    // The call ends before the stream is done with, and but once.
    site.end = [stream = stream.get(), response = site.response](const grpc::Status& status,
                                                                 grpc::ByteBuffer reply) {
      response->Swap(&reply);
      stream->End(status);
    };
    stream->call_ = table.Begin(site);
    if (stream->turn_.Enter()) {
      stream->StartRead(&stream->message_);
      stream->Leave();
    }
    return stream.get();
  }

  void OnReadDone(bool ok) override {
    if (!turn_.Enter()) {
      return;
    }
    if (ok) {
      TakeMessage();
    } else {
      Complete();
    }
    Leave();
  }

  void OnCancel() override { call_->FinishEarly(absl::CancelledError("cancelled by the client")); }

  void OnDone() override {
    const std::shared_ptr<PutStream> last = std::move(self_);
    static_cast<void>(last);
  }

 private:
  void End(const grpc::Status& status) {
    const std::shared_ptr<PutStream> alive = shared_from_this();
    // Who is at work finishes; a read that is under way ends with the stream.
    static_cast<void>(turn_.End(status));
    Leave();
  }

  void Leave() {
    if (turn_.Leave()) {
      Finish(turn_.status());
    }
  }

  // What the stream held is free before its client can begin another.
  void Refuse(const absl::Status& status) {
    payload_ = std::string();
    room_.Return();
    call_->Finish(status, v1::PutReply());
  }

  void TakeMessage() {
    v1::PutStreamRequest message;
    absl::Status status = ParseGrpcMessage(message_, &message);
    message_.Clear();
    if (status.ok()) {
      status = began_ ? TakeChunk(message) : TakeRequest(message);
    }
    if (!status.ok()) {
      return Refuse(status);
    }
    StartRead(&message_);
  }

  absl::Status TakeRequest(v1::PutStreamRequest& message) {
    if (!message.has_request()) {
      return InvalidField("request", "required in the first message");
    }
    if (!message.chunk().empty()) {
      return InvalidField("chunk", "empty in the first message");
    }
    call_->call.max_inline_bytes = kMaxStreamBytes;
    if (absl::Status status =
            shared_->calls.CheckPutStream(call_->call, message.request(), &announced_);
        !status.ok()) {
      return status;
    }
    room_ = StreamPermit::Take(call_->peer->budget(), announced_ + kWindowBytes);
    if (!room_.valid()) {
      return TooManyStreams(shared_->limits);
    }
    began_ = true;
    request_ = std::move(*message.mutable_request());
    payload_.reserve(announced_);
    return absl::OkStatus();
  }

  absl::Status TakeChunk(const v1::PutStreamRequest& message) {
    if (message.has_request()) {
      return InvalidField("request", "only in the first message");
    }
    if (message.chunk().empty() || message.chunk().size() > kMaxChunkBytes) {
      return InvalidField("chunk", absl::StrCat("1 to ", kMaxChunkBytes, " bytes"));
    }
    if (message.chunk().size() > announced_ - payload_.size()) {
      return InvalidField("chunk", "with the others no longer than all payload_bytes together");
    }
    payload_.append(message.chunk());
    return absl::OkStatus();
  }

  // The client has half-closed, or is gone: nothing more comes.
  void Complete() {
    if (context_->IsCancelled()) {
      return call_->FinishEarly(absl::CancelledError("cancelled by the client"));
    }
    if (!began_) {
      return Refuse(InvalidField("request", "required in the first message"));
    }
    request_.set_payload(std::move(payload_));
    shared_->calls.Put(
        call_->call, request_,
        [self = shared_from_this()](const absl::Status& status, v1::PutReply& reply) {
          self->room_.Return();
          self->call_->Finish(status, reply);
        });
  }

  const std::shared_ptr<FrontShared> shared_;
  std::shared_ptr<PutStream> self_;
  std::shared_ptr<GrpcCall> call_;
  grpc::CallbackServerContext* context_ = nullptr;
  StreamTurn turn_;
  // From here on: only who reads, one at a time.
  grpc::ByteBuffer message_;
  bool began_ = false;
  v1::PutRequest request_;
  uint64_t announced_ = 0;
  std::string payload_;
  StreamPermit room_;
};

// ---------------------------------------------------------------- get

class GetStream final : public WriteStream {
 public:
  explicit GetStream(std::shared_ptr<FrontShared> shared) : WriteStream(std::move(shared)) {}

  void OnWriteDone(bool ok) override {
    if (ok && WriteChunk()) {
      return;  // still at work
    }
    // What the stream held is free before its client can begin another.
    payload_ = {};
    room_.Return();
    Leave();
    call_->FinishStream(ok ? absl::OkStatus() : absl::CancelledError("the client is gone"));
  }

 private:
  void Begin(const grpc::ByteBuffer& bytes) override {
    Ask(bytes);
    Leave();
  }

  void Ask(const grpc::ByteBuffer& bytes) {
    v1::GetRequest request;
    if (absl::Status status = ParseGrpcMessage(bytes, &request); !status.ok()) {
      return Refuse(status);
    }
    room_ = StreamPermit::Take(call_->peer->budget(), kWindowBytes);
    if (!room_.valid()) {
      return Refuse(TooManyStreams(shared_->limits));
    }
    shared_->calls.GetInPlace(
        call_->call, request,
        [this, self = shared_from_this()](const absl::Status& status, v1::GetReply& header,
                                          PayloadInPlace payload) {
          Deliver(status, header, std::move(payload));
        });
  }

  void Refuse(const absl::Status& status) { call_->FinishStream(status); }

  // On whichever thread found the blocks, which must not be kept: gRPC may run all that follows
  // from a write on the thread that began it. From here on the stream is at work until its last
  // write is done.
  void Deliver(const absl::Status& status, v1::GetReply& header, PayloadInPlace payload) {
    if (!status.ok()) {
      return Refuse(status);
    }
    if (!turn_.Enter()) {
      return;
    }
    payload_ = std::move(payload);
    v1::GetStreamReply message;
    *message.mutable_header() = std::move(header);
    message_ = GrpcBytesOf(message);
    to_grpc_.Set(gpr_inf_past(GPR_CLOCK_REALTIME), [this](bool /*fired*/) { WriteHeader(); });
  }

  void WriteHeader() {
    const std::shared_ptr<WriteStream> alive = shared_from_this();
    if (BeginsToWrite()) {
      StartWrite(&message_);
    } else {
      OnWriteDone(false);
    }
  }

  // False: everything is written, or the stream has ended.
  bool WriteChunk() {
    uint64_t left = 0;
    for (size_t i = at_key_; i < payload_.payloads.size() && left < kMaxChunkBytes; ++i) {
      left += payload_.payloads[i].size() - (i == at_key_ ? at_byte_ : 0);
    }
    if (left == 0 || turn_.ended()) {
      return false;
    }
    const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(left, kMaxChunkBytes));
    uint8_t header[kMaxChunkHeader];
    uint8_t* end = WireFormatLite::WriteTagToArray(
        v1::GetStreamReply::kChunkFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED, header);
    end = CodedOutputStream::WriteVarint32ToArray(bytes, end);
    grpc_slice chunk = grpc_slice_malloc(bytes);
    CopyNext({reinterpret_cast<char*>(GRPC_SLICE_START_PTR(chunk)), bytes});
    const grpc::Slice slices[] = {grpc::Slice(header, static_cast<size_t>(end - header)),
                                  grpc::Slice(chunk, grpc::Slice::STEAL_REF)};
    message_ = grpc::ByteBuffer(slices, 2);
    StartWrite(&message_);
    return true;
  }

  void CopyNext(absl::Span<char> out) {
    while (!out.empty()) {
      const absl::Span<const char> rest = payload_.payloads[at_key_].subspan(at_byte_);
      const size_t bytes = std::min(rest.size(), out.size());
      if (bytes != 0) {
        std::memcpy(out.data(), rest.data(), bytes);
      }
      out.remove_prefix(bytes);
      at_byte_ += bytes;
      if (bytes == rest.size()) {
        ++at_key_;
        at_byte_ = 0;
      }
    }
  }

  // From here on: only who writes, one at a time.
  grpc::Alarm to_grpc_;
  grpc::ByteBuffer message_;
  PayloadInPlace payload_;
  size_t at_key_ = 0;
  size_t at_byte_ = 0;
  StreamPermit room_;
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* RunPutStream(GrpcCallTable& table, GrpcCallSite site) {
  return PutStream::Start(table, std::move(site));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* RunGetStream(GrpcCallTable& table, GrpcCallSite site) {
  return WriteStream::Start<GetStream>(table, std::move(site));
}

}  // namespace terrace
