// A file system whose calls fail, move less than asked, or lie as a test says; else it is
// another's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tiers/os/file_system.h"

namespace terrace::doubles {

enum class FileCall : uint8_t {
  kRead,
  kWrite,
  kSync,
  kPreallocate,
  kSize,
  kOpen,
  kRename,
  kRemove,
  kList,
  kFolderSync,
  kSpace,
  kIdentity,
  kOwn,
  kProbe,
  kOpenFolder,
};
inline constexpr FileCall kAllFileCalls[] = {
    FileCall::kRead, FileCall::kWrite,      FileCall::kSync,      FileCall::kPreallocate,
    FileCall::kSize, FileCall::kOpen,       FileCall::kRename,    FileCall::kRemove,
    FileCall::kList, FileCall::kFolderSync, FileCall::kSpace,     FileCall::kIdentity,
    FileCall::kOwn,  FileCall::kProbe,      FileCall::kOpenFolder};

// What shall fail; shared by a file system and everything opened through it. Thread-safe.
class FaultPlan {
 public:
  // Calls of this kind fail from the `nth` on, counted from 1 and from now, `times` times.
  void Fail(FileCall call, uint64_t nth, absl::Status status, uint64_t times = 1) {
    absl::MutexLock lock(&mutex_);
    faults_[call] = {counts_[call] + nth, times, std::move(status)};
  }
  void Heal() {
    absl::MutexLock lock(&mutex_);
    faults_.clear();
    short_bytes_ = 0;
  }
  // Transfers move at most so many bytes a call; 0: as asked.
  void Shorten(uint64_t bytes) {
    absl::MutexLock lock(&mutex_);
    short_bytes_ = bytes;
  }
  [[nodiscard]] uint64_t calls(FileCall call) const {
    absl::MutexLock lock(&mutex_);
    const auto found = counts_.find(call);
    return found == counts_.end() ? 0 : found->second;
  }
  [[nodiscard]] uint64_t failed() const {
    absl::MutexLock lock(&mutex_);
    return failed_;
  }

  absl::Status Take(FileCall call) {
    absl::MutexLock lock(&mutex_);
    const uint64_t number = ++counts_[call];
    const auto found = faults_.find(call);
    if (found == faults_.end() || number < found->second.first ||
        number - found->second.first >= found->second.times) {
      return absl::OkStatus();
    }
    ++failed_;
    return found->second.status;
  }
  [[nodiscard]] uint64_t Shortened(uint64_t bytes) const {
    absl::MutexLock lock(&mutex_);
    return short_bytes_ == 0 ? bytes : std::min(bytes, short_bytes_);
  }

 private:
  struct Fault {
    uint64_t first = 0;
    uint64_t times = 0;
    absl::Status status;
  };
  mutable absl::Mutex mutex_;
  std::map<FileCall, uint64_t> counts_ ABSL_GUARDED_BY(mutex_);
  std::map<FileCall, Fault> faults_ ABSL_GUARDED_BY(mutex_);
  uint64_t short_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t failed_ ABSL_GUARDED_BY(mutex_) = 0;
};

class FaultyFile final : public File {
 public:
  FaultyFile(std::unique_ptr<File> file, FaultPlan& plan) : file_(std::move(file)), plan_(plan) {}
  absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) override {
    absl::Status fault = plan_.Take(FileCall::kRead);
    return fault.ok() ? file_->ReadAt(offset, out.first(plan_.Shortened(out.size()))) : fault;
  }
  absl::StatusOr<uint64_t> WriteAt(uint64_t offset, absl::Span<const char> bytes) override {
    absl::Status fault = plan_.Take(FileCall::kWrite);
    return fault.ok() ? file_->WriteAt(offset, bytes.first(plan_.Shortened(bytes.size()))) : fault;
  }
  absl::Status Sync() override {
    absl::Status fault = plan_.Take(FileCall::kSync);
    return fault.ok() ? file_->Sync() : fault;
  }
  absl::Status Preallocate(uint64_t bytes) override {
    absl::Status fault = plan_.Take(FileCall::kPreallocate);
    return fault.ok() ? file_->Preallocate(bytes) : fault;
  }
  [[nodiscard]] absl::StatusOr<uint64_t> Size() const override {
    absl::Status fault = plan_.Take(FileCall::kSize);
    return fault.ok() ? file_->Size() : fault;
  }
  // -1 would keep io_uring out; with the kernel's descriptor only blocking calls see the plan.
  [[nodiscard]] int descriptor() const override { return file_->descriptor(); }
  [[nodiscard]] bool direct() const override { return file_->direct(); }

 private:
  const std::unique_ptr<File> file_;
  FaultPlan& plan_;
};

class FaultyFolder final : public Folder {
 public:
  FaultyFolder(std::unique_ptr<Folder> folder, FaultPlan& plan)
      : folder_(std::move(folder)), plan_(plan) {}
  absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view name,
                                             OpenMode mode,
                                             Caching caching) override {
    if (absl::Status fault = plan_.Take(FileCall::kOpen); !fault.ok()) {
      return fault;
    }
    absl::StatusOr<std::unique_ptr<File>> file = folder_->Open(name, mode, caching);
    if (!file.ok()) {
      return file.status();
    }
    return std::make_unique<FaultyFile>(*std::move(file), plan_);
  }
  absl::Status Rename(absl::string_view from, absl::string_view to) override {
    absl::Status fault = plan_.Take(FileCall::kRename);
    return fault.ok() ? folder_->Rename(from, to) : fault;
  }
  absl::Status Remove(absl::string_view name) override {
    absl::Status fault = plan_.Take(FileCall::kRemove);
    return fault.ok() ? folder_->Remove(name) : fault;
  }
  absl::StatusOr<std::vector<FolderEntry>> List() override {
    absl::Status fault = plan_.Take(FileCall::kList);
    return fault.ok() ? folder_->List() : fault;
  }
  absl::Status Sync() override {
    absl::Status fault = plan_.Take(FileCall::kFolderSync);
    return fault.ok() ? folder_->Sync() : fault;
  }
  absl::StatusOr<FolderSpace> Space() override {
    absl::Status fault = plan_.Take(FileCall::kSpace);
    return fault.ok() ? folder_->Space() : fault;
  }
  absl::StatusOr<FolderIdentity> Identity() override {
    absl::Status fault = plan_.Take(FileCall::kIdentity);
    return fault.ok() ? folder_->Identity() : fault;
  }
  absl::StatusOr<FolderIdentity> IdentityAtPath() override {
    absl::Status fault = plan_.Take(FileCall::kIdentity);
    return fault.ok() ? folder_->IdentityAtPath() : fault;
  }
  absl::Status OwnExclusively() override {
    absl::Status fault = plan_.Take(FileCall::kOwn);
    return fault.ok() ? folder_->OwnExclusively() : fault;
  }
  absl::StatusOr<TransferFact> ProbeTransfers() override {
    absl::Status fault = plan_.Take(FileCall::kProbe);
    return fault.ok() ? folder_->ProbeTransfers() : fault;
  }

 private:
  const std::unique_ptr<Folder> folder_;
  FaultPlan& plan_;
};

// Borrows both.
class FaultyFileSystem final : public FileSystem {
 public:
  FaultyFileSystem(FileSystem& file_system, FaultPlan& plan)
      : file_system_(file_system), plan_(plan) {}
  absl::StatusOr<std::unique_ptr<Folder>> OpenFolder(const std::string& path,
                                                     FolderMode mode) override {
    if (absl::Status fault = plan_.Take(FileCall::kOpenFolder); !fault.ok()) {
      return fault;
    }
    absl::StatusOr<std::unique_ptr<Folder>> folder = file_system_.OpenFolder(path, mode);
    if (!folder.ok()) {
      return folder.status();
    }
    return std::make_unique<FaultyFolder>(*std::move(folder), plan_);
  }

 private:
  FileSystem& file_system_;
  FaultPlan& plan_;
};

}  // namespace terrace::doubles
