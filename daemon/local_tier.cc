#include "daemon/local_tier.h"

#include <utility>

#include "absl/synchronization/notification.h"

#include "daemon/concat.h"
#include "daemon/recency_judge.h"
#include "daemon/thread_executor.h"
#include "tiers/index/rocksdb_block_index.h"
#include "tiers/os/file_system.h"
#include "tiers/placement/reclaim.h"

namespace terrace {
namespace {

// Two: a reclaim or a recovery keeps one for long, and segments have to be opened meanwhile.
constexpr int kMaintenanceThreads = 2;

class RegisteredMemory final : public SlabMemory {
 public:
  RegisteredMemory(std::unique_ptr<SlabMemory> memory, std::shared_ptr<AsyncIo> io)
      : memory_(std::move(memory)), io_(std::move(io)) {}
  ~RegisteredMemory() override { io_->UnregisterMemory(memory_->memory()); }
  [[nodiscard]] absl::Span<char> memory() const override { return memory_->memory(); }
  [[nodiscard]] const Descriptor& descriptor() const override { return memory_->descriptor(); }
  [[nodiscard]] PageKind page_kind() const override { return memory_->page_kind(); }

 private:
  const std::unique_ptr<SlabMemory> memory_;
  const std::shared_ptr<AsyncIo> io_;  // owners: the tier and every slab that it knows
};

class RegisteringSource final : public SlabSource {
 public:
  RegisteringSource(std::unique_ptr<SlabSource> source, std::shared_ptr<AsyncIo> io)
      : source_(std::move(source)), io_(std::move(io)) {}
  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    absl::StatusOr<std::unique_ptr<SlabMemory>> made = source_->Make(bytes);
    if (!made.ok() || !io_->RegisterMemory((*made)->memory()).ok())
      return made;  // transfers work without; the refusal is among the engine's facts
    return std::make_unique<RegisteredMemory>(*std::move(made), io_);
  }

 private:
  const std::unique_ptr<SlabSource> source_;
  const std::shared_ptr<AsyncIo> io_;
};

class OpenedLocalTier final : public LocalTier {
 public:
  ~OpenedLocalTier() override {
    tier_.reset();  // before the threads that it uses
  }

  absl::Status Build(const Options& options, const Parts& parts) {
    absl::StatusOr<std::unique_ptr<Executor>> maintenance =
        MakeThreadExecutor({.threads = kMaintenanceThreads, .name = "tier"});
    if (!maintenance.ok())
      return maintenance.status();
    maintenance_ = *std::move(maintenance);
    io_ = MakeAsyncIo({}, *parts.clock);
    SegmentTierOptions tier;
    tier.name = options.name;
    tier.path = options.folder;
    tier.capacity_bytes = options.capacity_bytes;
    tier.max_payload_bytes = options.max_payload_bytes;
    tier.max_rewritten_share = kMaxRewrittenShare;
    tier.free_reserve_bytes = options.free_reserve_bytes;
    if (options.scrub_bytes_per_second == 0) {
      tier.scrub_interval = absl::InfiniteDuration();
    } else {
      tier.scrub_bytes_per_second = options.scrub_bytes_per_second;
    }
    SegmentTierParts tier_parts;
    tier_parts.files = &KernelFileSystem();
    tier_parts.io = io_.get();
    tier_parts.clock = parts.clock;
    tier_parts.hashing = parts.hashing;
    tier_parts.judge = &judge_;
    tier_parts.maintenance = maintenance_.get();
    tier_parts.open_index = [&](const Digest128& uuid) {
      return OpenIndex(options.index_folder, uuid, *parts.log);
    };
    absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenSegmentTier(tier, tier_parts);
    if (!opened.ok()) {
      return absl::Status(opened.status().code(),
                          Concat("the local tier in ", options.folder,
                                 " cannot be opened: ", std::string(opened.status().message())));
    }
    tier_ = *std::move(opened);
    return absl::OkStatus();
  }

  SegmentTier& tier() override { return *tier_; }
  [[nodiscard]] IoFacts io_facts() const override { return io_->facts(); }
  std::unique_ptr<SlabSource> Registering(std::unique_ptr<SlabSource> source) override {
    return std::make_unique<RegisteringSource>(std::move(source), io_);
  }
  absl::Status Close(absl::Duration limit) override {
    // Shared with the callback, which may run after the limit.
    const auto closed = std::make_shared<absl::Notification>();
    tier_->Close([closed](const absl::Status&) { closed->Notify(); });
    return closed->WaitForNotificationWithTimeout(limit)
               ? absl::OkStatus()
               : absl::DeadlineExceededError("the local tier is not closed yet");
  }

 private:
  // nullptr: the tier does without, and every start reads its segments' footers.
  BlockIndex* OpenIndex(const std::string& folder, const Digest128& uuid, Log& log) {
    RocksdbBlockIndexOptions options;
    options.path = folder;
    options.tier_uuid = uuid;
    absl::StatusOr<OpenedBlockIndex> opened = OpenRocksdbBlockIndex(options);
    if (!opened.ok()) {
      log.Warning("the index of the local tier cannot be used; a start reads the segments instead",
                  {{"index", folder}, {"error", std::string(opened.status().message())}});
      return nullptr;
    }
    if (!opened->rebuilt_because.empty()) {
      log.Warning("the index of the local tier is built anew",
                  {{"index", folder}, {"because", opened->rebuilt_because}});
    }
    index_ = std::move(opened->index);
    return index_.get();
  }

  // Owners: this and the slabs that are registered with it.
  std::shared_ptr<AsyncIo> io_;
  RecencyJudge judge_;
  std::unique_ptr<BlockIndex> index_;
  std::unique_ptr<Executor> maintenance_;
  std::unique_ptr<SegmentTier> tier_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalTier>> LocalTier::Open(const Options& options,
                                                           const Parts& parts) {
  auto tier = std::make_unique<OpenedLocalTier>();
  if (absl::Status status = tier->Build(options, parts); !status.ok())
    return status;
  return tier;
}

}  // namespace terrace
