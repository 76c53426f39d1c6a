#include "tiers/os/folder_listing.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/string_view.h"
#include <dirent.h>

#include "tiers/os/rooted_files.h"

namespace terrace {
namespace {

constexpr size_t kRoomForNames = size_t{128} << 10;  // of more than a thousand members

EntryKind KindOf(mode_t mode) {
  if (S_ISREG(mode)) {
    return EntryKind::kFile;
  }
  return S_ISDIR(mode) ? EntryKind::kFolder : EntryKind::kOther;
}

void AddEntry(int fd, const char* name, unsigned char type, std::vector<FolderEntry>* entries) {
  EntryKind kind = EntryKind::kOther;
  if (IsRootedPath(name)) {
    struct stat status {};
    if (type == DT_UNKNOWN && fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      return;  // gone meanwhile
    }
    kind = KindOf(type == DT_UNKNOWN ? status.st_mode : static_cast<mode_t>(DTTOIF(type)));
  }
  entries->push_back({name, kind, 0});
}

}  // namespace

int ListFolder(int fd, size_t max_entries, std::vector<FolderEntry>* entries) {
  std::vector<char> room(kRoomForNames);
  for (;;) {
    const ssize_t got = getdents64(fd, room.data(), room.size());
    if (got < 0) {
      return errno;
    }
    if (got == 0) {
      break;
    }
    for (ssize_t at = 0; at < got;) {
      const char* entry = room.data() + at;
      decltype(dirent64::d_reclen) bytes = 0;
      decltype(dirent64::d_type) type = 0;
      std::memcpy(&bytes, entry + offsetof(dirent64, d_reclen), sizeof(bytes));
      std::memcpy(&type, entry + offsetof(dirent64, d_type), sizeof(type));
      const absl::string_view name = entry + offsetof(dirent64, d_name);
      if (name != "." && name != "..") {
        if (entries->size() == max_entries) {
          return E2BIG;
        }
        AddEntry(fd, name.data(), type, entries);
      }
      at += bytes;
    }
  }
  std::sort(entries->begin(), entries->end(),
            [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
  return 0;
}

}  // namespace terrace
