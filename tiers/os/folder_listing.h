// What a folder of a shared file system has in it, in as few calls as the kernel allows.
#pragma once

#include <cstddef>
#include <vector>

#include "tiers/os/file_system.h"

namespace terrace {

// Adds what is in the open folder `fd` but for itself and its parent, in order of name, and without
// sizes, which would cost a call each: kinds are asked for only where the file system does not tell
// them with the names. What has a name that cannot stand in a path is kOther. Returns an errno; 0:
// all of it; E2BIG: over `max_entries`. Blocks.
int ListFolder(int fd, size_t max_entries, std::vector<FolderEntry>* entries);

}  // namespace terrace
