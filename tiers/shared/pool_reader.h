// Reads records of a pool into slots: one call of the file system for records that lie behind each
// other, each record checked in full.
//
// What a page cache or a file server has of a segment may be older than what its writer published:
// a record that does not match is read once more from a file that is opened anew, and only then is
// a miss, in this life.
//
// Threads: thread-safe; nothing blocks. `done` runs on the hashing executor, on a thread of
// PoolFiles or before Read returns.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/record_format.h"
#include "tiers/shared/pool_catalogue.h"
#include "tiers/shared/pool_files.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_protection.h"
#include "tiers/shared/pool_reports.h"
#include "tiers/vocab/deferred_calls.h"
#include "tiers/vocab/executor.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

struct PoolReaderOptions {
  uint32_t max_reads = 256;  // waiting and in flight
  uint32_t depth = 16;       // calls of the file system
  uint64_t merge_bytes = uint64_t{8} << 20;
};

struct PoolReaderFigures {
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t calls = 0;
  uint64_t faults = 0;
  uint64_t mount_faults = 0;  // among them: the mount did not answer
  uint64_t corrupt = 0;
  uint64_t forged = 0;  // among them: sound, and sealed by nobody who may
  uint64_t repeated = 0;
  uint64_t in_flight = 0;
  double bytes_per_second = 0;  // moving average; 0: not measured yet
  std::string last_fault;
};

class PoolReader {
 public:
  PoolReader(const PoolReaderOptions& options,
             const PoolAccess& access,
             PoolCatalogue& catalogue,
             Executor& hashing)
      : options_(options), access_(access), catalogue_(catalogue), hashing_(hashing) {}

  // As LowerTier has it. `fingerprint` is the identity's.
  void Read(uint64_t token,
            const LowerTier::ReadRequest& request,
            const Digest128& fingerprint,
            std::function<void(ReadOutcome)> done);
  // Ends a read that has not been handed to PoolFiles; others go on, and end by their deadline.
  void Cancel(uint64_t token);
  // Reads whose turn does not come in time.
  void Expire();
  // What waits ends as kCancelled, and so does what is to come.
  void Stop();

  [[nodiscard]] absl::Duration Estimate(uint64_t bytes) const;
  // How often records of a segment were read since the last call.
  [[nodiscard]] std::vector<ReportedHeat> TakeHeats();
  [[nodiscard]] PoolReaderFigures figures() const;

 private:
  struct OneRead {
    uint64_t token = 0;
    OwnedIdentity identity;
    Digest128 fingerprint;
    Digest128 checksum;  // of the payload
    FoundPlace place;
    uint32_t pages = 0;
    absl::Span<char> destination;
    absl::Duration deadline;
    Priority priority = Priority::kNormal;
    std::function<void(ReadOutcome)> done;
  };
  // Records that lie behind each other, as one call.
  struct Group {
    std::vector<std::unique_ptr<OneRead>> reads;
    std::shared_ptr<PoolBuffer> buffer;  // owners: the group and the call
    uint64_t bytes = 0;
    uint64_t got = 0;
    ReadHow how = ReadHow::kKept;
    absl::Duration begun;
  };

  void PumpLocked(DeferredCalls& deferred) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Group> NextGroupLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Submit(const std::shared_ptr<Group>& group);
  void CallEnded(const std::shared_ptr<Group>& group, const PoolReply& reply);
  void Verify(const std::shared_ptr<Group>& group);
  [[nodiscard]] RecordVerdict Take(const OneRead& read, absl::Span<const char> bytes) const;
  void End(const std::shared_ptr<Group>& group, std::vector<ReadOutcome> outcomes);
  void EndOneLocked(std::unique_ptr<OneRead> read, ReadOutcome outcome, DeferredCalls& deferred)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PoolReaderOptions options_;
  const PoolAccess access_;
  PoolCatalogue& catalogue_;
  Executor& hashing_;
  mutable absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  // In the order of their priority, then of their coming.
  std::deque<std::unique_ptr<OneRead>> waiting_ ABSL_GUARDED_BY(mutex_);
  uint32_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<SegmentName, uint32_t> heats_ ABSL_GUARDED_BY(mutex_);
  PoolReaderFigures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
