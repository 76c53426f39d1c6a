// Gathers what doctor judges: by trying it, not by reading version numbers. Leaves nothing behind.
// Blocks on what it looks at; a hung file system under a folder hangs the caller, which is a tool.
#pragma once

#include <string>
#include <vector>

#include "tools/ctl/doctor.h"

namespace terrace::ctl {

// Everything but the daemon's own facts. `dirs` are tried with O_DIRECT.
HostFacts GatherHostFacts(const std::string& runtime_dir, const std::vector<std::string>& dirs);

DirectIoFact TryDirectIo(const std::string& dir);

// Limits of another process, from /proc. False when that may not be read.
bool ReadLimits(pid_t pid, uint64_t* memlock_bytes, uint64_t* descriptors);

// Pure pieces, for tests. "[advise]" of "always within_size [advise] never"; "" when nothing is
// chosen.
std::string ChosenWord(absl::string_view text);
// The number of a "Name:   123 kB" line, without its unit; 0 when there is none.
uint64_t MeminfoNumber(absl::string_view meminfo, absl::string_view name);
// The soft limit of a "Max locked memory   8388608   8388608   bytes" line; kUnlimited for
// "unlimited".
std::optional<uint64_t> SoftLimit(absl::string_view limits, absl::string_view name);

}  // namespace terrace::ctl
