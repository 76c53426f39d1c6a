// Which process stands behind a session: a pidfd that proves its death, or nothing, and then there are no leases.
#pragma once

#include "absl/status/statusor.h"
#include "daemon/front.h"
#include "tiers/os/descriptor.h"

namespace terrace {

// The process to watch; an invalid descriptor when none can be trusted.
//   socket       connected; asked for SO_PEERPIDFD (Linux 6.5)
//   credentials  SO_PEERCRED of the socket; pid 0 when the peer is in a foreign pid namespace
//   passed       what the peer sent as its own pidfd; invalid: nothing
// A pidfd of another process would let the peer's leases outlive it, so one whose number differs from the credentials'
// is not trusted, and where the numbers say nothing the kernel's own pidfd goes first.
// Errors: INVALID_ARGUMENT when `passed` is no pidfd.
absl::StatusOr<PidDescriptor> ProveProcess(int socket,
                                           const PeerCredentials& credentials,
                                           Descriptor passed);

}  // namespace terrace
