// A tenant's events for routers: what Watch tells, by ZeroMQ and in the format of vLLM's KV events,
// so that a router which knows vLLM's engines knows what a node holds beside their GPUs.
//
// One publisher is one tenant, one PUB socket, one topic and one sequence; tenants never share any
// of them. Messages have three frames: topic, sequence (8 bytes, big-endian) and a batch in msgpack
// (event_encoding.h). Sequences are without holes and begin with the microseconds since the epoch
// at which the publisher began, so that they rise from life to life, too.
//
// Who missed some asks the replay socket (ROUTER): an empty frame and the first sequence wanted, 8
// bytes big-endian; answered by (empty, sequence, batch) for each batch that is still kept, and
// sequence -1 with an empty batch at the end. Who missed more than is kept is first told
// AllBlocksCleared, and who asks with a number of an earlier life is given this one from its
// beginning: thus it knows too little, and never too much.
//
// What routers are told (router_feed.h): a life begins with AllBlocksCleared and all that is held;
// so does it again where Watch has a gap, and after the clear of one of several namespaces. It ends
// with AllBlocksCleared.
//
// Nobody who listens can hold up anything: a subscriber that is high_water_mark messages behind
// loses what comes, sees that by the sequence, and ZeroMQ tells nobody of it. Whoever can reach the
// endpoints can read hashes and tokens: there is no authentication beyond a socket file's mode.
//
// Threads: Start and the destructor from one thread; figures from any. Has a thread of its own,
// which looks every 50 ms, and ZeroMQ's two.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/events/router_event.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr size_t kMaxEventPublishers = 16;
inline constexpr uint32_t kMaxTopicBytes = 256;

// An [[events]] section.
struct EventPublisherOptions {
  std::string tenant;               // alias
  std::string zmq_endpoint;         // tcp://ADDRESS:PORT (port 0: any free one) or ipc://PATH
  std::string zmq_replay_endpoint;  // likewise; "": no replay
  std::string topic;                // at most kMaxTopicBytes
  std::string model;                // pattern of glob(7); "": every model of the tenant
  std::string dram_medium = "CPU";
  std::string local_medium = "STORAGE";
  EventFormat format = EventFormat::kMap;
  EventHashes hashes = EventHashes::kInt;
  uint32_t data_parallel_rank = 0;             // that batches say
  uint32_t buffer_steps = 10'000;              // batches kept for replay
  uint64_t buffer_bytes = uint64_t{64} << 20;  // of them; what is older goes
  uint32_t high_water_mark = 1000;  // messages a subscriber may be behind, of up to about 64 KiB
  uint32_t socket_mode = 0600;      // of ipc sockets
  friend bool operator==(const EventPublisherOptions&, const EventPublisherOptions&) = default;
};

struct EventPublisherFigures {
  std::string tenant;
  std::string endpoint;         // as it was bound, with the real port
  std::string replay_endpoint;  // likewise; "": none
  uint64_t stored = 0;  // blocks said to be stored, once for each medium
  uint64_t removed = 0;
  uint64_t clears = 0;  // AllBlocksCleared, the one at the start included
  uint64_t snapshots = 0;
  uint64_t watch_refusals = 0;  // by the store: too many watch; tried again
  uint64_t batches = 0;
  uint64_t next_sequence = 0;
  uint64_t bytes = 0;
  uint64_t unsent = 0;   // batches that ZeroMQ did not take
  uint64_t replays = 0;  // that were asked for
  uint64_t replayed_batches = 0;
  uint64_t replays_ended = 0;  // before their end: their readers are gone or do not read
  uint64_t bad_requests = 0;   // at the replay socket, not understood
};

class EventPublisher {
 public:
  struct Parts {
    BlockStore* store = nullptr;  // outlives the publisher, as does `clock`
    const Clock* clock = nullptr;
  };
  // Binds the endpoints. Errors, naming the endpoint: UNAVAILABLE (taken), INVALID_ARGUMENT (no
  // endpoint), PERMISSION_DENIED, INTERNAL; those of BlockStore::OpenTenant.
  static absl::StatusOr<std::unique_ptr<EventPublisher>> Start(const EventPublisherOptions& options,
                                                               const Parts& parts);

  // Says AllBlocksCleared, and gives subscribers up to kEventLinger to fetch what they were sent.
  virtual ~EventPublisher() = default;

  // As it was bound, with the real port.
  [[nodiscard]] virtual std::string endpoint() const = 0;
  [[nodiscard]] virtual std::string replay_endpoint() const = 0;  // "": none
  [[nodiscard]] virtual EventPublisherFigures figures() const = 0;
};

inline constexpr absl::Duration kEventLinger = absl::Milliseconds(200);

}  // namespace terrace
