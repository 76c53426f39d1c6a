// The door to the files below one folder of a shared file system, each named by its path below it.
//
// Nothing is held open on behalf of the caller, so that whoever makes the calls may die and be
// replaced between any two of them; what is kept is a cache of descriptors. Every component of a
// path is resolved below the root, never through a symbolic link and never into another mount: the
// mount that is absent, or swapped for another, is an error and not a place to write to. Folders
// that were opened to make something in them stay open until the next CheckRoot. Only regular files
// of one link are opened: a FIFO, a device, a symbolic or a hard link is INVALID_ARGUMENT.
//
// Thread-safe. Every call blocks, and on a sick mount for ever: none may be made by a process that
// has anything to lose (DESIGN.md section 3). Errors as of tiers/os/file_system.h; UNAVAILABLE: the
// file system has forgotten what was open (ESTALE), is gone, or the root is not the folder that was
// opened; INVALID_ARGUMENT: a path that is none, leads out, or names something of another kind.
//
// Files that appear as a whole are written under a temporary name beside their own, which is left
// behind where the process dies in between: see IsTemporaryName.
//
// What it does not promise: that what another node wrote is seen before the file is opened again
// (kFresh), that a listing is complete, or that locks exist.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "tiers/os/file_system.h"

namespace terrace {

// A path below the root: 1 to kMaxPathDepth names of 1 to 64 letters, digits, '.', '-' and '_',
// none of which begins with a dot, with '/' between them. "" is the root, for List alone.
inline constexpr uint32_t kMaxPathDepth = 8;
inline constexpr uint32_t kMaxPathBytes = 255;
bool IsRootedPath(absl::string_view path);

// The last component of a file that Create or Replace was making: kTemporaryPrefix and 16 hex
// digits. Nobody opens one again, so that an old one may be removed by whoever owns the folder.
inline constexpr absl::string_view kTemporaryPrefix = "tmp-";
bool IsTemporaryName(absl::string_view name);

// Of small files, which are replaced as a whole.
inline constexpr uint64_t kMaxSmallFileBytes = uint64_t{4} << 20;

// kKept: a descriptor that is open from before may serve. kFresh: the file is opened anew, and what
// the page cache has of it is not used where the file system lets one say so. kGlance: fresh, in as
// few calls as there can be, for what says of itself how long it is and whose: one transfer, which
// may end before the file does; that the file has one name is not looked at.
enum class ReadHow : uint8_t { kKept = 0, kFresh = 1, kGlance = 2 };

class RootedFiles {
 public:
  virtual ~RootedFiles() = default;

  // Fills `out` from `offset` as far as the file goes (kGlance: not beyond it); returns how much.
  // Bypasses the page cache where the file system can and offset, length and address are multiples
  // of 4096.
  virtual absl::StatusOr<uint64_t> Read(absl::string_view path,
                                        uint64_t offset,
                                        absl::Span<char> out,
                                        ReadHow how) = 0;
  // All of it, into a file that exists. After an error nobody knows how much; it is never repeated
  // here, because a file system that has forgotten a file may have lost earlier writes with it.
  virtual absl::Status Write(absl::string_view path,
                             uint64_t offset,
                             absl::Span<const char> bytes) = 0;
  // What was written before survives the loss of this node, and is what others read.
  virtual absl::Status Sync(absl::string_view path) = 0;

  // A new file of so many bytes of zeros, mode 0600, with space reserved where the file system can;
  // its name is durable. ALREADY_EXISTS.
  virtual absl::Status Make(absl::string_view path, uint64_t bytes) = 0;
  // A small file appears with its content, or not at all; durable. ALREADY_EXISTS: left as it is,
  // of several writers one wins. Where the file system can do it only by a second link, a reader
  // that comes between may be told INVALID_ARGUMENT.
  virtual absl::Status Create(absl::string_view path, absl::Span<const char> content) = 0;
  // The same, in the place of what is there: a reader gets the old content or the new.
  virtual absl::Status Replace(absl::string_view path, absl::Span<const char> content) = 0;
  virtual absl::Status Remove(absl::string_view path) = 0;

  // Mode 0700; OK when it is there already. The parent exists.
  virtual absl::Status MakeFolder(absl::string_view path) = 0;
  // FAILED_PRECONDITION: not empty.
  virtual absl::Status RemoveFolder(absl::string_view path) = 0;
  // In order of name, without sizes. What has a name that cannot stand in a path, as file systems
  // and strangers leave, is kOther. RESOURCE_EXHAUSTED over kMaxEntries.
  static constexpr uint32_t kMaxEntries = 16384;
  virtual absl::StatusOr<std::vector<FolderEntry>> List(absl::string_view path) = 0;

  virtual absl::StatusOr<FolderSpace> Space() = 0;
  // UNAVAILABLE: the root's path leads to another folder than the one that is open here.
  virtual absl::Status CheckRoot() = 0;
};

// The kernel's. Blocks. NOT_FOUND; INVALID_ARGUMENT: no folder. The root is never made.
absl::StatusOr<std::unique_ptr<RootedFiles>> OpenRootedFiles(const std::string& root);

}  // namespace terrace
