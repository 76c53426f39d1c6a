// The verbs. Each runs once, on the main thread, and answers or fails with a status whose message
// is for the operator.
#pragma once

#include "absl/status/statusor.h"

#include "tools/ctl/answer.h"
#include "tools/ctl/command_line.h"
#include "tools/ctl/connection.h"
#include "tools/ctl/terminal.h"

namespace terrace::ctl {

struct Run {
  const CommandLine& line;
  Connection& daemon;
  Terminal& terminal;
};

// Service Admin.
absl::StatusOr<Answer> RunStatus(const Run& run);
absl::StatusOr<Answer> RunTiers(const Run& run);
absl::StatusOr<Answer> RunPool(const Run& run);
absl::StatusOr<Answer> RunTenants(const Run& run);
absl::StatusOr<Answer> RunNamespaces(const Run& run);
absl::StatusOr<Answer> RunExplain(const Run& run);
absl::StatusOr<Answer> RunEvict(const Run& run);
absl::StatusOr<Answer> RunDrain(const Run& run);
absl::StatusOr<Answer> RunVerify(const Run& run);
absl::StatusOr<Answer> RunQuota(const Run& run);
absl::StatusOr<Answer> RunReload(const Run& run);
absl::StatusOr<Answer> RunScrub(const Run& run);

// Service Cache.
absl::StatusOr<Answer> RunProbe(const Run& run);
absl::StatusOr<Answer> RunPut(const Run& run);
absl::StatusOr<Answer> RunGet(const Run& run);
absl::StatusOr<Answer> RunPrefetch(const Run& run);
absl::StatusOr<Answer> RunDelete(const Run& run);
absl::StatusOr<Answer> RunPin(const Run& run);
absl::StatusOr<Answer> RunUnpin(const Run& run);

// A line an event, until --count of them have come or a signal ends the program.
absl::StatusOr<Answer> RunEvents(const Run& run);

// Until q or a signal; with --once one screen.
absl::StatusOr<Answer> RunTop(const Run& run);
absl::StatusOr<Answer> RunDoctor(const Run& run);

// Offline; needs no daemon.
absl::StatusOr<Answer> RunSegment(const Run& run);

// The digest of the namespace that the operator named; opens it when it was named by its record.
absl::StatusOr<std::string> ResolveNamespace(const NamespaceChoice& choice, Connection& daemon);

}  // namespace terrace::ctl
