// The daemon's two folders: made, checked, and the data folder locked against a second daemon.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"

#include "tiers/os/descriptor.h"

namespace terrace {

struct FolderOptions {
  std::string runtime_dir;
  std::string data_dir;
  gid_t group =
      static_cast<gid_t>(-1);  // of a runtime folder that is made here; -1: the daemon's own
};

// The descriptor that holds the lock of the data folder, DATA/terraced.lock; the lock ends with the
// process.
//   runtime folder  made with mode 0750 if absent; refused when everyone may write to it
//   data folder     made with mode 0700 if absent; closed to others when it is empty or was this
//   daemon's already,
//                   refused when it is open to others and holds something else
// Errors: ALREADY_EXISTS (another daemon has the data folder), FAILED_PRECONDITION,
// PERMISSION_DENIED, INTERNAL; each names the folder.
absl::StatusOr<Descriptor> PrepareFolders(const FolderOptions& options);

}  // namespace terrace
