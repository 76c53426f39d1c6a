// What a failed call of a shared file system is to whoever made it. Pure but for the text of errno.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace terrace {

// As of tiers/os/rooted_files.h; `path` "" is the root.
absl::Status RootedFailure(int error, absl::string_view what, absl::string_view path);

}  // namespace terrace
