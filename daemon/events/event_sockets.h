// The two sockets of an event publisher; hides ZeroMQ. Nothing here waits for a peer.
//
// Peers are not trusted: frames of theirs that are longer than 1 KiB end their connection, and what
// is no request is passed over and counted.
//
// Threads: everything from one thread at a time, but Wake from any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/events/event_publisher.h"

namespace terrace {

struct ReplayQuestion {
  std::string peer;    // ZeroMQ's name for the connection
  uint64_t first = 0;  // sequence
};

class EventSockets {
 public:
  // Binds `zmq_endpoint` and, if it is one, `zmq_replay_endpoint`. A file that lies where an ipc
  // socket is to be is replaced if it is a socket that nobody listens on. Errors: as
  // EventPublisher::Start.
  static absl::StatusOr<std::unique_ptr<EventSockets>> Open(const EventPublisherOptions& options);

  // Closes after up to kEventLinger.
  virtual ~EventSockets() = default;

  [[nodiscard]] virtual std::string endpoint() const = 0;
  [[nodiscard]] virtual std::string replay_endpoint() const = 0;

  // False: ZeroMQ did not take it.
  virtual bool Publish(uint64_t sequence, std::string_view batch) = 0;

  enum class Asked : uint8_t { kNothing, kRequest, kNoRequest };
  // kNoRequest: something else was sent.
  virtual Asked NextRequest(ReplayQuestion* request) = 0;
  // kFull: the peer does not read fast enough, try again. kGone: it never will.
  enum class Sent : uint8_t { kSent, kFull, kGone };
  virtual Sent Reply(const std::string& peer, uint64_t sequence, std::string_view batch) = 0;

  // Until something is asked, somebody wakes it, or `limit` is over.
  virtual void Wait(absl::Duration limit) = 0;
  virtual void Wake() = 0;
};

}  // namespace terrace
