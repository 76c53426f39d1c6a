// Packets over one end of a SOCK_SEQPACKET pair, and a descriptor with one of them.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/os/descriptor.h"

namespace terrace {

enum class Waiting : uint8_t { kWait, kDont };

struct ReceivedPacket {
  absl::Span<const char> bytes;  // of the room that was given; empty: the other end is closed
  Descriptor passed;             // valid: came with it; more than one are closed
};

// Thread-safe: packets are sent and received as a whole.
class WorkerChannel {
 public:
  explicit WorkerChannel(Descriptor socket) : socket_(std::move(socket)) {}

  // Both ends, close-on-exec. RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::pair<Descriptor, Descriptor>> MakePair();

  // UNAVAILABLE: the other end is closed, or (kDont) takes nothing now. `passed` -1: none.
  [[nodiscard]] absl::Status Send(const std::string& packet,
                                  Waiting waiting,
                                  int passed = -1) const;
  // UNAVAILABLE (kDont): there is none. INVALID_ARGUMENT: longer than `room`, which a peer that
  // keeps the rules never sends.
  absl::StatusOr<ReceivedPacket> Receive(absl::Span<char> room, Waiting waiting) const;

  [[nodiscard]] int get() const { return socket_.get(); }

 private:
  Descriptor socket_;
};

}  // namespace terrace
