#include "tests/doubles/simulated_disk.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

#include "tiers/vocab/check.h"

namespace terrace::doubles {
namespace simulated {

using Sector = std::array<char, SimulatedDisk::kSectorBytes>;

struct SectorVersions {
  Sector durable{};
  std::vector<Sector> pending;  // oldest first
  [[nodiscard]] const Sector& now() const { return pending.empty() ? durable : pending.back(); }
};

struct Inode {
  std::unordered_map<uint64_t, SectorVersions> sectors;  // absent: zeros
  uint64_t size = 0;
  uint64_t durable_size = 0;

  void Get(uint64_t offset, absl::Span<char> out) const {
    for (uint64_t done = 0; done < out.size();) {
      const uint64_t at = offset + done;
      const uint64_t within = at % SimulatedDisk::kSectorBytes;
      const uint64_t part = std::min(SimulatedDisk::kSectorBytes - within, out.size() - done);
      const auto found = sectors.find(at / SimulatedDisk::kSectorBytes);
      if (found == sectors.end()) {
        std::memset(out.data() + done, 0, part);
      } else {
        std::memcpy(out.data() + done, found->second.now().data() + within, part);
      }
      done += part;
    }
  }
  void Put(uint64_t offset, absl::Span<const char> bytes) {
    for (uint64_t done = 0; done < bytes.size();) {
      const uint64_t at = offset + done;
      const uint64_t within = at % SimulatedDisk::kSectorBytes;
      const uint64_t part = std::min(SimulatedDisk::kSectorBytes - within, bytes.size() - done);
      SectorVersions& versions = sectors[at / SimulatedDisk::kSectorBytes];
      Sector changed = versions.now();
      std::memcpy(changed.data() + within, bytes.data() + done, part);
      versions.pending.push_back(changed);
      done += part;
    }
    size = std::max(size, offset + bytes.size());
  }
  void Sync() {
    for (auto& [number, versions] : sectors) {
      versions.durable = versions.now();
      versions.pending.clear();
    }
    durable_size = size;
  }
  void LosePower(Seeded& seeded) {
    // In the order of the file: an unordered map has an order of its own on every platform.
    std::map<uint64_t, SectorVersions*> in_order;
    for (auto& [number, versions] : sectors) {
      in_order[number] = &versions;
    }
    for (auto& [number, versions] : in_order) {
      if (versions->pending.empty()) {
        continue;
      }
      const uint64_t kept = seeded.Below(versions->pending.size() + 1);
      if (seeded.OneIn(64)) {
        const std::string garbage = seeded.Bytes(SimulatedDisk::kSectorBytes);
        std::memcpy(versions->durable.data(), garbage.data(), garbage.size());
      } else if (kept > 0) {
        versions->durable = versions->pending[kept - 1];
      }
      versions->pending.clear();
    }
    size = seeded.OneIn(2) ? size : durable_size;
    durable_size = size;
    for (auto at = sectors.begin(); at != sectors.end();) {
      at = at->first * SimulatedDisk::kSectorBytes >= size ? sectors.erase(at) : std::next(at);
    }
  }
};

// A name's change: present or, for a removal, no inode.
struct NameChange {
  std::vector<std::pair<std::string, std::shared_ptr<Inode>>> names;  // atomically together
};

struct FolderState {
  uint64_t number = 0;
  // Shared with the files that are open, which outlive their names.
  std::map<std::string, std::shared_ptr<Inode>> now;
  std::map<std::string, std::shared_ptr<Inode>> durable;
  std::vector<NameChange> journal;
  const void* owner = nullptr;

  static void Apply(const NameChange& change,
                    std::map<std::string, std::shared_ptr<Inode>>& names) {
    for (const auto& [name, inode] : change.names) {
      if (inode == nullptr) {
        names.erase(name);
      } else {
        names[name] = inode;
      }
    }
  }
  void Change(NameChange change) {
    Apply(change, now);
    journal.push_back(std::move(change));
  }
  void Sync() {
    durable = now;
    journal.clear();
  }
  void LosePower(Seeded& seeded) {
    const uint64_t kept = seeded.Below(journal.size() + 1);
    for (uint64_t i = 0; i < kept; ++i) {
      Apply(journal[i], durable);
    }
    journal.clear();
    now = durable;
    for (auto& [name, inode] : now) {
      inode->LosePower(seeded);
    }
  }
};

}  // namespace simulated

using simulated::FolderState;
using simulated::Inode;

class SimulatedFile final : public File {
 public:
  SimulatedFile(SimulatedDisk& disk, std::shared_ptr<Inode> inode, uint64_t generation, bool direct)
      : disk_(disk), inode_(std::move(inode)), generation_(generation), direct_(direct) {}

  absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = Check(offset, out.data(), out.size());
    status.Update(disk_.AliveLocked(generation_));
    if (!status.ok()) {
      return status;
    }
    if (offset >= inode_->size) {
      return 0;
    }
    const uint64_t bytes = std::min<uint64_t>(out.size(), inode_->size - offset);
    inode_->Get(offset, out.first(bytes));
    return bytes;
  }
  absl::StatusOr<uint64_t> WriteAt(uint64_t offset, absl::Span<const char> bytes) override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = Check(offset, bytes.data(), bytes.size());
    status.Update(disk_.ChangeLocked(generation_));
    if (status.ok()) {
      status = disk_.GrowLocked(*inode_, offset + bytes.size());
    }
    if (!status.ok()) {
      return status;
    }
    inode_->Put(offset, bytes);
    return bytes.size();
  }
  absl::Status Sync() override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = disk_.ChangeLocked(generation_);
    if (status.ok()) {
      inode_->Sync();
    }
    return status;
  }
  absl::Status Preallocate(uint64_t bytes) override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = disk_.ChangeLocked(generation_);
    if (status.ok()) {
      status = disk_.GrowLocked(*inode_, bytes);
    }
    if (status.ok()) {
      inode_->size = std::max(inode_->size, bytes);
    }
    return status;
  }
  [[nodiscard]] absl::StatusOr<uint64_t> Size() const override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = disk_.AliveLocked(generation_);
    if (!status.ok()) {
      return status;
    }
    return inode_->size;
  }
  [[nodiscard]] int descriptor() const override { return -1; }
  [[nodiscard]] bool direct() const override { return direct_; }

 private:
  [[nodiscard]] absl::Status Check(uint64_t offset, const char* memory, uint64_t bytes) const {
    const bool aligned =
        (offset | bytes | reinterpret_cast<uintptr_t>(memory)) % SimulatedDisk::kAlignment == 0;
    return direct_ && !aligned ? absl::InvalidArgumentError("a direct transfer is not aligned")
                               : absl::OkStatus();
  }

  SimulatedDisk& disk_;
  const std::shared_ptr<Inode> inode_;  // and its name's
  const uint64_t generation_;
  const bool direct_;
};

class SimulatedFolder final : public Folder {
 public:
  SimulatedFolder(SimulatedDisk& disk,
                  std::string path,
                  std::shared_ptr<FolderState> state,
                  uint64_t generation)
      : disk_(disk), path_(std::move(path)), state_(std::move(state)), generation_(generation) {}

  ~SimulatedFolder() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (state_->owner == this) {
      state_->owner = nullptr;
    }
  }

  absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view name,
                                             OpenMode mode,
                                             Caching caching) override {
    absl::MutexLock lock(&disk_.mutex_);
    const std::string key(name);
    if (key.empty() || key.find('/') != std::string::npos) {
      return absl::InvalidArgumentError("name: one component of a path");
    }
    if (caching == Caching::kDirect && disk_.refuse_direct_) {
      return absl::InvalidArgumentError("no direct files here");
    }
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    const auto found = state_->now.find(key);
    if (mode == OpenMode::kCreateNew) {
      if (found != state_->now.end()) {
        return absl::AlreadyExistsError(key);
      }
      if (absl::Status changed = disk_.ChangeLocked(generation_); !changed.ok()) {
        return changed;
      }
      state_->Change({{{key, std::make_shared<Inode>()}}});
    } else if (found == state_->now.end()) {
      return absl::NotFoundError(key);
    }
    return std::make_unique<SimulatedFile>(disk_, state_->now.at(key), generation_,
                                           caching == Caching::kDirect);
  }

  absl::Status Rename(absl::string_view from, absl::string_view to) override {
    absl::MutexLock lock(&disk_.mutex_);
    const auto found = state_->now.find(std::string(from));
    if (found == state_->now.end()) {
      return absl::NotFoundError(from);
    }
    absl::Status status = disk_.ChangeLocked(generation_);
    if (status.ok()) {
      const std::shared_ptr<Inode> inode = found->second;
      state_->Change({{{std::string(from), nullptr}, {std::string(to), inode}}});
    }
    return status;
  }
  absl::Status Remove(absl::string_view name) override {
    absl::MutexLock lock(&disk_.mutex_);
    const auto found = state_->now.find(std::string(name));
    if (found == state_->now.end()) {
      return absl::NotFoundError(name);
    }
    absl::Status status = disk_.ChangeLocked(generation_);
    if (status.ok()) {
      disk_.used_ -= found->second->size;
      state_->Change({{{std::string(name), nullptr}}});
    }
    return status;
  }
  absl::StatusOr<std::vector<FolderEntry>> List() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    std::vector<FolderEntry> entries;
    for (const auto& [name, inode] : state_->now) {
      entries.push_back({name, EntryKind::kFile, inode->size});
    }
    return entries;
  }
  absl::Status Sync() override {
    absl::MutexLock lock(&disk_.mutex_);
    absl::Status status = disk_.ChangeLocked(generation_);
    if (status.ok()) {
      state_->Sync();
    }
    return status;
  }
  absl::StatusOr<FolderSpace> Space() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    return FolderSpace{disk_.capacity_,
                       disk_.capacity_ > disk_.used_ ? disk_.capacity_ - disk_.used_ : 0};
  }
  absl::StatusOr<FolderIdentity> Identity() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    return FolderIdentity{1, state_->number};
  }
  absl::StatusOr<FolderIdentity> IdentityAtPath() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    const auto found = disk_.folders_.find(path_);
    if (found == disk_.folders_.end()) {
      return absl::NotFoundError(path_);
    }
    return FolderIdentity{1, found->second->number};
  }
  absl::Status OwnExclusively() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (state_->owner != nullptr && state_->owner != this) {
      return absl::UnavailableError("owned by another");
    }
    state_->owner = this;
    return absl::OkStatus();
  }
  absl::StatusOr<TransferFact> ProbeTransfers() override {
    absl::MutexLock lock(&disk_.mutex_);
    if (absl::Status alive = disk_.AliveLocked(generation_); !alive.ok()) {
      return alive;
    }
    return disk_.refuse_direct_ ? TransferFact{Caching::kBuffered, 1, "no direct files here"}
                                : TransferFact{Caching::kDirect, SimulatedDisk::kAlignment, ""};
  }

 private:
  SimulatedDisk& disk_;
  const std::string path_;
  const std::shared_ptr<FolderState> state_;  // and the disk's, until it is swapped away
  const uint64_t generation_;
};

SimulatedDisk::SimulatedDisk() = default;
SimulatedDisk::~SimulatedDisk() = default;

absl::StatusOr<std::unique_ptr<Folder>> SimulatedDisk::OpenFolder(const std::string& path,
                                                                  FolderMode mode) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status alive = AliveLocked(generation_); !alive.ok()) {
    return alive;
  }
  auto found = folders_.find(path);
  if (found == folders_.end()) {
    if (mode == FolderMode::kExisting) {
      return absl::NotFoundError(path);
    }
    found = folders_.emplace(path, std::make_shared<FolderState>()).first;
    found->second->number = ++last_inode_;
  }
  return std::make_unique<SimulatedFolder>(*this, path, found->second, generation_);
}

absl::Status SimulatedDisk::AliveLocked(uint64_t generation) const {
  return off_ || generation != generation_ ? absl::UnavailableError("power is off")
                                           : absl::OkStatus();
}

absl::Status SimulatedDisk::ChangeLocked(uint64_t generation) {
  if (changes_left_ == 0) {
    off_ = true;
  }
  absl::Status alive = AliveLocked(generation);
  if (alive.ok()) {
    ++changes_;
    changes_left_ -= changes_left_ > 0 ? 1 : 0;
  }
  return alive;
}

absl::Status SimulatedDisk::GrowLocked(Inode& inode, uint64_t bytes) {
  if (bytes <= inode.size) {
    return absl::OkStatus();
  }
  const uint64_t more = bytes - inode.size;
  if (used_ + more > capacity_) {
    return absl::ResourceExhaustedError("the disk is full");
  }
  used_ += more;
  return absl::OkStatus();
}

void SimulatedDisk::CutPowerAfter(int64_t calls) {
  absl::MutexLock lock(&mutex_);
  changes_left_ = calls;
  off_ = off_ || calls == 0;
}

bool SimulatedDisk::power_is_off() const {
  absl::MutexLock lock(&mutex_);
  return off_;
}

int64_t SimulatedDisk::changes() const {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

void SimulatedDisk::RestartLocked() {
  ++generation_;
  off_ = false;
  changes_left_ = -1;
  used_ = 0;
  for (auto& [path, folder] : folders_) {
    folder->owner = nullptr;
    for (const auto& [name, inode] : folder->now) {
      used_ += inode->size;
    }
  }
}

void SimulatedDisk::RestoreAfterPowerLoss(uint64_t seed) {
  absl::MutexLock lock(&mutex_);
  Seeded seeded(seed);
  for (auto& [path, folder] : folders_) {
    folder->LosePower(seeded);
  }
  RestartLocked();
}

void SimulatedDisk::RestoreAfterKill() {
  absl::MutexLock lock(&mutex_);
  RestartLocked();
}

void SimulatedDisk::SetCapacity(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  capacity_ = bytes;
}

void SimulatedDisk::RefuseDirect() {
  absl::MutexLock lock(&mutex_);
  refuse_direct_ = true;
}

void SimulatedDisk::SwapFolder(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<FolderState>& other = swapped_[path];
  if (other == nullptr) {
    other = std::make_shared<FolderState>();
    other->number = ++last_inode_;
  }
  std::swap(other, folders_.at(path));
}

Inode& SimulatedDisk::InodeLocked(const std::string& folder, const std::string& name) const {
  return *folders_.at(folder)->now.at(name);
}

std::vector<std::string> SimulatedDisk::Names(const std::string& folder) const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, inode] : folders_.at(folder)->now) {
    names.push_back(name);
  }
  return names;
}

std::string SimulatedDisk::Read(const std::string& folder,
                                const std::string& name,
                                uint64_t offset,
                                uint64_t bytes) const {
  absl::MutexLock lock(&mutex_);
  std::string out(bytes, '\0');
  InodeLocked(folder, name).Get(offset, absl::MakeSpan(out));
  return out;
}

void SimulatedDisk::Overwrite(const std::string& folder,
                              const std::string& name,
                              uint64_t offset,
                              const std::string& bytes) {
  absl::MutexLock lock(&mutex_);
  Inode& inode = InodeLocked(folder, name);
  inode.Put(offset, bytes);
  inode.Sync();
}

void SimulatedDisk::Truncate(const std::string& folder, const std::string& name, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  Inode& inode = InodeLocked(folder, name);
  for (auto at = inode.sectors.begin(); at != inode.sectors.end();) {
    at = at->first * kSectorBytes >= bytes ? inode.sectors.erase(at) : std::next(at);
  }
  inode.size = bytes;
  inode.durable_size = bytes;
}

void SimulatedDisk::Create(const std::string& folder,
                           const std::string& name,
                           const std::string& bytes) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<FolderState>& state = folders_[folder];
  if (state == nullptr) {
    state = std::make_shared<FolderState>();
    state->number = ++last_inode_;
  }
  auto inode = std::make_shared<Inode>();
  inode->Put(0, bytes);
  inode->Sync();
  state->Change({{{name, inode}}});
  state->Sync();
}

void SimulatedDisk::Delete(const std::string& folder, const std::string& name) {
  absl::MutexLock lock(&mutex_);
  FolderState& state = *folders_.at(folder);
  state.Change({{{name, nullptr}}});
  state.Sync();
}

uint64_t SimulatedDisk::SizeOf(const std::string& folder, const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  return InodeLocked(folder, name).size;
}

}  // namespace terrace::doubles
