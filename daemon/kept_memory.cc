#include "daemon/kept_memory.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/concat.h"
#include "daemon/process_facts.h"
#include "daemon/settings.h"
#include "tiers/vocab/clock.h"

namespace terrace {
namespace {

// A service manager that answers at all does so in milliseconds; one that knows nothing of barriers
// never does, and keeps nothing that one could rely on.
constexpr absl::Duration kBeginPatience = absl::Seconds(2);
constexpr absl::Duration kGiveUpPatience = absl::Seconds(1);
// All names come back in one string of the environment, which Linux limits to 128 KiB (execve(2)).
constexpr size_t kMaxNamesBytes = size_t{120} << 10;

std::string SlabName(uint64_t serial) {
  return absl::StrCat("s", absl::Hex(serial));
}
std::string DirectoryName(uint64_t life) {
  return absl::StrCat("d", absl::Hex(life));
}
bool IsDirectoryName(std::string_view name) {
  return !name.empty() && name.front() == 'd';
}

void Supersede(const Descriptor& directory) {
  const absl::StatusOr<Mapping> header =
      Mapping::Map(directory.get(), 0, 4096, MapAccess::kReadWrite);
  if (header.ok()) {
    SupersedeSlabDirectory({header->data(), header->size()});
  }
}

// Nobody but this user's daemon can have put it there; a file that could shrink under the mapping,
// or is none in memory, is left alone all the same.
bool IsSealedDirectory(const Descriptor& fd) {
  struct stat facts {};
  return fstat(fd.get(), &facts) == 0 && facts.st_size >= 4096 &&
         SealedMemory::Adopt(std::move(*fd.Duplicate()), SealedMemory::Writers::kWhoeverMapsIt)
             .ok();
}

}  // namespace

void DropKept(std::vector<KeptDescriptor> received, const ServiceNotify& notify) {
  for (const KeptDescriptor& kept : received) {
    if (IsDirectoryName(kept.name) && IsSealedDirectory(kept.fd)) {
      Supersede(kept.fd);
    }
    notify.Unkeep(kept.name);
  }
}

KeptMemory::KeptMemory(Options options,
                       std::vector<KeptDescriptor> received,
                       const ServiceNotify& notify,
                       Log& log)
    : options_(std::move(options)), notify_(notify), log_(log), received_(std::move(received)) {
  for (const KeptDescriptor& kept : received_) {
    stored_before_.insert(kept.name);
  }
  ChooseDirectory();
  thread_ = std::thread([this] { Loop(); });
}

KeptMemory::~KeptMemory() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  thread_.join();
}

// Of several, which a start that was killed can leave, the one of the latest life: until that one
// served, both said the same.
void KeptMemory::ChooseDirectory() {
  uint64_t latest = 0;
  for (const KeptDescriptor& kept : received_) {
    if (!IsDirectoryName(kept.name)) {
      continue;
    }
    absl::StatusOr<Descriptor> fd = kept.fd.Duplicate();
    absl::StatusOr<SealedMemory> memory =
        fd.ok() ? SealedMemory::Adopt(*std::move(fd), SealedMemory::Writers::kWhoeverMapsIt)
                : fd.status();
    absl::StatusOr<DirectoryContent> content =
        memory.ok() ? ReadSlabDirectory(memory->memory()) : memory.status();
    if (!content.ok()) {
      log_.Warning("a directory of kept blocks is of no use",
                   {{"name", kept.name}, {"reason", std::string(content.status().message())}});
    } else if (content->life >= latest) {
      latest = content->life;
      content_ = *std::move(content);
    }
  }
  life_ = latest + 1;
  while (stored_before_.contains(DirectoryName(life_))) {
    ++life_;
  }
  for (const DirectorySlab& slab : content_.slabs) {
    received_bytes_ += stored_before_.contains(SlabName(slab.serial)) ? slab.bytes : 0;
  }
}

// The one of this name that is the memory which the directory speaks of.
Descriptor KeptMemory::TakeSlab(const DirectorySlab& slab) {
  for (KeptDescriptor& kept : received_) {
    struct stat facts {};
    if (kept.name == SlabName(slab.serial) && fstat(kept.fd.get(), &facts) == 0 &&
        facts.st_ino == slab.inode && static_cast<uint64_t>(facts.st_size) == slab.bytes) {
      return std::move(kept.fd);
    }
  }
  return Descriptor();
}

KeptDram KeptMemory::Take() {
  KeptDram kept;
  kept.geometry = DirectoryGeometry::For(options_.capacity_bytes);
  kept.life = life_;
  absl::StatusOr<SealedMemory> fresh =
      SealedMemory::Create({.bytes = kept.geometry.bytes(),
                            .huge_pages = false,
                            .reserved_pages = false,
                            .touch_threads = 0,
                            .writers = SealedMemory::Writers::kWhoeverMapsIt});
  if (!fresh.ok()) {
    log_.Warning("DRAM will not outlive this process",
                 {{"reason", std::string(fresh.status().message())}});
    return kept;
  }
  fresh_ = *std::move(fresh);
  kept.fresh = fresh_.memory();
  std::sort(received_.begin(), received_.end(),
            [](const KeptDescriptor& a, const KeptDescriptor& b) { return a.name < b.name; });
  kept.content = std::move(content_);
  kept.memory.resize(kept.content.slabs.size());
  for (size_t i = 0; i < kept.memory.size(); ++i) {
    if (!options_.is_tenant(kept.content.slabs[i].tenant)) {
      continue;
    }
    absl::StatusOr<std::unique_ptr<SlabMemory>> memory =
        AdoptSealedSlab(TakeSlab(kept.content.slabs[i]));
    if (memory.ok()) {
      kept.memory[i] = *std::move(memory);
    }
  }
  return kept;
}

absl::Status KeptMemory::Begin() {
  const std::string name = DirectoryName(life_);
  const bool safe = fresh_.descriptor().valid() && notify_.Keep(name, fresh_.descriptor()) &&
                    notify_.Barrier(kBeginPatience);
  for (const KeptDescriptor& kept : received_) {
    if (IsDirectoryName(kept.name) && IsSealedDirectory(kept.fd)) {
      Supersede(kept.fd);
    }
  }
  absl::flat_hash_set<std::string> in_use;
  {
    absl::MutexLock lock(&mutex_);
    for (const uint64_t serial : stored_) {
      in_use.insert(SlabName(serial));
    }
  }
  for (const std::string& before : stored_before_) {
    if (!safe || !in_use.contains(before)) {
      notify_.Unkeep(before);
    }
  }
  received_.clear();
  stored_before_.clear();  // the same names may come again
  if (!safe) {
    log_.Warning("DRAM will not outlive this process",
                 {{"reason", "the service manager has not confirmed that it keeps descriptors"}});
    notify_.Unkeep(name);
    Supersede(fresh_.descriptor());
    return absl::UnavailableError("the service manager keeps nothing");
  }
  return absl::OkStatus();
}

void KeptMemory::SlabInUse(uint64_t serial, const Descriptor& descriptor) {
  if (stored_before_.contains(SlabName(serial))) {
    absl::MutexLock lock(&mutex_);
    stored_.insert(serial);
    return;
  }
  absl::StatusOr<Descriptor> own = descriptor.Duplicate();
  if (own.ok()) {
    absl::MutexLock lock(&mutex_);
    changes_.push_back({serial, *std::move(own)});
  }
}

void KeptMemory::SlabGivenUp(uint64_t serial) {
  absl::MutexLock lock(&mutex_);
  const size_t waiting = changes_.size();
  std::erase_if(changes_, [serial](const Change& change) { return change.serial == serial; });
  if (changes_.size() != waiting) {
    return;  // nobody else has it yet
  }
  giving_up_.insert(serial);
  changes_.push_back({serial, Descriptor()});
  const auto gone = [this, serial]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !giving_up_.contains(serial);
  };
  static_cast<void>(mutex_.AwaitWithTimeout(absl::Condition(&gone), kGiveUpPatience));
}

void KeptMemory::Loop() {
  const uint64_t limit = notify_.keep_limit();
  while (true) {
    Change change;
    bool room = true;
    {
      absl::MutexLock lock(&mutex_);
      const auto some = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return ending_ || !changes_.empty();
      };
      mutex_.Await(absl::Condition(&some));
      if (changes_.empty()) {
        return;  // what is under way at the end is stored still
      }
      change = std::move(changes_.front());
      changes_.pop_front();
      // This life's directory, and the next one's; names get longer, never shorter.
      room = stored_.size() + 2 < limit &&
             (stored_.size() + 2) * (SlabName(change.serial).size() + 1) < kMaxNamesBytes;
      if (change.stored.valid() && !room && !std::exchange(full_said_, true)) {
        log_.Warning(
            "some slabs will not outlive this process",
            {{"reason", "there is no room for more: see FileDescriptorStoreMax= of the service"}});
      }
    }
    if (change.stored.valid()) {
      const bool stored = room && notify_.Keep(SlabName(change.serial), change.stored);
      absl::MutexLock lock(&mutex_);
      if (stored) {
        stored_.insert(change.serial);
      }
      continue;
    }
    notify_.Unkeep(SlabName(change.serial));
    static_cast<void>(notify_.Barrier(kGiveUpPatience));
    absl::MutexLock lock(&mutex_);
    stored_.erase(change.serial);
    giving_up_.erase(change.serial);
  }
}

std::unique_ptr<KeptMemory> MakeKeeper(const Config& config,
                                       std::vector<KeptDescriptor> received,
                                       const ServiceNotify& notify,
                                       Log& log) {
  if (config.keep == KeepDram::kOff || !notify.may_keep()) {
    DropKept(std::move(received), notify);
    return nullptr;
  }
  KeptMemory::Options options;
  options.capacity_bytes = config.store.dram_bytes;
  options.is_tenant = [config](std::string_view alias) { return IsTenant(config, alias); };
  return std::make_unique<KeptMemory>(std::move(options), std::move(received), notify, log);
}

absl::Status CheckRoom(const Config& config, const KeptMemory* keeper) {
  const uint64_t there = keeper == nullptr ? 0 : keeper->received_bytes();
  const uint64_t capacity = config.store.dram_bytes;
  return CheckMemory(capacity - std::min(there, capacity), config.huge_pages);
}

void LogKept(const KeptUsage& kept, Log& log) {
  if (kept.blocks + kept.dropped_blocks > 0) {
    log.Info(
        "blocks of the life before",
        {{"kept", kept.blocks}, {"of", SizeText(kept.bytes)}, {"dropped", kept.dropped_blocks}});
  }
}

}  // namespace terrace
