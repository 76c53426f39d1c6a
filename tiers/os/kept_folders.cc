#include "tiers/os/kept_folders.h"

#include <errno.h>
#include <fcntl.h>

#include <memory>
#include <string>
#include <utility>

#include "tiers/os/descriptor.h"
#include "tiers/os/rooted_failure.h"

namespace terrace {
namespace {

OpenFiles::Name NameOf(absl::string_view folder) {
  return {std::string(folder), FileAccess::kRead, Caching::kBuffered};
}

absl::string_view FolderOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? absl::string_view() : path.substr(0, slash);
}

}  // namespace

absl::Status KeptFolders::Within(absl::string_view path, absl::string_view what, const Act& act) {
  const OpenFiles::Name name = NameOf(FolderOf(path));
  OpenFiles::FilePtr folder = folders_.Find(name);
  if (folder != nullptr) {
    const int error = act(folder);
    // A folder that was removed has no names; one that the file system forgot has no handle.
    if (error != ENOENT && error != ESTALE) {
      return error == 0 ? absl::OkStatus() : RootedFailure(error, what, path);
    }
    folders_.Forget(name);
  }
  Descriptor fd = root_.OpenWithin(name.path, O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) {
    return RootedFailure(errno, "open the folder of", path);
  }
  folder = std::make_shared<OpenFile>(std::move(fd), false);
  folders_.Keep(name, folder);
  const int error = act(folder);
  return error == 0 ? absl::OkStatus() : RootedFailure(error, what, path);
}

void KeptFolders::Forget(absl::string_view folder) {
  folders_.Forget(NameOf(folder));
}

}  // namespace terrace
