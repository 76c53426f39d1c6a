// A client of session.sock that does as it is told, right or wrong: the frame protocol written down once more, with
// blocking calls and the generated messages. Thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "terrace/v1/session.pb.h"
#include "tiers/os/descriptor.h"

namespace terrace::doubles {

struct ClientFrame {
  uint32_t payload_bytes = 0;  // as the header says
  uint16_t method = 0;
  uint8_t kind = 1;
  uint8_t descriptor_count = 0;
  uint64_t call_id = 0;
  uint32_t deadline_ms = 0;
  uint32_t status = 0;
  std::string payload;
  std::vector<Descriptor> descriptors;

  // The 24 bytes of the header; payload_bytes and descriptor_count are taken as they stand.
  [[nodiscard]] std::string Header() const;
};

class FrameClient {
 public:
  // Errors: UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<FrameClient>> Connect(const std::string& path);

  // ---- raw
  // False: the connection is over, or takes nothing for `timeout`.
  bool SendBytes(std::string_view bytes,
                 const std::vector<int>& descriptors = {},
                 absl::Duration timeout = absl::Seconds(20));
  // A request frame around `payload`; returns its call id.
  uint64_t SendRequest(v1::Method method,
                       std::string_view payload,
                       const std::vector<int>& descriptors = {},
                       uint32_t deadline_ms = 0);
  uint64_t Send(v1::Method method,
                const google::protobuf::MessageLite& message,
                const std::vector<int>& descriptors = {},
                uint32_t deadline_ms = 0);
  // The next frame, whatever it is; nullopt: the connection is over, or nothing came for `timeout`.
  std::optional<ClientFrame> Receive(absl::Duration timeout = absl::Seconds(20));
  // The reply to the call; pushes and other replies that come first are kept for Receive.
  std::optional<ClientFrame> ReceiveReply(uint64_t call_id,
                                          absl::Duration timeout = absl::Seconds(20));
  // Reads on until the peer has closed. False: it has not, for `timeout`.
  bool SeesEnd(absl::Duration timeout = absl::Seconds(20));
  [[nodiscard]] int get() const { return socket_.get(); }

  // ---- whole calls
  struct HelloOptions {
    bool pidfd = true;
    std::string name = "frame-client";
    std::vector<v1::Feature> features = {};  // that it says it can make use of
  };
  absl::StatusOr<v1::HelloReply> Hello(const HelloOptions& options);
  absl::StatusOr<v1::HelloReply> Hello() { return Hello(HelloOptions()); }
  // The status of the reply with ErrorDetail's message; UNAVAILABLE "no reply" when none comes.
  template <typename Reply>
  absl::StatusOr<Reply> Call(v1::Method method,
                             const google::protobuf::MessageLite& request,
                             const std::vector<int>& descriptors = {}) {
    return Result<Reply>(ReceiveReply(Send(method, request, descriptors)));
  }
  template <typename Reply>
  absl::StatusOr<Reply> Result(std::optional<ClientFrame> frame) {
    Reply reply;
    if (absl::Status status = Take(std::move(frame), &reply); !status.ok()) {
      return status;
    }
    return reply;
  }
  // Of the last reply that was not OK.
  [[nodiscard]] const v1::ErrorDetail& error() const { return error_; }
  // That came with the last reply taken by Call.
  std::vector<Descriptor>& received() { return received_; }

 private:
  explicit FrameClient(Descriptor socket) : socket_(std::move(socket)) {}
  absl::Status Take(std::optional<ClientFrame> frame, google::protobuf::MessageLite* reply);
  std::optional<ClientFrame> ReadFrame(absl::Duration timeout);

  Descriptor socket_;
  std::string buffer_;
  std::vector<Descriptor> pending_;  // descriptors that came and belong to frames still to be read
  std::vector<ClientFrame> kept_;
  uint64_t next_call_id_ = 1;
  bool over_ = false;
  v1::ErrorDetail error_;
  std::vector<Descriptor> received_;
};

}  // namespace terrace::doubles
