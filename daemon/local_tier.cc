#include "daemon/local_tier.h"

#include <algorithm>
#include <utility>

#include "absl/synchronization/notification.h"

#include "daemon/concat.h"
#include "daemon/kept_index.h"
#include "daemon/recency_judge.h"
#include "daemon/settings.h"
#include "daemon/thread_executor.h"
#include "tiers/os/file_system.h"
#include "tiers/placement/reclaim.h"

namespace terrace {
namespace {

// A drive, two: a reclaim or a recovery keeps one for long, and segments have to be opened
// meanwhile.
constexpr int kMaintenanceThreads = 2;

using Rings = std::vector<std::shared_ptr<AsyncIo>>;  // owners: the tier and every slab it knows

class RegisteredMemory final : public SlabMemory {
 public:
  RegisteredMemory(std::unique_ptr<SlabMemory> memory, Rings rings)
      : memory_(std::move(memory)), rings_(std::move(rings)) {}
  RegisteredMemory(const RegisteredMemory&) = delete;
  RegisteredMemory& operator=(const RegisteredMemory&) = delete;
  ~RegisteredMemory() override {
    for (const std::shared_ptr<AsyncIo>& ring : rings_) {
      ring->UnregisterMemory(memory_->memory());
    }
  }
  [[nodiscard]] absl::Span<char> memory() const override { return memory_->memory(); }
  [[nodiscard]] const Descriptor& descriptor() const override { return memory_->descriptor(); }
  [[nodiscard]] PageKind page_kind() const override { return memory_->page_kind(); }

 private:
  const std::unique_ptr<SlabMemory> memory_;
  const Rings rings_;
};

class RegisteringSource final : public SlabSource {
 public:
  RegisteringSource(std::unique_ptr<SlabSource> source, Rings rings)
      : source_(std::move(source)), rings_(std::move(rings)) {}
  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    absl::StatusOr<std::unique_ptr<SlabMemory>> made = source_->Make(bytes);
    if (!made.ok()) {
      return made;
    }
    Rings knowing;
    for (const std::shared_ptr<AsyncIo>& ring : rings_) {
      // Transfers work without; a refusal is among the engine's facts.
      if (ring->RegisterMemory((*made)->memory()).ok()) {
        knowing.push_back(ring);
      }
    }
    if (knowing.empty()) {
      return made;
    }
    return std::make_unique<RegisteredMemory>(*std::move(made), std::move(knowing));
  }

 private:
  const std::unique_ptr<SlabSource> source_;
  const Rings rings_;
};

class OpenedLocalTier final : public LocalTier {
 public:
  explicit OpenedLocalTier(Log& log) : log_(log) {}
  OpenedLocalTier(const OpenedLocalTier&) = delete;
  OpenedLocalTier& operator=(const OpenedLocalTier&) = delete;
  ~OpenedLocalTier() override {
    tier_.reset();  // before the threads that it uses
  }

  absl::Status Build(const Options& options, const Parts& parts) {
    TierSetOptions set;
    set.name = options.name;
    set.opens_without_drives = true;
    for (const LocalDrive& local : options.drives) {
      if (absl::Status status = AddDrive(options, local, *parts.clock, &set); !status.ok()) {
        return status;
      }
    }
    SegmentTierParts tier_parts;
    tier_parts.files = &KernelFileSystem();
    tier_parts.clock = parts.clock;
    tier_parts.hashing = parts.hashing;
    tier_parts.judge = &judge_;
    tier_parts.maintenance = maintenance_.front().get();
    absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenTierSet(set, tier_parts);
    if (!opened.ok()) {
      return absl::Status(opened.status().code(),
                          Concat("the local tier (", FoldersOf(options),
                                 ") cannot be opened: ", std::string(opened.status().message())));
    }
    tier_ = *std::move(opened);
    logged_.resize(options.drives.size());
    LogDrives();
    return absl::OkStatus();
  }

  SegmentTier& tier() override { return *tier_; }
  [[nodiscard]] IoFacts io_facts() const override {
    IoFacts sum = rings_.front()->facts();
    for (size_t i = 1; i < rings_.size(); ++i) {
      const IoFacts more = rings_[i]->facts();
      if (sum.fallback_reason.empty()) {
        sum.engine = more.engine;
        sum.fallback_reason = more.fallback_reason;
      }
      if (sum.registration_refusal.empty()) {
        sum.registration_refusal = more.registration_refusal;
      }
      sum.registered_bytes = std::min(sum.registered_bytes, more.registered_bytes);
      sum.resubmitted += more.resubmitted;
    }
    return sum;
  }
  std::unique_ptr<SlabSource> Registering(std::unique_ptr<SlabSource> source) override {
    return std::make_unique<RegisteringSource>(std::move(source), rings_);
  }

  void LogDrives() override {
    const std::vector<DriveView> drives = tier_->Drives();
    for (size_t i = 0; i < drives.size(); ++i) {
      const DriveView& drive = drives[i];
      Logged& logged = logged_[i];
      if (logged.once && logged.open == drive.open && logged.problem == drive.problem) {
        continue;
      }
      LogDrive(i, drive, logged);
      logged = {true, drive.open, drive.problem};
    }
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
  struct Logged {
    bool once = false;
    bool open = false;
    std::string problem;
  };

  static std::string FoldersOf(const Options& options) {
    std::string text;
    for (const LocalDrive& drive : options.drives) {
      text.append(text.empty() ? "" : ", ").append(drive.folder);
    }
    return text;
  }

  absl::Status AddDrive(const Options& options,
                        const LocalDrive& local,
                        const Clock& clock,
                        TierSetOptions* set) {
    const std::string number = std::to_string(set->drives.size());
    absl::StatusOr<std::unique_ptr<Executor>> maintenance =
        MakeThreadExecutor({.threads = kMaintenanceThreads, .name = Concat("tier", number)});
    if (!maintenance.ok()) {
      return maintenance.status();
    }
    maintenance_.push_back(*std::move(maintenance));
    rings_.push_back(MakeAsyncIo({}, clock));
    indexes_.push_back(std::make_unique<KeptIndex>(local.index_folder, "a local drive", log_));
    Drive drive;
    drive.options.path = local.folder;
    drive.options.capacity_bytes = local.capacity_bytes;
    drive.options.max_payload_bytes = options.max_payload_bytes;
    drive.options.max_rewritten_share = kMaxRewrittenShare;
    drive.options.free_reserve_bytes = options.free_reserve_bytes;
    if (options.scrub_bytes_per_second == 0) {
      drive.options.scrub_interval = absl::InfiniteDuration();
    } else {
      drive.options.scrub_bytes_per_second = options.scrub_bytes_per_second;
    }
    drive.io = rings_.back().get();
    drive.open_index = [index = indexes_.back().get()](const Digest128& uuid) {
      return index->Open(uuid);
    };
    drive.maintenance = maintenance_.back().get();
    set->drives.push_back(std::move(drive));
    return absl::OkStatus();
  }

  void LogDrive(size_t number, const DriveView& drive, const Logged& before) {
    const SegmentTierFigures& figures = drive.figures;
    if (!drive.open) {
      log_.Error("a local drive is not there; what lies on it is missed until it is",
                 {{"drive", number}, {"folder", drive.path}, {"reason", drive.problem}});
    } else if (!drive.problem.empty()) {
      log_.Error("a local drive has faults",
                 {{"drive", number}, {"folder", drive.path}, {"reason", drive.problem}});
    } else if (before.open) {
      log_.Info("a local drive has no faults any more",
                {{"drive", number}, {"folder", drive.path}});
    } else {
      log_.Info("local drive open", {{"drive", number},
                                     {"folder", drive.path},
                                     {"capacity", SizeText(figures.capacity_bytes)},
                                     {"segments", figures.segments},
                                     {"to_recover", figures.segments_to_recover},
                                     {"o_direct", figures.transfers.caching == Caching::kDirect}});
    }
  }

  Log& log_;
  RecencyJudge judge_;
  // Each of them one a drive.
  Rings rings_;
  std::vector<std::unique_ptr<KeptIndex>> indexes_;
  std::vector<std::unique_ptr<Executor>> maintenance_;
  std::vector<Logged> logged_;
  std::unique_ptr<SegmentTier> tier_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalTier>> LocalTier::Open(const Options& options,
                                                           const Parts& parts) {
  auto tier = std::make_unique<OpenedLocalTier>(*parts.log);
  if (absl::Status status = tier->Build(options, parts); !status.ok()) {
    return status;
  }
  return tier;
}

}  // namespace terrace
