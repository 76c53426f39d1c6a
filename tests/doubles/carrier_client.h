// The data contract over either carrier, for tests that expect the same of both.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"
#include "tiers/os/descriptor.h"

namespace terrace::doubles {

class FrameClient;

// How a call ended.
struct CallEnd {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string message;
  std::string field;           // as the server names it; "": none
  uint32_t retry_after_ms = 0;
  [[nodiscard]] bool ok() const { return code == absl::StatusCode::kOk; }
};

class CarrierClient {
 public:
  virtual ~CarrierClient() = default;
  // Blocks for at most 20 s. `bytes` may be no message at all.
  virtual CallEnd CallWithBytes(v1::Method method,
                                const std::string& bytes,
                                google::protobuf::Message* reply,
                                absl::Duration deadline) = 0;

  CallEnd Call(v1::Method method,
               const google::protobuf::Message& request,
               google::protobuf::Message* reply,
               absl::Duration deadline = absl::InfiniteDuration()) {
    return CallWithBytes(method, request.SerializeAsString(), reply, deadline);
  }
};

// folder: that of the sockets.
absl::StatusOr<std::unique_ptr<CarrierClient>> OpenSessionCarrier(const std::string& folder);
absl::StatusOr<std::unique_ptr<CarrierClient>> OpenGrpcCarrier(const std::string& folder);
// Over a socket that is connected already, by whichever uid.
std::unique_ptr<CarrierClient> GrpcCarrierOver(Descriptor connected);
// Hello has been said.
std::unique_ptr<CarrierClient> SessionCarrierOver(std::unique_ptr<FrameClient> client);
// service Admin: `method` is ignored, the verb is that of the reply's type ("Status" for StatusReply).
absl::StatusOr<std::unique_ptr<CarrierClient>> OpenAdminCarrier(const std::string& folder);
// The admin carrier's calls.
CallEnd CallAdmin(CarrierClient& admin,
                  const google::protobuf::Message& request,
                  google::protobuf::Message* reply);

}  // namespace terrace::doubles
