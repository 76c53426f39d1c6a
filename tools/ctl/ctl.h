// terracectl as a function, so that tests can run it whole.
#pragma once

#include <string>

#include "absl/types/span.h"

#include "tools/ctl/terminal.h"

namespace terrace::ctl {

// args without the program's name; `runtime_from_environment` is $TERRACE_RUNTIME or "". Returns
// the exit status: 0 done, 1 it failed, 2 wrong usage, 78 configuration. With --json exactly one
// JSON object goes to `out`, an error as {"error": {"code", "message", "exit"}}; without, errors go
// to `err`. Blocks until the verb is through.
int RunCtl(absl::Span<const std::string> args,
           absl::string_view runtime_from_environment,
           Terminal& terminal);

}  // namespace terrace::ctl
