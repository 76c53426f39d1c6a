// The composition root: builds the daemon out of its parts, in order, and takes it down again.
//
// Threads: Start, Stop and the destructor from one thread; Reload from any.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/config.h"
#include "daemon/front.h"
#include "daemon/log.h"
#include "daemon/service_notify.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr absl::Duration kTickInterval = absl::Milliseconds(10);
inline constexpr absl::Duration kStopLimit = absl::Seconds(5);

class Core {
 public:
  struct Options {
    ConfigRequest request;  // what Reload loads again
    LoadedConfig loaded;
    std::string version;
    std::vector<KeptDescriptor> kept;  // from the service manager
  };

  // Makes and locks the folders, allocates and touches the arena, opens the sockets. Blocks for as
  // long as touching takes (up to a second a GiB) and says meanwhile how far it is. `log` and
  // `notify` outlive the core. Errors: one clear line; RESOURCE_EXHAUSTED (the arena does not fit),
  // ALREADY_EXISTS (another daemon has a folder), UNAVAILABLE (the metrics address is taken),
  // PERMISSION_DENIED, INVALID_ARGUMENT, FAILED_PRECONDITION.
  static absl::StatusOr<std::unique_ptr<Core>> Start(Options options,
                                                     Log& log,
                                                     const ServiceNotify& notify);

  virtual ~Core() = default;

  // Reads the configuration again: valid as a whole, or nothing changes. What can change while
  // running does; the rest is listed as needing a restart. Blocks for the file and for no call.
  // Errors: INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED (of LoadConfig); UNAVAILABLE (another
  // reload is running); FAILED_PRECONDITION (quotas that do not fit beside those that were set by
  // hand).
  virtual absl::StatusOr<AdminHooks::ReloadResult> Reload() = 0;

  // Refuses what is new, lets calls in flight end for up to `grace`, closes the sockets.
  // Idempotent.
  virtual void Stop(absl::Duration grace) = 0;

  // "127.0.0.1:9464"; "": metrics are off.
  [[nodiscard]] virtual std::string metrics_address() const = 0;
};

}  // namespace terrace
