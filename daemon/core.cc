#include "daemon/core.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#include "daemon/block_store.h"
#include "daemon/concat.h"
#include "daemon/config_secrets.h"
#include "daemon/event_publishers.h"
#include "daemon/folders.h"
#include "daemon/gpu_handoff.h"
#include "daemon/identity_files.h"
#include "daemon/kept_memory.h"
#include "daemon/learnt_file.h"
#include "daemon/local_tier.h"
#include "daemon/metrics.h"
#include "daemon/observer_relay.h"
#include "daemon/process_facts.h"
#include "daemon/quotas.h"
#include "daemon/reporting_slabs.h"
#include "daemon/settings.h"
#include "daemon/shared_tier.h"
#include "daemon/thread_executor.h"
#include "daemon/worker/worker_pool_files.h"
#include "tiers/copy/one_pass.h"
#include "tiers/dram/arena.h"

namespace terrace {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);  // at drives and pools
// What closing the local tier may take of the time that stopping has.
constexpr absl::Duration kCloseShare = absl::Seconds(1);
// Likewise for the pools, whatever is left.
constexpr absl::Duration kLeastPoolClose = absl::Milliseconds(100);

int ThreadsOrCores(uint32_t configured) {
  if (configured > 0) {
    return static_cast<int>(configured);
  }
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

// Makes time pass for the store, and feeds the watchdog while the copy threads and the front turn
// over.
class Ticker {
 public:
  // `gpu`: nullable. `look`: about once a second.
  Ticker(BlockStore& store,
         GpuHandoff* gpu,
         Executor& executor,
         const ServiceNotify& notify,
         std::function<void()> look)
      : store_(store), gpu_(gpu), executor_(executor), notify_(notify), look_(std::move(look)) {}
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;
  ~Ticker() { Stop(); }

  void Start(Front* front) {
    {
      absl::MutexLock lock(&front_mutex_);
      front_ = front;
    }
    thread_ = std::thread([this] { Loop(); });
  }
  // Time goes on; the watchdog is not fed any more, and the front not asked.
  void LeaveFront() {
    absl::MutexLock lock(&front_mutex_);
    front_ = nullptr;
  }
  void Stop() {
    if (!thread_.joinable()) {
      return;
    }
    stop_.Notify();
    thread_.join();
  }

 private:
  void Loop() {
    // Half the interval leaves room for one beat that comes late.
    const absl::Duration interval = notify_.watchdog_interval() / 2;
    absl::Duration next_beat = BootClock().Now();
    absl::Duration next_look = next_beat;
    while (!stop_.WaitForNotificationWithTimeout(kTickInterval)) {
      store_.Tick();
      if (gpu_ != nullptr) {
        gpu_->Tick();
      }
      if (BootClock().Now() >= next_look) {
        look_();
        next_look = BootClock().Now() + kLookInterval;
      }
      if (interval <= absl::ZeroDuration() || BootClock().Now() < next_beat) {
        continue;
      }
      if (Beat()) {
        next_beat = BootClock().Now() + interval;
      }
    }
  }

  bool Beat() {
    if (!probe_running_->load()) {
      if (probes_sent_ > 0) {
        copy_threads_turn_ = true;
      }
      probe_running_->store(true);
      ++probes_sent_;
      executor_.Run(Priority::kHigh, [running = probe_running_] { running->store(false); });
    }
    if (!copy_threads_turn_ || !FrontTurns()) {
      return false;
    }
    copy_threads_turn_ = false;
    notify_.Watchdog();
    return true;
  }

  // Held over the question, which waits for nothing, so that LeaveFront can promise an end of
  // asking.
  bool FrontTurns() {
    absl::MutexLock lock(&front_mutex_);
    return front_ != nullptr && front_->Alive();
  }

  BlockStore& store_;
  GpuHandoff* const gpu_;
  Executor& executor_;
  const ServiceNotify& notify_;
  const std::function<void()> look_;
  absl::Mutex front_mutex_;
  Front* front_ ABSL_GUARDED_BY(front_mutex_) = nullptr;
  // Shared with the work in the executor, which may run after the ticker is gone.
  std::shared_ptr<std::atomic<bool>> probe_running_ = std::make_shared<std::atomic<bool>>(false);
  uint64_t probes_sent_ = 0;
  bool copy_threads_turn_ = false;
  absl::Notification stop_;
  std::thread thread_;
};

class DaemonCore final : public Core {
 public:
  DaemonCore(Options options, Log& log, const ServiceNotify& notify)
      : request_(std::move(options.request)),
        version_(std::move(options.version)),
        log_(log),
        notify_(notify),
        config_(std::make_shared<const Config>(options.loaded.config)),
        keeper_(MakeKeeper(options.loaded.config, std::move(options.kept), notify, log)) {}
  DaemonCore(const DaemonCore&) = delete;
  DaemonCore& operator=(const DaemonCore&) = delete;

  ~DaemonCore() override { Stop(absl::ZeroDuration()); }

  absl::Status Build() {
    const std::shared_ptr<const Config> config = CurrentConfig();
    absl::StatusOr<Descriptor> lock =
        PrepareFolders({config->runtime_dir, config->data_dir, config->socket_gid});
    if (!lock.ok()) {
      return lock.status();
    }
    lock_ = std::move(*lock);
    if (absl::Status s = CheckRoom(*config, keeper_.get()); !s.ok()) {
      return s;
    }
    if (PolicyLearns(config->store.policy)) {
      learnt_ = std::make_unique<LearntFile>(
          LearntFile::Options{&KernelFileSystem(), config->data_dir, config->store.policy, &log_});
    }
    if (absl::Status s = BuildMetrics(*config); !s.ok()) {
      return s;
    }
    if (absl::Status s = BuildStore(*config); !s.ok()) {
      return s;
    }
    BuildGpu(*config);
    if (absl::Status s = BuildFront(*config); !s.ok()) {
      return s;
    }
    if (absl::Status s = publishers_.Start(config->events, {store_.get(), &BootClock()}); !s.ok()) {
      return s;
    }
    metrics_->SetStore(store_.get());
    ticker_ =
        std::make_unique<Ticker>(*store_, gpu_.get(), *executor_, notify_, [this] { LogTiers(); });
    ticker_->Start(front_.get());
    if (learnt_ != nullptr) {
      learnt_keeper_ = std::make_unique<LearntKeeper>(
          *learnt_, [this] { return store_->SaveLearnt(); }, kLearntInterval);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<AdminHooks::ReloadResult> Reload() override {
    if (reloading_.exchange(true)) {
      return absl::UnavailableError("a reload is running already");
    }
    absl::StatusOr<AdminHooks::ReloadResult> result = ReloadAlone();
    reloading_.store(false);
    return result;
  }

  void Stop(absl::Duration grace) override {
    if (std::exchange(stopped_, true)) {
      return;
    }
    const absl::Duration deadline = BootClock().Now() + grace;
    if (metrics_ != nullptr) {
      metrics_->SetDraining(true);
    }
    if (store_ != nullptr) {
      store_->SetDraining(true);
    }
    if (ticker_ != nullptr) {
      ticker_->LeaveFront();
    }
    if (front_ != nullptr) {
      front_->BeginDrain(grace);
      front_->Stop(std::max(absl::ZeroDuration(), deadline - BootClock().Now()));
    }
    if (store_ != nullptr && (local_ != nullptr || !pools_.empty())) {
      FlushLocal(deadline - kCloseShare);
    }
    ClosePools(deadline - kCloseShare);
    learnt_keeper_.reset();
    if (ticker_ != nullptr) {
      ticker_->Stop();
    }
    relay_.Attach(nullptr, nullptr);
    front_.reset();
    if (metrics_ != nullptr) {
      metrics_->SetStore(nullptr);
    }
    publishers_.Stop();
    gpu_.reset();
    if (local_ != nullptr) {
      const absl::Duration left = std::max(kCloseShare, deadline - BootClock().Now());
      if (const absl::Status status = local_->Close(left); !status.ok()) {
        log_.Warning("stopping before the local tier is closed; the next start reads more", {});
      }
    }
  }

  [[nodiscard]] std::string metrics_address() const override { return metrics_->address(); }

 private:
  absl::Status BuildMetrics(const Config& config) {
    MetricsOptions options;
    options.listen = config.metrics_listen;
    options.version = version_;
    options.copy_kernel = std::string(CopyKernelName(ActiveCopyKernel()));
    options.log_lines_dropped = [&log = log_] { return log.dropped(); };
    options.learnt = [this] {
      return learnt_ == nullptr ? std::nullopt : std::optional<LearntFigures>(learnt_->figures());
    };
    options.io_facts = [this] {
      return local_ == nullptr ? std::nullopt : std::optional<IoFacts>(local_->io_facts());
    };
    options.gpu_figures = [this] {
      return gpu_ == nullptr ? std::nullopt : std::optional<GpuFigures>(gpu_->figures());
    };
    options.event_figures = [this] { return publishers_.figures(); };
    absl::StatusOr<std::unique_ptr<Metrics>> metrics =
        Metrics::Start(std::move(options), BootClock());
    if (!metrics.ok()) {
      return metrics.status();
    }
    metrics_ = std::move(*metrics);
    return absl::OkStatus();
  }

  absl::Status BuildStore(const Config& config) {
    absl::StatusOr<std::unique_ptr<Executor>> executor =
        MakeThreadExecutor({.threads = ThreadsOrCores(config.copy_threads), .name = "copy"});
    if (!executor.ok()) {
      return executor.status();
    }
    executor_ = std::move(*executor);
    std::unique_ptr<SlabSource> sealed =
        MakeSealedSlabSource(config.huge_pages, ThreadsOrCores(config.touch_threads));
    if (!LocalDrivesOf(config).empty()) {
      if (absl::Status s = BuildLocal(config); !s.ok()) {
        return s;
      }
      sealed = local_->Registering(std::move(sealed));
    }
    if (absl::Status s = BuildPools(config); !s.ok()) {
      return s;
    }
    slabs_ = std::make_unique<ReportingSlabSource>(std::move(sealed), config.store.dram_bytes, log_,
                                                   notify_);
    BlockStore::Parts parts;
    parts.clock = &BootClock();
    parts.executor = executor_.get();
    parts.slabs = slabs_.get();
    parts.local = local_ == nullptr ? nullptr : &local_->tier();
    parts.observer = &relay_;
    parts.keeper = keeper_.get();
    if (learnt_ != nullptr) {
      parts.learnt = learnt_->Read();
    }
    BlockStoreOptions options = config.store;
    for (const TierConfig& tier : SharedTiersOf(config)) {
      options.shared.emplace_back();
      options.shared.back().publish = tier.publish;
      options.shared.back().max_payload_bytes = options.local_max_payload_bytes;
    }
    for (const std::unique_ptr<PoolHost>& pool : pools_) {
      parts.shared.push_back(&pool->tier());
    }
    absl::StatusOr<std::unique_ptr<BlockStore>> store = BlockStore::Create(options, parts);
    if (!store.ok()) {
      return absl::Status(
          store.status().code(),
          Concat("the DRAM tier of ", SizeText(config.store.dram_bytes),
                 " (dram.capacity) cannot be made: ", std::string(store.status().message())));
    }
    slabs_->Started();
    store_ = std::move(*store);
    LogKept(store_->Usage().kept, log_);
    store_->SetNamespaceRules(NamespaceRulesOf(config));
    return ApplyQuotas(*store_, {}, config.tenants);
  }

  absl::Status BuildLocal(const Config& config) {
    LocalTier::Options options;
    for (const TierConfig& tier : LocalDrivesOf(config)) {
      // The first as it was when there was but one, so that its index is found again.
      const size_t number = options.drives.size();
      const std::string suffix = number == 0 ? "" : Concat("-", number);
      options.name = tier.name;
      options.drives.push_back(
          {tier.path, Concat(config.data_dir, "/local-index", suffix), tier.capacity_bytes});
    }
    options.max_payload_bytes = config.store.local_max_payload_bytes;
    options.free_reserve_bytes = config.local_free_reserve;
    options.scrub_bytes_per_second = config.local_scrub_bytes_per_second;
    absl::StatusOr<std::unique_ptr<LocalTier>> local =
        LocalTier::Open(options, {&BootClock(), executor_.get(), &log_});
    if (!local.ok()) {
      return local.status();
    }
    local_ = *std::move(local);
    const IoFacts io = local_->io_facts();
    if (!io.fallback_reason.empty()) {
      log_.Warning("no io_uring for the local tier", {{"reason", io.fallback_reason}});
    }
    return absl::OkStatus();
  }

  absl::Status BuildPools(const Config& config) {
    const std::vector<TierConfig> tiers = SharedTiersOf(config);
    if (tiers.empty()) {
      return absl::OkStatus();
    }
    const absl::StatusOr<Digest128> node = NodeIdentity(config.data_dir);
    if (!node.ok()) {
      return node.status();
    }
    PoolHost::Parts parts;
    parts.clock = &BootClock();
    parts.hashing = executor_.get();
    parts.log = &log_;
    parts.make_files = [](const PoolHost::FilesOptions& options) {
      WorkerPoolFilesOptions worker;
      worker.name = options.name;
      worker.root = options.root;
      worker.buffer_bytes = options.buffer_bytes;
      return MakeWorkerPoolFiles(worker, {options.clock, options.say});
    };
    const std::string credentials = CredentialsDir();
    for (const TierConfig& tier : tiers) {
      absl::StatusOr<std::unique_ptr<PoolHost>> pool = PoolHost::Open(
          {tier, config.data_dir, *node, config.store.local_max_payload_bytes, credentials}, parts);
      if (!pool.ok()) {
        return pool.status();
      }
      pools_.push_back(*std::move(pool));
    }
    return absl::OkStatus();
  }

  void LogTiers() {
    if (local_ != nullptr) {
      local_->LogDrives();
    }
    for (const std::unique_ptr<PoolHost>& pool : pools_) {
      pool->LogChanges();
    }
  }

  // All at once, because each may take all of the time.
  void ClosePools(absl::Duration deadline) {
    const absl::Duration limit =
        std::max(kLeastPoolClose, std::min(kCloseShare, deadline - BootClock().Now()));
    std::vector<std::thread> closing;
    for (const std::unique_ptr<PoolHost>& pool : pools_) {
      closing.emplace_back([this, &pool, limit] {
        if (const absl::Status status = pool->Close(limit); !status.ok()) {
          log_.Warning("stopping before all that was taken is published",
                       {{"tier", std::string(pool->tier().name())},
                        {"reason", std::string(status.message())}});
        }
      });
    }
    for (std::thread& thread : closing) {
      thread.join();
    }
  }

  // What only DRAM holds is written down as far as there is time.
  void FlushLocal(absl::Duration deadline) {
    for (const TenantUsage& usage : store_->Tenants()) {
      const absl::StatusOr<TenantId> tenant = store_->OpenTenant(usage.alias);
      if (!tenant.ok()) {
        continue;
      }
      // Shared with the callback, which may run after the deadline.
      struct Answer {
        absl::Notification given;
        absl::Status status;
      };
      const auto answer = std::make_shared<Answer>();
      store_->Flush(*tenant, Level::kLocalWritten, deadline, [answer](absl::Status status) {
        answer->status = std::move(status);
        answer->given.Notify();
      });
      const absl::Duration left = std::max(absl::ZeroDuration(), deadline - BootClock().Now());
      if (!answer->given.WaitForNotificationWithTimeout(left + kTickInterval * 5) ||
          !answer->status.ok()) {
        log_.Warning("blocks that only DRAM holds are not all written, and end with it",
                     {{"tenant", usage.alias},
                      {"reason", answer->given.HasBeenNotified() ? answer->status.ToString()
                                                                 : "no time left"}});
      }
    }
  }

  void BuildGpu(const Config& config) {
    if (config.gpu == GpuUse::kOff || (config.gpu == GpuUse::kAuto && !HasGpuDriver())) {
      return;
    }
    GpuHandoff::Options options;
    options.device.staging_bytes = config.gpu_staging_bytes;
    options.max_regions_per_session = config.store.max_regions_per_session;
    GpuHandoff::Parts parts;
    parts.store = store_.get();
    parts.clock = &BootClock();
    parts.say = [&log = log_](const std::string& event) { log.Info("gpu", {{"event", event}}); };
    gpu_ = GpuHandoff::Create(options, parts);
  }

  absl::Status BuildFront(const Config& config) {
    FrontOptions options;
    options.runtime_dir = config.runtime_dir;
    options.socket_mode = config.socket_mode;
    options.socket_gid = config.socket_gid;
    options.io_threads = static_cast<int>(config.io_threads);
    options.io_poll = absl::Microseconds(config.io_poll_us);
    options.limits = config.front;
    options.gpu = gpu_.get();
    options.tenant_of = [this](const PeerCredentials& peer) {
      return TenantOf(*CurrentConfig(), peer);
    };
    AdminHooks hooks;
    hooks.reload = [this] { return Reload(); };
    hooks.metrics_address = [this] { return metrics_->address(); };
    hooks.publishers = [this] { return publishers_.figures(); };
    hooks.version = version_;
    absl::StatusOr<std::unique_ptr<Front>> front =
        Front::Start(std::move(options), *store_, BootClock(), *metrics_, std::move(hooks));
    if (!front.ok()) {
      return front.status();
    }
    front_ = std::move(*front);
    relay_.Attach(front_.get(), gpu_.get());
    return absl::OkStatus();
  }

  absl::StatusOr<AdminHooks::ReloadResult> ReloadAlone() {
    const absl::StatusOr<LoadedConfig> loaded = LoadConfig(request_);
    if (!loaded.ok()) {
      log_.Error("reload refused", {{"error", std::string(loaded.status().message())}});
      return loaded.status();
    }
    const std::shared_ptr<const Config> running = CurrentConfig();
    const ConfigDifference difference = CompareConfigs(*running, loaded->config);
    Config next = WithLiveSettings(*running, loaded->config);
    if (absl::Status status = ApplyQuotas(*store_, running->tenants, next.tenants); !status.ok()) {
      log_.Error("reload refused", {{"error", std::string(status.message())}});
      return absl::FailedPreconditionError(std::string(status.message()));
    }
    if (next.namespaces != running->namespaces) {
      store_->SetNamespaceRules(NamespaceRulesOf(next));
    }
    log_.SetLevel(next.log_level);
    {
      absl::MutexLock lock(&mutex_);
      config_ = std::make_shared<const Config>(std::move(next));
    }
    log_.Info("configuration reloaded", {{"changed", difference.live.size()},
                                         {"needs_restart", difference.needs_restart.size()}});
    return AdminHooks::ReloadResult{difference.live, difference.needs_restart};
  }

  std::shared_ptr<const Config> CurrentConfig() const {
    absl::MutexLock lock(&mutex_);
    return config_;
  }

  const ConfigRequest request_;
  const std::string version_;
  Log& log_;
  const ServiceNotify& notify_;
  mutable absl::Mutex mutex_;
  // Shared with readers that look at one configuration while the next one takes its place.
  std::shared_ptr<const Config> config_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> reloading_{false};
  bool stopped_ = false;

  // Destroyed from the last to the first; each borrows what stands above it.
  Descriptor lock_;
  std::unique_ptr<LearntFile> learnt_;  // nullptr: the policy does not learn
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<LocalTier> local_;  // nullptr: there is none
  std::vector<std::unique_ptr<PoolHost>> pools_;
  std::unique_ptr<ReportingSlabSource> slabs_;
  ObserverRelay relay_;
  std::unique_ptr<KeptMemory> keeper_;  // nullptr: DRAM ends with the process
  std::unique_ptr<BlockStore> store_;
  std::unique_ptr<GpuHandoff> gpu_;  // nullptr: GPU regions are not served
  std::unique_ptr<Front> front_;
  EventPublishers publishers_{log_};
  std::unique_ptr<Ticker> ticker_;
  std::unique_ptr<LearntKeeper> learnt_keeper_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Core>> Core::Start(Options options,
                                                  Log& log,
                                                  const ServiceNotify& notify) {
  auto core = std::make_unique<DaemonCore>(std::move(options), log, notify);
  if (absl::Status status = core->Build(); !status.ok()) {
    return status;
  }
  return core;
}

}  // namespace terrace
