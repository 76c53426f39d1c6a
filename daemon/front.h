// The front of the core: three Unix sockets, their peers' identities, both carriers over one set of
// handlers.
//
//   RUNTIME/terrace.sock   gRPC, service Cache + health + reflection
//   RUNTIME/session.sock   frames of proto/terrace/v1/session.proto
//   RUNTIME/admin.sock     gRPC, service Admin; peers of uid 0 and the daemon's own uid only
//
// Every connection is accepted here, its SO_PEERCRED read, and its tenant resolved before a byte of
// it is parsed. gRPC connections go to a server object of their own per tenant, so that a handler's
// tenant is structure and not a look-up by descriptor number.
//
// Threads: Start, BeginDrain and Stop from one thread; everything else is the front's own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/call_observer.h"
#include "daemon/events/event_publisher.h"
#include "daemon/gpu_handoff.h"

namespace terrace {

struct PeerCredentials {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;  // 0 when the peer is in a foreign pid namespace
};

// The alias of the tenant that this peer belongs to; PERMISSION_DENIED when it belongs to none.
using TenantResolver = std::function<absl::StatusOr<std::string>(const PeerCredentials&)>;

struct FrontLimits {
  uint32_t connections_per_uid = 64;
  uint32_t connections_total = 1024;
  uint32_t calls_in_flight_per_uid = 256;
  uint32_t message_bytes = 4U << 20;
  absl::Duration hello_timeout = absl::Seconds(2);         // a session that does not say Hello
  absl::Duration write_stall_timeout = absl::Seconds(10);  // a peer that does not read its replies
  uint64_t reply_backlog_bytes = uint64_t{16}
                                 << 20;  // a session: beyond it requests are not read, then closed
  // Payload of PutStream and GetStream in the daemon's own memory. A put takes what it announces, at
  // most kMaxStreamBytes (daemon/wire/calls.h), and two chunks; a get takes two chunks.
  uint64_t stream_bytes_per_uid = uint64_t{132} << 20;  // two of the largest puts
  uint64_t stream_bytes_total = uint64_t{528} << 20;
  // Server-side caps, used also when the caller names no deadline.
  absl::Duration probe_cap = absl::Milliseconds(500);
  absl::Duration get_cap = absl::Seconds(30);
  absl::Duration put_cap = absl::Seconds(30);
  absl::Duration other_cap = absl::Seconds(30);
};

struct FrontOptions {
  std::string runtime_dir;
  mode_t socket_mode = 0660;                  // terrace.sock and session.sock; admin.sock is 0600
  gid_t socket_gid = static_cast<gid_t>(-1);  // -1: unchanged
  int io_threads = 2;                         // session sockets
  absl::Duration io_poll;  // how long they poll before they sleep, as long as that pays
  FrontLimits limits;
  TenantResolver tenant_of;
  GpuHandoff* gpu = nullptr;  // borrowed, outlives the front; nullptr: GPU regions are not served
};

// What Admin needs from the rest of the daemon.
struct AdminHooks {
  struct ReloadResult {
    std::vector<std::string> changed;
    std::vector<std::string> needs_restart;
  };
  std::function<absl::StatusOr<ReloadResult>()> reload;
  std::function<std::string()> metrics_address;
  std::function<std::vector<EventPublisherFigures>()> publishers;
  std::string version;
};

class Front {
 public:
  // Removes a stale socket of a dead daemon, never one that still answers.
  // Errors: ALREADY_EXISTS (another daemon serves this folder), PERMISSION_DENIED, INVALID_ARGUMENT
  // (path too long).
  static absl::StatusOr<std::unique_ptr<Front>> Start(FrontOptions options,
                                                      BlockStore& store,
                                                      const Clock& clock,
                                                      CallObserver& observer,
                                                      AdminHooks hooks);
  virtual ~Front() = default;

  [[nodiscard]] virtual uint64_t boot_id() const = 0;
  // For BlockStore::Parts::observer hand-over: pushes SlabRetiredNotice to the session.
  virtual void SlabRetired(SessionId session, SlabId slab) = 0;
  // True when the threads of the data path have turned over since the last call: feeds the
  // watchdog.
  virtual bool Alive() = 0;
  // Refuses new connections and sessions, tells sessions, lets calls in flight end.
  virtual void BeginDrain(absl::Duration grace) = 0;
  // Closes everything; returns when no handler runs any more.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace terrace
