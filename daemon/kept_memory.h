// Slabs that outlive the daemon in the service manager's store of descriptors (systemd's
// FileDescriptorStoreMax=): each slab that a tenant has, as "s" and its serial, and the directory
// of their blocks, as "d" and the number of the life. What it gets back it believes only as far as
// seals, sizes, inodes and the directory say; the bytes themselves are the store's to verify.
//
// Changes are sent by a thread of its own, so that nobody waits for a service manager that is slow;
// a slab that is not stored yet when the daemon is killed is lost with it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"

#include "daemon/config.h"
#include "daemon/dram_keeper.h"
#include "daemon/log.h"
#include "daemon/service_notify.h"
#include "daemon/store_usage.h"

namespace terrace {

// What was received is not used: it is taken back from the service manager, and does not count for
// any later life.
void DropKept(std::vector<KeptDescriptor> received, const ServiceNotify& notify);

class KeptMemory final : public DramKeeper {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;
    std::function<bool(std::string_view)> is_tenant;  // whether peers may still belong to it
  };
  // `notify` and `log` outlive it.
  KeptMemory(Options options,
             std::vector<KeptDescriptor> received,
             const ServiceNotify& notify,
             Log& log);
  ~KeptMemory() override;
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  // Of slabs that were received and are known: they take no memory anew.
  [[nodiscard]] uint64_t received_bytes() const { return received_bytes_; }

  KeptDram Take() override;
  absl::Status Begin() override;
  void SlabInUse(uint64_t serial, const Descriptor& descriptor) override;
  void SlabGivenUp(uint64_t serial) override;

 private:
  struct Change {
    uint64_t serial = 0;
    Descriptor stored;  // invalid: taken back
  };

  void ChooseDirectory();
  Descriptor TakeSlab(const DirectorySlab& slab);
  void Loop();

  const Options options_;
  const ServiceNotify& notify_;
  Log& log_;
  std::vector<KeptDescriptor> received_;
  DirectoryContent content_;
  uint64_t received_bytes_ = 0;
  uint64_t life_ = 1;
  SealedMemory fresh_;
  absl::flat_hash_set<std::string> stored_before_;

  mutable absl::Mutex mutex_;
  std::deque<Change> changes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> stored_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> giving_up_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool full_said_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// As the configuration and the service manager allow; nullptr: DRAM ends with the process, and what
// was received is dropped.
std::unique_ptr<KeptMemory> MakeKeeper(const Config& config,
                                       std::vector<KeptDescriptor> received,
                                       const ServiceNotify& notify,
                                       Log& log);
// CheckMemory of what the arena needs beside the slabs that are there. `keeper` is nullable.
absl::Status CheckRoom(const Config& config, const KeptMemory* keeper);
// What came of it, where there was anything.
void LogKept(const KeptUsage& kept, Log& log);

}  // namespace terrace
