// The operations of a sick mount that can be told to be sick, and what they are called on the
// socket between a test and the server.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace terrace::doubles {

enum class SickOp : uint8_t {
  kStat,  // of whatever a path names, also on the way to something else
  kOpen,
  kCreate,
  kRead,
  kWrite,
  kFsync,
  kClose,    // which the one who closes waits for
  kRelease,  // which nobody waits for
  kReaddir,
  kUnlink,
  kRename,
  kRenameAnew,  // unless the new name is taken
  kMkdir,
  kStatfs,
};

inline constexpr std::array<std::string_view, 14> kSickOpNames = {
    "stat",    "open",    "create", "read",   "write",       "fsync", "close",
    "release", "readdir", "unlink", "rename", "rename-anew", "mkdir", "statfs"};

inline constexpr std::string_view NameOf(SickOp op) {
  return kSickOpNames[static_cast<size_t>(op)];
}

}  // namespace terrace::doubles
