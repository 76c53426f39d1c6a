// A pool's mount in memory: one file system, and a view of it for every node, each a RootedFiles.
//
// A mount is honest, like a local file system, until a view is told to lie as a network file system
// may: to keep what it opened (close-to-open), to go on with the names that it knows, to keep what
// it wrote to itself until it is synced. Content is kept by pages, and pages of zeros cost nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_files.h"

namespace terrace::doubles {

// Bytes of a file. Copies share pages until one of them is written. Thread-compatible.
class PagedContent {
 public:
  static constexpr uint64_t kPageBytes = 65536;

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t stored_bytes() const;  // of pages that were written
  void Resize(uint64_t bytes);                  // what is new reads as zeros
  uint64_t Read(uint64_t offset, absl::Span<char> out) const;
  void Write(uint64_t offset, absl::Span<const char> bytes);

 private:
  uint64_t size_ = 0;
  std::map<uint64_t, std::shared_ptr<std::string>> pages_;  // shared by copies
};

// Thread-safe. Outlives its views.
class MemoryMount {
 public:
  explicit MemoryMount(uint64_t total_bytes = uint64_t{1} << 40) : total_bytes_(total_bytes) {}

  // What no view does: a foreign hand, a medium. The file is there.
  void FlipBit(const std::string& path, uint64_t offset, int bit);
  void Truncate(const std::string& path, uint64_t bytes);
  // Makes or replaces a file; its folders are made.
  void Plant(const std::string& path, absl::string_view content);
  void Erase(const std::string& path);
  void Rename(const std::string& from, const std::string& to);

  [[nodiscard]] bool Exists(const std::string& path) const;
  [[nodiscard]] std::string Content(const std::string& path) const;  // "" when absent
  // Of files, in order.
  [[nodiscard]] std::vector<std::string> Paths() const;
  [[nodiscard]] uint64_t stored_bytes() const;

  // From now on there is room for so many bytes.
  void SetTotalBytes(uint64_t bytes);

 private:
  friend class MemoryRootedFiles;

  // Who holds one: the mount under its name, and views that opened it.
  struct Inode {
    PagedContent content;
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;  // nullptr: a folder

  [[nodiscard]] uint64_t FreeBytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool HasParentLocked(absl::string_view path) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  Names names_ ABSL_GUARDED_BY(mutex_);
  uint64_t total_bytes_ ABSL_GUARDED_BY(mutex_);
};

// One node's view. Thread-safe.
class MemoryRootedFiles final : public RootedFiles {
 public:
  explicit MemoryRootedFiles(MemoryMount& mount) : mount_(mount) {}

  // Calls of this kind fail from the `nth` on, counted from 1 and from now, `times` times.
  void Fail(PoolOp op, uint64_t nth, absl::Status status, uint64_t times = 1);
  // Reads of this path have a bit flipped, wherever they begin.
  void FlipReadsOf(const std::string& path);
  void Heal();

  [[nodiscard]] uint64_t calls(PoolOp op) const;
  [[nodiscard]] uint64_t calls() const;

  // What was opened is read as it was then, until it is read kFresh. Off at first, as on a local
  // file system: what others write is seen at once.
  void KeepWhatIsOpened(bool keep);
  // Names as they are now, for List and for whether a name is absent, until this is called again;
  // what this view itself makes and removes, it sees. ThawNames: as they are.
  void FreezeNames();
  void ThawNames();
  // What is written is seen by this view alone until Sync.
  void HoldWritesUntilSync(bool hold);
  // The node loses its power: what was not synced is gone.
  void LoseUnsynced();
  // The path of the root leads elsewhere.
  void SwapRoot(bool swapped);

  absl::StatusOr<uint64_t> Read(absl::string_view path,
                                uint64_t offset,
                                absl::Span<char> out,
                                ReadHow how) override;
  absl::Status Write(absl::string_view path,
                     uint64_t offset,
                     absl::Span<const char> bytes) override;
  absl::Status Sync(absl::string_view path) override;
  absl::Status Make(absl::string_view path, uint64_t bytes) override;
  absl::Status Create(absl::string_view path, absl::Span<const char> content) override;
  absl::Status Replace(absl::string_view path, absl::Span<const char> content) override;
  absl::Status Remove(absl::string_view path) override;
  absl::Status MakeFolder(absl::string_view path) override;
  absl::Status RemoveFolder(absl::string_view path) override;
  absl::StatusOr<std::vector<FolderEntry>> List(absl::string_view path) override;
  absl::StatusOr<FolderSpace> Space() override;
  absl::Status CheckRoot() override;

 private:
  using Inode = MemoryMount::Inode;
  struct Fault {
    uint64_t first = 0;
    uint64_t times = 0;
    absl::Status status;
  };
  struct Opened {
    std::shared_ptr<Inode> inode;
    PagedContent as_opened;
  };

  // Counts a call; its fault, if it has one; and the rules of its path.
  absl::Status Begin(PoolOp op, absl::string_view path);
  // The file of that name; of names that this view does not see yet, NOT_FOUND.
  absl::StatusOr<std::shared_ptr<Inode>> FindLocked(const std::string& path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_, mount_.mutex_);
  absl::Status CheckNewNameLocked(const std::string& path) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mount_.mutex_);
  void PutLocked(const std::string& path, std::shared_ptr<Inode> inode)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_, mount_.mutex_);
  // What this view reads now.
  const PagedContent& SeenLocked(const std::string& path,
                                 const std::shared_ptr<Inode>& inode,
                                 ReadHow how) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_, mount_.mutex_);

  MemoryMount& mount_;
  // Taken before the mount's.
  mutable absl::Mutex mutex_;
  uint64_t counts_[kPoolOps + 1] ABSL_GUARDED_BY(mutex_) = {};
  std::map<PoolOp, Fault> faults_ ABSL_GUARDED_BY(mutex_);
  std::string flipped_ ABSL_GUARDED_BY(mutex_);
  bool keeps_opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool holds_writes_ ABSL_GUARDED_BY(mutex_) = false;
  bool swapped_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Opened> opened_ ABSL_GUARDED_BY(mutex_);
  std::map<std::shared_ptr<Inode>, PagedContent> unsynced_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MemoryMount::Names> frozen_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace::doubles
