// A file system in memory that forgets what was not synced.
//
// Every sector of 512 bytes remembers its versions since the last Sync of its file. A power loss
// keeps, for each of them by itself, any one of these, or garbage: writes are torn, reordered and
// lost in every way. Of the names of a folder a prefix of the changes since its last Sync is kept.
// A kill of the process loses nothing that was written. Everything follows from a seed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tests/doubles/seeded.h"
#include "tiers/os/file_system.h"

namespace terrace::doubles {

namespace simulated {
struct Inode;
struct FolderState;
}  // namespace simulated

// Thread-safe.
class SimulatedDisk final : public FileSystem {
 public:
  static constexpr uint64_t kSectorBytes = 512;
  static constexpr uint32_t kAlignment = 4096;  // direct transfers have to be

  SimulatedDisk();
  ~SimulatedDisk() override;

  absl::StatusOr<std::unique_ptr<Folder>> OpenFolder(const std::string& path,
                                                     FolderMode mode) override;

  // After so many more calls that change something, power is off: this call, and every later one,
  // fails with UNAVAILABLE and changes nothing. -1: never.
  void CutPowerAfter(int64_t calls);
  void CutPower() { CutPowerAfter(0); }
  [[nodiscard]] bool power_is_off() const;
  // Calls so far that changed something.
  [[nodiscard]] int64_t changes() const;

  // Power is back; files and folders opened before stay dead, and own nothing.
  void RestoreAfterPowerLoss(uint64_t seed);
  void RestoreAfterKill();  // only processes died

  // Sizes of all files together; a file that would grow beyond fails with RESOURCE_EXHAUSTED.
  void SetCapacity(uint64_t bytes);
  // Folders refuse direct files, as file systems without O_DIRECT do.
  void RefuseDirect();
  // The path leads to another, empty folder from now on; again: back to the first.
  void SwapFolder(const std::string& path);

  // ---- surgery on what the medium holds, as if it were synced
  [[nodiscard]] std::vector<std::string> Names(const std::string& folder) const;
  [[nodiscard]] std::string Read(const std::string& folder,
                                 const std::string& name,
                                 uint64_t offset,
                                 uint64_t bytes) const;
  void Overwrite(const std::string& folder,
                 const std::string& name,
                 uint64_t offset,
                 const std::string& bytes);
  void Truncate(const std::string& folder, const std::string& name, uint64_t bytes);
  void Create(const std::string& folder, const std::string& name, const std::string& bytes);
  void Delete(const std::string& folder, const std::string& name);
  [[nodiscard]] uint64_t SizeOf(const std::string& folder, const std::string& name) const;

 private:
  friend class SimulatedFile;
  friend class SimulatedFolder;

  // UNAVAILABLE when power is off or `generation` is from before it came back.
  absl::Status AliveLocked(uint64_t generation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same, and counts a change.
  absl::Status ChangeLocked(uint64_t generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status GrowLocked(simulated::Inode& inode, uint64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] simulated::Inode& InodeLocked(const std::string& folder,
                                              const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RestartLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  // Shared with the folders that are open, which may have been swapped away.
  std::map<std::string, std::shared_ptr<simulated::FolderState>> folders_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<simulated::FolderState>> swapped_ ABSL_GUARDED_BY(mutex_);
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t last_inode_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t changes_left_ ABSL_GUARDED_BY(mutex_) = -1;
  bool off_ ABSL_GUARDED_BY(mutex_) = false;
  bool refuse_direct_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t capacity_ ABSL_GUARDED_BY(mutex_) = uint64_t{1} << 40;
  uint64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::doubles
