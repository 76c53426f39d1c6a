// Another tenant that stores as fast as it can, and what a tenant with a guarantee notices of it:
// whether its blocks stay, and how long its gets take.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/lease_times.h"
#include "tools/bench/memory.h"
#include "tools/bench/neighbour.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kDramBytes = uint64_t{1} << 30;
constexpr uint64_t kSetBytes = uint64_t{128} << 20;
constexpr uint64_t kFloodOfDram = 4;  // times the DRAM are stored before the set is looked for
constexpr gid_t kNeighbourGroup = 65534;
constexpr auto kFloodLimit = std::chrono::minutes(5);

class NeighbourScenario {
 public:
  NeighbourScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  // Of the bytes, see Neighbour.
  absl::StatusOr<ChildProcess> Start(uint64_t bytes);
  absl::Status LookAfterFlood();
  struct Gets {
    double lease_p99 = 0;    // us
    double region_rate = 0;  // GB/s
  };
  absl::StatusOr<Gets> Measure();
  // Threads of this process copy memory meanwhile, as many as the daemon has: what any load of that
  // kind costs on this machine.
  absl::StatusOr<Gets> MeasureBesideCopies();
  absl::Status MeasureGets();
  absl::StatusOr<double> RegionRate();  // GB/s

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
  uint64_t neighbours_ = 0;
};

absl::Status NeighbourScenario::Prepare() {
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError("--runtime: two tenants need a daemon of the bench's own");
  }
  if (geteuid() != 0) {
    return absl::FailedPreconditionError("only root can be two tenants");
  }
  const uint64_t block_bytes = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  const auto count = static_cast<uint32_t>(
      options_.blocks != 0 ? options_.blocks : std::max<uint64_t>(8, kSetBytes / block_bytes));
  const uint64_t dram_bytes = std::max(kDramBytes, 8 * count * block_bytes);
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = DaemonProcess::Prepare(
      options_, dram_bytes, 0, {},
      absl::StrCat("[[tenant]]\nalias = \"measured\"\ngids = [", getegid(), "]\nguaranteed = \"",
                   (options_.dram_bytes != 0 ? options_.dram_bytes : dram_bytes) / 2,
                   "B\"\n[[tenant]]\nalias = \"neighbour\"\ngids = [", kNeighbourGroup, "]\n"));
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  if (absl::Status status = daemon_->StartAgain(); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect(daemon_->runtime_dir());
  if (!session.ok()) {
    return session.status();
  }
  session_ = *std::move(session);
  absl::StatusOr<std::unique_ptr<BlockSet>> set =
      BlockSet::Create(*session_, {"bench/neighbour", options_.seed, 0, count, block_bytes});
  if (!set.ok()) {
    return set.status();
  }
  set_ = *std::move(set);
  return set_->Put(0, count);
}

absl::StatusOr<ChildProcess> NeighbourScenario::Start(uint64_t bytes) {
  Neighbour neighbour;
  neighbour.runtime_dir = daemon_->runtime_dir();
  neighbour.group = kNeighbourGroup;
  neighbour.bytes = bytes;
  neighbour.block_bytes = set_->block_bytes();
  neighbour.first = neighbours_++ << 40U;
  return StartNeighbour(neighbour, daemon_->folder() + "/neighbour");
}

absl::Status NeighbourScenario::LookAfterFlood() {
  progress_.Begin("a neighbour stores four times the DRAM", 1);
  absl::StatusOr<ChildProcess> neighbour = Start(kFloodOfDram * daemon_->own_dram_bytes());
  if (!neighbour.ok()) {
    return neighbour.status();
  }
  const auto until = std::chrono::steady_clock::now() + kFloodLimit;
  while (neighbour->Running()) {
    if (Interrupted() || std::chrono::steady_clock::now() > until) {
      return Interrupted() ? absl::CancelledError("interrupted")
                           : absl::DeadlineExceededError("the neighbour is not done");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const absl::StatusOr<Completion> probed =
      session_->Probe(set_->Chain(0, set_->count()), std::chrono::milliseconds(0));
  if (!probed.ok()) {
    return probed.status();
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < (*probed)->key_count; ++i) {
    kept += (*probed)->states[i] % 16 == TERRACE_KEY_READY ? 1 : 0;
  }
  if (kept < set_->count()) {
    report_.AddError(absl::StrCat(set_->count() - kept, " blocks within the guarantee are gone"));
  }
  report_.AddAgainst("kept", "blocks within the guarantee that a neighbour's flood left in DRAM",
                     "%", 100, {100.0 * kept / set_->count()});
  return absl::OkStatus();
}

absl::StatusOr<double> NeighbourScenario::RegionRate() {
  const Stopwatch watch;
  absl::StatusOr<Completion> got = session_->GetIntoRegion(set_->Chain(0, set_->count()), {});
  const double seconds = watch.seconds();
  if (!got.ok()) {
    return got.status();
  }
  const absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get into a region");
  return status.ok() ? absl::StatusOr<double>(static_cast<double>(set_->bytes()) / seconds / 1e9)
                     : status;
}

absl::StatusOr<NeighbourScenario::Gets> NeighbourScenario::Measure() {
  const absl::StatusOr<double> p99 = LeaseP99(*set_);
  const absl::StatusOr<double> rate = RegionRate();
  if (!p99.ok() || !rate.ok()) {
    return p99.ok() ? rate.status() : p99.status();
  }
  return Gets{*p99, *rate};
}

absl::StatusOr<NeighbourScenario::Gets> NeighbourScenario::MeasureBesideCopies() {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < options_.copy_threads; ++i) {
    threads.emplace_back([this, &stop] {
      const std::vector<char> from(set_->block_bytes(), 'f');
      std::vector<char> to(set_->block_bytes());
      while (!stop) {
        std::memcpy(to.data(), from.data(), to.size());
        KeepSum(static_cast<uint64_t>(to[to.size() / 2]));
      }
    });
  }
  absl::StatusOr<Gets> gets = Measure();
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  return gets;
}

absl::Status NeighbourScenario::MeasureGets() {
  progress_.Begin("gets beside a neighbour that stores", options_.pairs);
  std::vector<Pair> leases;
  std::vector<Pair> copies;
  std::vector<double> alone;
  for (uint32_t i = 0; i < options_.pairs; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    const absl::StatusOr<Gets> undisturbed = Measure();
    const absl::StatusOr<Gets> beside_copies = MeasureBesideCopies();
    absl::StatusOr<ChildProcess> neighbour = Start(0);
    if (!neighbour.ok()) {
      return neighbour.status();
    }
    const absl::StatusOr<Gets> beside_neighbour = Measure();
    neighbour->Kill();
    for (const absl::Status& status :
         {undisturbed.status(), beside_copies.status(), beside_neighbour.status()}) {
      if (!status.ok()) {
        return status;
      }
    }
    alone.push_back(undisturbed->lease_p99);
    leases.push_back({beside_neighbour->lease_p99, beside_copies->lease_p99});
    copies.push_back({beside_neighbour->region_rate, beside_copies->region_rate});
    progress_.Advance(i);
  }
  report_.AddPairs("get_p99", "lease of one block, p99, beside it; beside plain copies", "us",
                   leases);
  report_.AddValue("get_p99_alone", "the same with nothing beside it", "us",
                   SpreadOf(alone).median);
  report_.AddPairs("get_region", "gets into a region beside it; beside plain copies", "GB/s",
                   copies);
  return absl::OkStatus();
}

absl::Status NeighbourScenario::Run() {
  for (const auto& step : {&NeighbourScenario::Prepare, &NeighbourScenario::LookAfterFlood,
                           &NeighbourScenario::MeasureGets}) {
    if (absl::Status status = (this->*step)(); !status.ok()) {
      return status;
    }
  }
  if (options_.verify == BenchOptions::Verify::kYes) {
    for (uint32_t i = 0; i < set_->count(); ++i) {
      report_.AddWrongBytes(set_->WrongBytesInRegion(i));
    }
  }
  report_.AddNote("the neighbour is killed after each pair, with a put under way");
  return absl::OkStatus();
}

}  // namespace

absl::Status RunNeighbour(const BenchOptions& options, Report& report, Progress& progress) {
  return NeighbourScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
