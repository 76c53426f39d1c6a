#include "tools/bench/torture_run.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "daemon/thread_executor.h"
#include "tiers/os/async_io.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/segment_tier.h"
#include "tiers/vocab/clock.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kDramBytes = uint64_t{64} << 20;
// Small, so that opening, sealing and reclaim never rest: the tier that is there decides.
constexpr uint64_t kSegmentBytes = uint64_t{8} << 20;
constexpr uint32_t kKeptBlocks = 1250;  // all sets together are more than DRAM holds
constexpr uint64_t kRecordBytes = ChurnedSet::kMaxPayloadBytes + 4096;
constexpr uint32_t kOverfullChecked = 400;
constexpr uint32_t kDeletedChecked = 200;
constexpr std::chrono::seconds kReadyLimit{120};
constexpr std::chrono::seconds kLoadLimit{5};
constexpr std::chrono::milliseconds kGlance{1};
constexpr std::chrono::milliseconds kEndPatience{2000};  // for a process that is being killed
constexpr uint64_t kMostDamagedBytes = 16;

SegmentTierOptions TierOptions() {
  SegmentTierOptions tier;
  tier.max_payload_bytes = ChurnedSet::kMaxPayloadBytes;
  return tier;
}

}  // namespace

// Shared by the main thread and those that drive the sets.
struct TortureRun::Life {
  uint64_t number = 0;
  LifePhase phase = LifePhase::kLoad;
  KillPlan plan;
  bool judged_first = true;                // everything is looked for before the load begins
  bool ends_softly = false;                // not killed at all
  std::chrono::microseconds load_time{0};  // until counting begins
  Stopwatch watch;
  PidDescriptor process;
  std::atomic<uint32_t> loading{0};  // sets that are
  std::atomic<bool> over{false};     // sets shall end
  std::atomic<bool> ended_by_load{false};
  double ready = 0;  // written by the first set, read after its end

  [[nodiscard]] bool Over() const { return over.load() || process.Exited(); }
  void Kill() const { syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0); }
};

absl::StatusOr<std::unique_ptr<TortureRun>> TortureRun::Begin(const BenchOptions& bench,
                                                              Report& report,
                                                              TortureFigures& figures) {
  std::unique_ptr<TortureRun> run(new TortureRun(bench, report, figures));
  absl::Status status = run->MakeTier();
  if (status.ok()) {
    status = run->MakeSets();
  }
  if (status.ok()) {
    status = run->WithAll([](ChurnedSet& set, uint64_t full_bytes) {
      absl::Status put;
      while (put.ok() && !Interrupted() && set.LocalFileBytes() < full_bytes) {
        put = set.PutMany();
      }
      return put;
    });
  }
  if (!status.ok()) {
    return status;
  }
  return run;
}

absl::Status TortureRun::MakeTier() {
  capacity_bytes_ = LeastTierCapacity(TierOptions());
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = DaemonProcess::Prepare(
      bench_, kDramBytes, capacity_bytes_,
      {"local.max_block=" + std::to_string(ChurnedSet::kMaxPayloadBytes) + "B",
       "local.free_reserve=0B", "local.scrub_per_second=1MiB",
       "metrics.listen=off"});  // their server takes a second to stop
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  // The daemon serves from no folder that is open to others.
  const std::filesystem::path folder = std::filesystem::path(daemon_->local_dir()).parent_path();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
  const std::unique_ptr<AsyncIo> io = MakeThreadedIo({}, BootClock());
  absl::StatusOr<std::unique_ptr<Executor>> executor =
      MakeThreadExecutor({.threads = 2, .name = "make-tier"});
  if (!executor.ok()) {
    return executor.status();
  }
  SegmentTierOptions options = TierOptions();
  options.path = daemon_->local_dir();
  options.segment_bytes = kSegmentBytes;
  options.capacity_bytes = capacity_bytes_;
  SegmentTierParts parts;
  parts.files = &KernelFileSystem();
  parts.io = io.get();
  parts.clock = &BootClock();
  parts.hashing = executor->get();
  parts.maintenance = executor->get();
  return OpenSegmentTier(options, parts).status();
}

absl::Status TortureRun::MakeSets() {
  const auto make = [this](const std::string& name, uint32_t blocks, BlockLedger::Promise promise,
                           std::vector<std::unique_ptr<ChurnedSet>>& out) {
    absl::StatusOr<std::unique_ptr<ChurnedSet>> set = ChurnedSet::Create(
        {"bench/torture/" + name, bench_.seed * 2 * kSets + sets_made_++, blocks, promise});
    if (!set.ok()) {
      return set.status();
    }
    out.push_back(*std::move(set));
    return absl::OkStatus();
  };
  const auto overfull = static_cast<uint32_t>(2 * capacity_bytes_ / kRecordBytes / kSets);
  absl::Status status;
  for (uint32_t i = 0; i < kSets; ++i) {
    const std::string number = std::to_string(i);
    status.Update(
        make("overfull/" + number, overfull, BlockLedger::Promise::kMayForget, overfull_));
    status.Update(make("kept/" + number, kKeptBlocks, BlockLedger::Promise::kKeepsAll, kept_));
  }
  return status;
}

absl::Status TortureRun::WithAll(
    const std::function<absl::Status(ChurnedSet&, uint64_t full_bytes)>& work) {
  if (absl::Status status = daemon_->StartAgain(); !status.ok()) {
    return status;
  }
  std::vector<absl::Status> ends(overfull_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < overfull_.size(); ++i) {
    threads.emplace_back([this, &work, &set = *overfull_[i], &end = ends[i]] {
      end = set.Connect(daemon_->runtime_dir(), kReadyLimit);
      if (end.ok()) {
        end = work(set, capacity_bytes_ - kSegmentBytes);
      }
      set.Disconnect();
    });
  }
  absl::Status status;
  for (size_t i = 0; i < threads.size(); ++i) {
    threads[i].join();
    status.Update(ends[i]);
  }
  daemon_->Stop();
  return Interrupted() ? absl::CancelledError("interrupted") : status;
}

absl::Status TortureRun::Empty() {
  overfilled_ = false;
  return WithAll([](ChurnedSet& set, uint64_t /*full_bytes*/) { return set.DeleteAll(); });
}

absl::Status TortureRun::Finish() {
  Life life;
  life.ends_softly = true;
  return Served(life);
}

absl::Status TortureRun::Served(Life& life) {
  const absl::StatusOr<KillReport> end = RunLife(life);
  if (!end.ok()) {
    return end.status();
  }
  if (Interrupted()) {
    return absl::CancelledError("interrupted");
  }
  return life.ready > 0
             ? absl::OkStatus()
             : absl::FailedPreconditionError("terraced does not serve:\n" + daemon_->LogEnd());
}

absl::Status TortureRun::Live(uint64_t number) {
  random_.seed(bench_.seed * 0x9E3779B97F4A7C15 + number);
  if (Below(8) == 0) {
    DamageIndex();
  }
  Life life;
  life.number = number;
  const uint64_t phase = Below(20);
  life.phase = phase < 6 ? LifePhase::kStart : phase < 16 ? LifePhase::kLoad : LifePhase::kStop;
  life.plan = ChoosePlan(life.phase);
  life.judged_first = Below(4) > 0;
  life.load_time = std::chrono::microseconds(Below(150'000));
  const absl::StatusOr<KillReport> end = RunLife(life);
  if (!end.ok()) {
    return end.status();
  }
  Judge(life, *end);
  return Interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus();
}

KillPlan TortureRun::ChoosePlan(LifePhase phase) {
  KillPlan plan;
  plan.start = phase == LifePhase::kStop ? KillPlan::Start::kSoftly : KillPlan::Start::kRunning;
  const uint64_t unit = Below(10);
  if (unit < 4) {
    constexpr uint64_t kMost[kLifePhases] = {4000, 1500, 400};
    plan.unit = KillUnit::kFileCall;
    plan.count = 1 + Below(kMost[static_cast<size_t>(phase)]);
    plan.side = Below(2) == 0 ? KillPlan::Side::kBefore : KillPlan::Side::kAfter;
  } else if (unit < 7) {
    constexpr uint64_t kMost[kLifePhases] = {12'000, 8000, 3000};
    plan.unit = KillUnit::kSystemCall;
    plan.count = 1 + Below(kMost[static_cast<size_t>(phase)]);
  } else {
    // As likely within the first hundred thousand as within the last hundred million.
    plan.unit = KillUnit::kInstruction;
    plan.count = uint64_t{1} << (16 + Below(11));
    plan.count += Below(plan.count);
  }
  return plan;
}

absl::StatusOr<KillReport> TortureRun::RunLife(Life& life) {
  if (absl::Status status = daemon_->Launch(); !status.ok()) {
    return status;
  }
  absl::StatusOr<PidDescriptor> process = PidDescriptor::Open(daemon_->pid());
  if (!process.ok()) {
    return process.status();
  }
  life.process = *std::move(process);
  life.watch = Stopwatch();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kSets; ++i) {
    threads.emplace_back([this, i, &life] { Drive(i, life); });
  }
  absl::StatusOr<KillReport> end = KillReport{};
  const bool counted_from_start = life.phase == LifePhase::kStart && !life.ends_softly;
  while (!counted_from_start && life.loading.load() < kSets && !life.process.Exited()) {
    std::this_thread::sleep_for(kGlance);
  }
  if (life.ends_softly) {
    life.over.store(true);
  } else {
    if (!counted_from_start) {
      std::this_thread::sleep_for(life.load_time);
    }
    end = KillAt(daemon_->pid(), life.plan);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (life.ends_softly) {
    daemon_->Stop();
  } else {
    daemon_->Kill();  // it has been reaped: only takes note
  }
  TakeFindings(life.number, life.phase);
  CheckCapacity();
  return end;
}

absl::Status TortureRun::BeginDriving(size_t place, Life& life) {
  ChurnedSet& set = SetAt(place);
  absl::Status status = absl::UnavailableError("");
  while (absl::IsUnavailable(status) && !life.Over() && !Interrupted() &&
         life.watch.seconds() < std::chrono::duration<double>(kReadyLimit).count()) {
    status = set.Connect(daemon_->runtime_dir(), std::chrono::milliseconds(50));
  }
  if (status.ok() && place == 0) {
    life.ready = life.watch.seconds();
  }
  if (!status.ok() || !life.judged_first) {
    return status;
  }
  status = set.AwaitRecovery();
  if (status.ok()) {
    status = set.Verify(overfilled_ ? kOverfullChecked : set.blocks());
  }
  if (status.ok() && !overfilled_) {
    // None of them may come back.
    ChurnedSet& deleted = *overfull_[place];
    status = deleted.Connect(daemon_->runtime_dir(), kReadyLimit);
    if (status.ok()) {
      status = deleted.Verify(kDeletedChecked);
    }
    deleted.Disconnect();
  }
  return status;
}

void TortureRun::Drive(size_t place, Life& life) {
  ChurnedSet& set = SetAt(place);
  absl::Status status = BeginDriving(place, life);
  life.loading.fetch_add(1);
  const Stopwatch load;
  while (status.ok() && !life.Over() && !Interrupted() &&
         load.seconds() < std::chrono::duration<double>(kLoadLimit).count()) {
    status = set.Turn();
  }
  set.Disconnect();
  if (life.ends_softly || life.phase == LifePhase::kStop) {
    return;
  }
  // Nothing loads this life any more: if it does not end now, it is ended.
  pollfd end{life.process.get(), POLLIN, 0};
  if (poll(&end, 1, static_cast<int>(kEndPatience.count())) == 0) {
    life.ended_by_load.store(true);
    life.Kill();
  }
}

void TortureRun::Judge(const Life& life, const KillReport& end) {
  const bool killed = WIFSIGNALED(end.wait_status) && WTERMSIG(end.wait_status) == SIGKILL;
  if (killed) {
    ++figures_.kills;
    ++figures_.by_phase[static_cast<size_t>(life.phase)];
    const KillUnit unit = life.ended_by_load.load() ? KillUnit::kTime : end.unit;
    ++figures_.by_unit[static_cast<size_t>(unit)];
  } else if (life.phase == LifePhase::kStop && WIFEXITED(end.wait_status) &&
             WEXITSTATUS(end.wait_status) == 0) {
    ++figures_.stops;
  } else {
    report_.AddError("terraced ended by itself, status " + std::to_string(end.wait_status) + ": " +
                     daemon_->LogEnd());
  }
  if (life.ready > 0 && life.phase != LifePhase::kStart) {
    figures_.ready.push_back(life.ready);
  }
}

void TortureRun::TakeFindings(uint64_t number, LifePhase phase) {
  const std::string where =
      std::string(overfilled_ ? "overfull" : "kept") + ", life " + std::to_string(number) + ": ";
  ChurnedSet::Findings& sum = figures_.blocks;
  for (size_t i = 0; i < size_t{2} * kSets; ++i) {
    const ChurnedSet::Findings found = (i < kSets ? kept_ : overfull_)[i % kSets]->TakeFindings();
    report_.AddWrongBytes(found.wrong_bytes);
    for (const std::string& error : found.errors) {
      report_.AddError(where + error);
    }
    const std::pair<uint64_t, const char*> faults[] = {
        {found.wrong_bytes, " wrong bytes"},
        {found.lost, " blocks that survive are missing"},
        {found.came_back, " deleted blocks are back"},
        {phase == LifePhase::kStop ? 0 : found.tier_faults, " blocks refused for a tier fault"}};
    for (const auto& [count, text] : faults) {
      if (count > 0) {
        report_.AddError(where + std::to_string(count) + text);
      }
    }
    sum.Add(found);
  }
}

void TortureRun::CheckCapacity() {
  uint64_t bytes = 0;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(daemon_->local_dir(), gone)) {
    bytes += entry.path().filename().string().starts_with("segment-") ? entry.file_size(gone) : 0;
  }
  figures_.most_file_bytes = std::max(figures_.most_file_bytes, bytes);
  if (bytes > capacity_bytes_ + kSegmentBytes) {
    report_.AddError("the local tier has grown to " + std::to_string(bytes) + " bytes");
  }
}

void TortureRun::DamageIndex() {
  std::vector<std::string> files;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(daemon_->index_dir(), gone)) {
    if (entry.is_regular_file(gone) && entry.file_size(gone) > 0) {
      files.push_back(entry.path().string());
    }
  }
  const uint64_t kind = Below(4);
  if (files.empty()) {
    return;
  }
  ++figures_.damaged_indexes;
  std::sort(files.begin(), files.end());
  const std::string& file = files[Below(files.size())];
  const uint64_t bytes = std::filesystem::file_size(file, gone);
  if (kind == 0) {
    std::filesystem::remove_all(daemon_->index_dir(), gone);
  } else if (kind == 1) {
    std::filesystem::remove(file, gone);
  } else if (kind == 2) {
    std::filesystem::resize_file(file, Below(bytes), gone);
  } else {
    std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t i = 1 + Below(kMostDamagedBytes); i > 0; --i) {
      damaged.seekp(static_cast<std::streamoff>(Below(bytes)));
      damaged.put(static_cast<char>(Below(256)));
    }
  }
}

}  // namespace terrace::bench
