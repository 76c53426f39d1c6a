#include "tests/doubles/carrier_client.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/doubles/frame_client.h"

namespace terrace::doubles {
namespace {

class SessionCarrier final : public CarrierClient {
 public:
  explicit SessionCarrier(std::unique_ptr<FrameClient> client) : client_(std::move(client)) {}

  CallEnd CallWithBytes(v1::Method method,
                        const std::string& bytes,
                        google::protobuf::Message* reply,
                        absl::Duration deadline) override {
    const uint32_t deadline_ms =
        deadline == absl::InfiniteDuration()
            ? 0
            : static_cast<uint32_t>(absl::ToInt64Milliseconds(deadline));
    const uint64_t id = client_->SendRequest(method, bytes, {}, deadline_ms);
    const std::optional<ClientFrame> frame = client_->ReceiveReply(id);
    if (!frame.has_value()) {
      return {absl::StatusCode::kUnavailable, "no reply", "", 0};
    }
    if (frame->status != 0) {
      v1::ErrorDetail detail;
      detail.ParseFromString(frame->payload);
      return {static_cast<absl::StatusCode>(frame->status),
              detail.message(),
              detail.field(),
              detail.retry_after_ms()};
    }
    const bool parsed = reply->ParseFromString(frame->payload);
    return {parsed ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss, "", "", 0};
  }

 private:
  const std::unique_ptr<FrameClient> client_;
};

// Raw bytes both ways, so that what is no message can be sent too.
class GrpcCarrier final : public CarrierClient {
 public:
  GrpcCarrier(std::shared_ptr<grpc::Channel> channel, std::string service)
      : stub_(std::move(channel)), service_(std::move(service)) {}

  CallEnd CallWithBytes(v1::Method method,
                        const std::string& bytes,
                        google::protobuf::Message* reply,
                        absl::Duration deadline) override {
    static_cast<void>(method);
    const absl::string_view type = reply->GetDescriptor()->name();
    const std::string verb = absl::StrReplaceAll(type, {{"Reply", ""}});
    return CallVerb(verb, bytes, reply, deadline);
  }

 private:
  CallEnd CallVerb(const std::string& verb,
                   const std::string& bytes,
                   google::protobuf::Message* reply,
                   absl::Duration deadline) {
    grpc::ClientContext context;
    const absl::Duration limit = std::min(deadline, absl::Seconds(20));
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(limit));
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::CompletionQueue queue;
    const auto call =
        stub_.PrepareUnaryCall(&context, absl::StrCat("/terrace.v1.", service_, "/", verb), request, &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    CallEnd end{static_cast<absl::StatusCode>(status.error_code()), status.error_message(), "", 0};
    if (status.ok()) {
      grpc::Slice out;
      const bool read = response.DumpToSingleSlice(&out).ok() &&
                        reply->ParseFromArray(out.begin(), static_cast<int>(out.size()));
      end.code = read ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss;
    }
    for (const auto& [name, value] : context.GetServerTrailingMetadata()) {
      if (name == "terrace-field") {
        end.field = std::string(value.data(), value.size());
      } else if (name == "terrace-retry-after-ms") {
        end.retry_after_ms =
            static_cast<uint32_t>(std::stoul(std::string(value.data(), value.size())));
      }
    }
    return end;
  }

  grpc::GenericStub stub_;
  const std::string service_;
};

std::unique_ptr<CarrierClient> OverGrpc(const std::string& path, const std::string& service) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return std::make_unique<GrpcCarrier>(
      grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments), service);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CarrierClient>> OpenSessionCarrier(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<FrameClient>> client = FrameClient::Connect(folder + "/session.sock");
  if (!client.ok()) {
    return client.status();
  }
  if (const auto hello = (*client)->Hello(); !hello.ok()) {
    return hello.status();
  }
  return std::make_unique<SessionCarrier>(*std::move(client));
}

absl::StatusOr<std::unique_ptr<CarrierClient>> OpenGrpcCarrier(const std::string& folder) {
  return OverGrpc(folder + "/terrace.sock", "Cache");
}

std::unique_ptr<CarrierClient> GrpcCarrierOver(Descriptor connected) {
  fcntl(connected.get(), F_SETFL, O_NONBLOCK);
  return std::make_unique<GrpcCarrier>(
      grpc::CreateInsecureChannelFromFd("localhost", connected.Release()), "Cache");
}

std::unique_ptr<CarrierClient> SessionCarrierOver(std::unique_ptr<FrameClient> client) {
  return std::make_unique<SessionCarrier>(std::move(client));
}

absl::StatusOr<std::unique_ptr<CarrierClient>> OpenAdminCarrier(const std::string& folder) {
  return OverGrpc(folder + "/admin.sock", "Admin");
}

CallEnd CallAdmin(CarrierClient& admin,
                  const google::protobuf::Message& request,
                  google::protobuf::Message* reply) {
  return admin.Call(v1::METHOD_UNSPECIFIED, request, reply);
}

}  // namespace terrace::doubles
