// Folders below a root that stay open, so that making, naming and removing a file does not open its
// folder each time.
//
// An open folder is the one that it was, whatever its path has come to mean since: so each is kept
// until it turns out to be gone, or Clear, which whoever checks the root calls as often as that.
//
// Thread-safe.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "tiers/os/beneath.h"
#include "tiers/os/open_files.h"

namespace terrace {

class KeptFolders {
 public:
  // `root` is borrowed.
  explicit KeptFolders(const BeneathFolder& root) : root_(root) {}

  // Calls `act` with the folder that `path`, IsRootedPath, lies in. It returns an errno, and makes
  // one call whose repetition does no harm: where a folder that was open from before is not there
  // any more, it is called again with the one that the path leads to now. A failure is
  // RootedFailure(errno, what, path).
  using Act = std::function<int(const OpenFiles::FilePtr& folder)>;
  absl::Status Within(absl::string_view path, absl::string_view what, const Act& act);

  void Forget(absl::string_view folder);
  void Clear() { folders_.Clear(); }

 private:
  static constexpr size_t kMaxFolders = 16;

  const BeneathFolder& root_;
  OpenFiles folders_{kMaxFolders};
};

}  // namespace terrace
