// What every implementation of PoolFiles shares: the rules that a call has to keep, and making one.
// Functions of their arguments alone.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_files.h"

namespace terrace {

// Whether a call reads into or writes from its buffer.
bool UsesBuffer(PoolOp op);

// INVALID_ARGUMENT, naming the field, for what no side may be asked to do. The buffer is not looked
// at.
absl::Status CheckPoolOperands(const PoolCall& call);
// The same, and that the buffer is there and large enough.
absl::Status CheckPoolCall(const PoolCall& call);

// Whether the mount, or who makes the calls, is at fault: not for outcomes such as a name that is
// absent or taken, a full or read-only file system, a bad path, or a call that was withdrawn.
bool IsPoolFault(const absl::Status& status);

// Makes a call that keeps the rules, with `memory` as its buffer. Blocks as the file system does.
PoolReply RunPoolCall(RootedFiles& files, const PoolCall& call, absl::Span<char> memory);

}  // namespace terrace
