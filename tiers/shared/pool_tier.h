// The class behind the door SharedTier, cut by concern into the .cc files of this room:
//   pool_tier.cc    what the owner calls
//   pool_open.cc    finding the pool, beginning a life, and beginning again
//   pool_upkeep.cc  what Tick makes due: tailing, writing, reclaim, adoption
//   pool_orphans.cc what earlier lives of this node left lying about
//
// Two jobs run on the maintenance executor, one of each kind at a time: one follows the other
// nodes, and opens; one writes. Both give up at the first fault of the mount; then lookups find
// nothing until the first job that succeeds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/shared/pool_catalogue.h"
#include "tiers/shared/pool_format.h"
#include "tiers/shared/pool_protection.h"
#include "tiers/shared/pool_reader.h"
#include "tiers/shared/pool_reports.h"
#include "tiers/shared/pool_space.h"
#include "tiers/shared/pool_tailer.h"
#include "tiers/shared/pool_writer.h"
#include "tiers/shared/shared_tier.h"

namespace terrace {

class PoolTier final : public SharedTier {
 public:
  PoolTier(const SharedTierOptions& options, const SharedTierParts& parts);
  ~PoolTier() override;

  [[nodiscard]] std::string_view name() const override { return options_.name; }
  bool Lookup(const BlockIdentity& identity, LowerBlock* out) override;
  uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) override;
  void Cancel(uint64_t token) override;
  [[nodiscard]] absl::Duration EstimateRead(uint64_t bytes) const override;
  [[nodiscard]] bool Holds(const BlockIdentity& identity) const override;
  void Publish(const WriteRequest& request,
               std::function<void()> released,
               std::function<void(WriteOutcome)> done) override;
  void Delete(absl::Span<const BlockIdentity> identities,
              std::function<void(WriteOutcome)> done) override;
  void RaiseGeneration(const RaisedGeneration& raised,
                       std::function<void(absl::Status)> done) override;
  [[nodiscard]] bool SeenByAll(const RaisedGeneration& raised) const override;
  void WatchGenerations(LearnGenerations learn) override;
  void Tick() override;
  void Close(absl::Duration deadline, std::function<void(absl::Status)> done) override;
  [[nodiscard]] SharedTierFigures figures() const override;
  [[nodiscard]] std::vector<PoolNodeView> Nodes() const override;
  [[nodiscard]] std::vector<PoolSegmentView> ReclaimOrder() const override;

 private:
  // Everything that exists once it is known which pool it is. Owners: the pool and calls that run.
  struct Opened {
    Opened(const SharedTierOptions& options, const SharedTierParts& parts, PoolAccess pool);

    const std::unique_ptr<PoolProtection> protection;
    const PoolAccess access;
    BlockIndex* const index;  // nullable
    PoolCatalogue catalogue;
    PoolTailer tailer;
    PoolReader reader;
  };

  // ---- pool_open.cc
  absl::Status FindPool();
  // FAILED_PRECONDITION also where it is protected in another way, or with another secret.
  absl::StatusOr<Digest128> ReadSuperblock();
  absl::Status CheckProtection(const PoolSuperblock& superblock) const;
  absl::Status MakePool();
  absl::StatusOr<std::vector<NodeLife>> EarlierLives();
  absl::Status TakeOver(const NodeLife& life, WholeReport* before);
  absl::Status BeginLife();
  absl::Status CheckPool();
  void OpenedOnce(const Digest128& pool);

  // ---- pool_upkeep.cc
  void RunTail();
  absl::Status Tail();
  // Every node has been heard: lookups find what is known. Then what is due about once a second.
  absl::Status Serve(bool upkeep);
  void StartWriting();  // where there is something to do
  void RunWrite();
  void TakeNews(const TailNews& news);
  void Learn(const std::vector<RaisedGeneration>& news);
  void KillLateComers();
  absl::Status Reclaim();
  [[nodiscard]] std::vector<SpaceSegment> OwnSegments(const PoolWriter& writer) const;
  void SayAgainAfterFaults();
  absl::Status AdoptTheDead();
  absl::StatusOr<bool> TakeClaim(const NodeLife& dead);
  absl::Status LeaveMembers();

  // ---- pool_orphans.cc
  absl::Status CollectOrphans();
  absl::Status CollectLife(const WholeReport& left);
  absl::StatusOr<bool> CollectFolder(const WholeReport& left, const std::string& path);

  // ---- pool_upkeep.cc
  [[nodiscard]] bool IsAdopter(const Digest128& dead) const;
  void NoteMount(const absl::Status& status);
  void FadeHeats();
  void FenceLife(const std::string& because);
  void FinishClose();
  [[nodiscard]] bool IdleNow();

  [[nodiscard]] bool IsDeleted(const Digest128& fingerprint) const;
  [[nodiscard]] Digest128 FingerprintOf(const BlockIdentity& identity) const;
  [[nodiscard]] PoolAuth Auth() const {
    return parts_.secret == nullptr ? PoolAuth::kNone : parts_.secret->auth();
  }
  [[nodiscard]] std::shared_ptr<PoolWriter> WriterNow() const;
  [[nodiscard]] bool Serving() const { return serving_.load() && mount_ok_.load(); }
  PoolWriterOptions WriterOptions() const;

  const SharedTierOptions options_;
  const SharedTierParts parts_;
  // Set once by OpenedOnce, before serving_; read without a lock behind it.
  std::unique_ptr<Opened> opened_;
  std::atomic<bool> has_pool_{false};
  std::atomic<bool> serving_{false};       // a life has begun, and every node has been heard
  std::atomic<bool> mount_ok_{false};      // the last job came to its end
  std::atomic<bool> mount_failed_{false};  // and does not answer yet; false before the first job
  std::atomic<bool> foreign_{false};
  std::atomic<bool> closing_{false};
  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> next_token_{1};
  std::atomic<bool> any_deleted_{false};  // deleted_ has something

  mutable absl::Mutex mutex_;
  // Owners: the pool, and calls that run; another one for every life.
  std::shared_ptr<PoolWriter> writer_ ABSL_GUARDED_BY(mutex_);
  bool life_begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool tailing_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration next_tail_ ABSL_GUARDED_BY(mutex_);
  absl::Duration next_upkeep_ ABSL_GUARDED_BY(mutex_);
  absl::Duration next_check_ ABSL_GUARDED_BY(mutex_);
  absl::Duration next_collection_ ABSL_GUARDED_BY(mutex_);
  uint64_t workers_lost_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t mount_faults_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string last_fault_ ABSL_GUARDED_BY(mutex_);
  // Of identities that were deleted lately: what others published before they heard of it goes too.
  absl::flat_hash_map<Digest128, absl::Duration> deleted_ ABSL_GUARDED_BY(mutex_);
  // Reads of a segment lately, by node; and of all nodes together, fading.
  std::map<Digest128, std::vector<ReportedHeat>> heats_ ABSL_GUARDED_BY(mutex_);
  std::map<SegmentName, double> heat_ ABSL_GUARDED_BY(mutex_);
  absl::Duration next_heat_ ABSL_GUARDED_BY(mutex_);
  // What earlier lives said, whose folders are to be tidied; of the job that follows others.
  std::vector<WholeReport> left_;
  uint64_t available_bytes_ = 0;  // of the file system, at the last look; likewise
  absl::Duration next_space_look_;
  std::vector<NodeLife> claimed_here_;  // by this life; of the job that follows others
  std::vector<NodeLife> adopted_members_ ABSL_GUARDED_BY(mutex_);  // their member files may go
  std::vector<std::shared_ptr<PoolWriter>> old_writers_
      ABSL_GUARDED_BY(mutex_);                    // of earlier lives
  bool tell_all_ ABSL_GUARDED_BY(mutex_) = true;  // the watcher has not heard what is known
  std::map<Digest128, uint64_t> known_generations_ ABSL_GUARDED_BY(mutex_);
  uint64_t reclaimed_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t adopted_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t orphans_ ABSL_GUARDED_BY(mutex_) = 0;  // files that nobody listed, and are removed
  absl::Duration close_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  std::function<void(absl::Status)> close_done_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex watch_mutex_;  // held in shared mode over the call, before the owner's locks
  LearnGenerations learn_ ABSL_GUARDED_BY(watch_mutex_);
};

}  // namespace terrace
