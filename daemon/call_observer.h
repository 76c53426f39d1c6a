// What the carriers tell the metrics about each finished call.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "tiers/vocab/block_key.h"

namespace terrace {

enum class Carrier : uint8_t { kSession, kGrpc };

struct FinishedCall {
  std::string_view verb;  // "Probe", "Get", ...: a fixed set
  Carrier carrier = Carrier::kSession;
  TenantId tenant{0};
  absl::StatusCode status = absl::StatusCode::kOk;
  absl::Duration
      duration;  // from the whole request read to the reply handed to the kernel or to gRPC
  uint32_t keys = 0;
};

// Thread-safe; must not block.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual void Finished(const FinishedCall& call) = 0;
  // kind: "accepted", "refused_limit", "refused_identity", "closed", "protocol_error".
  virtual void Connection(Carrier carrier, std::string_view kind) = 0;
};

}  // namespace terrace
