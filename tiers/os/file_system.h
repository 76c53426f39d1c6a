// The door to a file system: one folder at a time, and the files in it.
//
// A Folder holds the folder itself open, and every name is one component inside it, never followed
// through a symbolic link: a folder that is swapped for another under the same path cannot redirect
// what is written. The tiers keep everything of theirs in one folder that they own alone.
//
// All calls block, and none may be made by a thread that serves clients; transfers that must not
// block go through AsyncIo. A Status comes from StatusFromErrno: full disk or quota is
// RESOURCE_EXHAUSTED, a read-only file system PERMISSION_DENIED, an absent name NOT_FOUND, a medium
// that failed INTERNAL.
//
// What it does not promise: that anything survives a power loss before Sync of the file (its bytes
// and its size) and Sync of the folder (its names).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace terrace {

// An open file. Thread-safe: transfers name their offset.
class File {
 public:
  virtual ~File() = default;

  // Transfers at most out.size() bytes at `offset`; returns how many, which may be fewer. 0: end of
  // file. For a direct file offset, length and address are multiples of the folder's alignment.
  virtual absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) = 0;
  virtual absl::StatusOr<uint64_t> WriteAt(uint64_t offset, absl::Span<const char> bytes) = 0;

  // What was written before the call, and the file's size, survive a power loss. After an error
  // nobody knows which of it does, and another Sync says nothing about it.
  virtual absl::Status Sync() = 0;

  // Makes the file at least so long, with space reserved where the file system can
  // (RESOURCE_EXHAUSTED otherwise); what was not written reads as zeros.
  virtual absl::Status Preallocate(uint64_t bytes) = 0;
  [[nodiscard]] virtual absl::StatusOr<uint64_t> Size() const = 0;

  // For AsyncIo by the kernel; -1 for a file that is not the kernel's.
  [[nodiscard]] virtual int descriptor() const = 0;
  // Whether transfers bypass the page cache (O_DIRECT), and so have to be aligned.
  [[nodiscard]] virtual bool direct() const = 0;
};

enum class OpenMode : uint8_t { kRead, kReadWrite, kCreateNew };  // kCreateNew: ALREADY_EXISTS
enum class Caching : uint8_t { kDirect, kBuffered };

enum class EntryKind : uint8_t { kFile, kFolder, kOther };  // symbolic links are kOther
struct FolderEntry {
  std::string name;
  EntryKind kind = EntryKind::kOther;
  uint64_t bytes = 0;
};

// Which folder this is, whatever its path; equal only for the same folder of the same mount.
struct FolderIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FolderIdentity&, const FolderIdentity&) = default;
};

struct FolderSpace {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  // to this user
};

// How transfers in a folder may be made, found by a real write.
struct TransferFact {
  Caching caching = Caching::kBuffered;
  uint32_t alignment = 1;  // of offsets, lengths and addresses; 1 when buffered
  std::string reason;      // why not direct; "" when it is
};

// Names that a probe may leave when the process dies in it.
inline constexpr absl::string_view kScratchPrefix = "terrace.probe-";

// Thread-safe.
class Folder {
 public:
  virtual ~Folder() = default;

  // Only regular files are opened, and for writing only this user's own with one link; mode 0600
  // when made. NOT_FOUND, ALREADY_EXISTS, INVALID_ARGUMENT (a symbolic link, a FIFO, a name with a
  // slash; or kDirect where the file system has none).
  virtual absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view name,
                                                     OpenMode mode,
                                                     Caching caching) = 0;
  // Replaces `to` atomically.
  virtual absl::Status Rename(absl::string_view from, absl::string_view to) = 0;
  virtual absl::Status Remove(absl::string_view name) = 0;
  // In order of name.
  virtual absl::StatusOr<std::vector<FolderEntry>> List() = 0;
  // Names made, renamed and removed before the call survive a power loss.
  virtual absl::Status Sync() = 0;
  virtual absl::StatusOr<FolderSpace> Space() = 0;

  // The folder that is open here, and the one that its path leads to now (NOT_FOUND: none).
  virtual absl::StatusOr<FolderIdentity> Identity() = 0;
  virtual absl::StatusOr<FolderIdentity> IdentityAtPath() = 0;

  // Until this object ends nobody else owns the folder, neither another process nor another Folder
  // here. UNAVAILABLE: somebody does. The end of a process, however it comes, ends its ownership.
  virtual absl::Status OwnExclusively() = 0;

  // Writes and reads back a scratch file that has no name, or for a moment one of kScratchPrefix.
  virtual absl::StatusOr<TransferFact> ProbeTransfers() = 0;
};

enum class FolderMode : uint8_t { kExisting, kCreate };  // kCreate: the last component, mode 0700

// Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // NOT_FOUND; INVALID_ARGUMENT when it is not a folder. A missing parent is never made: it may be
  // a mount that is absent.
  virtual absl::StatusOr<std::unique_ptr<Folder>> OpenFolder(const std::string& path,
                                                             FolderMode mode) = 0;
};

// The kernel's. Immutable, lives for ever.
FileSystem& KernelFileSystem();

// Loops over short transfers. OUT_OF_RANGE: the file ends before out.size() bytes.
absl::Status ReadFully(File& file, uint64_t offset, absl::Span<char> out);
absl::Status WriteFully(File& file, uint64_t offset, absl::Span<const char> bytes);

// Memory that direct transfers accept: 4096-aligned, zeroed, a multiple of 4096 bytes. Move-only.
class AlignedBuffer {
 public:
  static constexpr uint64_t kAlignment = 4096;

  AlignedBuffer() = default;
  explicit AlignedBuffer(uint64_t bytes);  // rounded up

  [[nodiscard]] char* bytes() const { return memory_.get(); }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] absl::Span<char> span() const { return {memory_.get(), size_}; }

 private:
  struct Freer {
    void operator()(char* memory) const;
  };
  std::unique_ptr<char, Freer> memory_;
  uint64_t size_ = 0;
};

}  // namespace terrace
