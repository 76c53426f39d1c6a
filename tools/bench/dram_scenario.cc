// dram: what a lease, a copy out, a copy in and a single block cost, each beside the same bytes of
// plain memory.
//
// The set (2 MiB blocks, 256 MiB in all) is several times what caches hold and is gone through in
// order, so data are cold. Limits work on sealed memory of the arena's making and on the very same
// region, with as many threads as the daemon copies with.
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "tiers/copy/one_pass.h"
#include "tiers/dram/arena.h"
#include "tiers/os/descriptor.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kSetBytes = uint64_t{256} << 20;
constexpr uint32_t kSinglesAPair = 16;

class DramScenario {
 public:
  DramScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress), crew_(options.copy_threads) {}

  absl::Status Run();

 private:
  using Side = std::function<absl::StatusOr<double>()>;

  absl::Status Prepare();
  // Runs both sides options.pairs times in turn; `after` checks what the figure's side left.
  absl::Status Measure(const char* name,
                       const char* text,
                       const char* unit,
                       const Side& figure,
                       const Side& limit,
                       const std::function<absl::Status()>& after);
  absl::Status VerifyLanding();
  absl::Status VerifyAndForget();

  absl::StatusOr<double> ReadLeases();
  absl::StatusOr<double> ReadPlain();
  absl::StatusOr<double> GetRegion();
  absl::StatusOr<double> CopyOutPlain();
  absl::StatusOr<double> PutRegion();
  absl::StatusOr<double> CopyInPlain();
  absl::StatusOr<double> GetSingles();
  absl::StatusOr<double> CopySingles();

  [[nodiscard]] bool verify() const { return options_.verify == BenchOptions::Verify::kYes; }
  [[nodiscard]] double Rate(double seconds) const {
    return static_cast<double>(set_->bytes()) / seconds / 1e9;
  }
  [[nodiscard]] absl::Span<char> Plain(uint32_t i) const {
    return plain_.memory().subspan(i * set_->block_bytes(), set_->block_bytes());
  }

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  Crew crew_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;    // stored throughout; its region is where gets land
  std::unique_ptr<BlockSet> fresh_;  // stored and deleted again; its region is where puts come from
  SealedMemory plain_;               // as the daemon's slabs are made
  uint32_t single_ = 0;
};

absl::Status DramScenario::Prepare() {
  const uint64_t block_bytes = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  const uint64_t blocks =
      options_.blocks != 0 ? options_.blocks : std::max<uint64_t>(8, kSetBytes / block_bytes);
  if (blocks > kMaxKeysAGet || block_bytes > kMaxPayloadBytes) {
    return absl::InvalidArgumentError("--blocks: at most 16,384; --block-bytes: at most 64 MiB");
  }
  const auto count = static_cast<uint32_t>(blocks);
  // Room for both sets although slots don't fill slabs, and for leases of a batch.
  const uint64_t dram_bytes = std::max(uint64_t{3} << 29, 3 * blocks * SlotBytesFor(block_bytes));
  absl::StatusOr<DaemonProcess::Connected> connected =
      DaemonProcess::StartConnected(options_, dram_bytes);
  if (!connected.ok()) {
    return connected.status();
  }
  daemon_ = std::move(connected->daemon);
  session_ = std::move(connected->session);
  absl::StatusOr<std::unique_ptr<BlockSet>> set =
      BlockSet::Create(*session_, {"bench/dram", options_.seed, 0, count, block_bytes});
  absl::StatusOr<std::unique_ptr<BlockSet>> fresh = BlockSet::Create(
      *session_, {"bench/dram", options_.seed, uint64_t{1} << 40, count, block_bytes});
  absl::StatusOr<SealedMemory> plain =
      SealedMemory::Create({.bytes = blocks * block_bytes, .huge_pages = true, .touch_threads = 1});
  for (const absl::Status& status : {set.status(), fresh.status(), plain.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  set_ = *std::move(set);
  fresh_ = *std::move(fresh);
  plain_ = *std::move(plain);
  std::memset(plain_.memory().data(), 0x5A, plain_.memory().size());
  static_cast<void>(set_->Delete(0, count));  // of an earlier run against a daemon that goes on
  static_cast<void>(fresh_->Delete(0, count));
  if (absl::Status status = set_->Put(0, count); !status.ok()) {
    return status;
  }
  return set_->Verify(report_);  // maps the slabs, too
}

absl::Status DramScenario::Measure(const char* name,
                                   const char* text,
                                   const char* unit,
                                   const Side& figure,
                                   const Side& limit,
                                   const std::function<absl::Status()>& after) {
  progress_.Begin(text, options_.pairs);
  std::vector<Pair> pairs;
  for (uint32_t i = 0; i <= options_.pairs; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    const absl::StatusOr<double> plain = limit();
    const absl::StatusOr<double> ours = figure();
    for (const absl::Status& status : {plain.status(), ours.status(), after()}) {
      if (!status.ok()) {
        return status;
      }
    }
    if (i > 0) {  // the first turn warms page tables
      pairs.push_back({*ours, *plain});
    }
    progress_.Advance(i);
  }
  report_.AddPairs(name, text, unit, pairs);
  return absl::OkStatus();
}

// The next lease is on its way while the blocks of one are read.
absl::StatusOr<double> DramScenario::ReadLeases() {
  const uint32_t batch = set_->lease_batch();
  const Stopwatch watch;
  absl::Status begun = session_->BeginGetLease(set_->Chain(0, batch));
  for (uint32_t begin = 0; begin < set_->count(); begin += batch) {
    absl::StatusOr<Completion> got = begun.ok() ? session_->AwaitLease() : begun;
    if (!got.ok()) {
      return got.status();
    }
    if (absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get by lease"); !status.ok()) {
      return status;
    }
    if (begin + batch < set_->count()) {
      begun = session_->BeginGetLease(set_->Chain(begin + batch, batch));
    }
    for (uint32_t i = 0; i < (*got)->key_count; ++i) {
      KeepSum(SumBytes({static_cast<const char*>((*got)->data[i]), (*got)->payload_bytes[i]}));
    }
    if (absl::Status status = session_->Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
  }
  return Rate(watch.seconds());
}

absl::StatusOr<double> DramScenario::ReadPlain() {
  const Stopwatch watch;
  for (uint32_t i = 0; i < set_->count(); ++i) {
    KeepSum(SumBytes(Plain(i)));
  }
  return Rate(watch.seconds());
}

absl::StatusOr<double> DramScenario::GetRegion() {
  const Stopwatch watch;
  absl::StatusOr<Completion> got = session_->GetIntoRegion(set_->Chain(0, set_->count()), {});
  const double seconds = watch.seconds();
  if (!got.ok()) {
    return got.status();
  }
  if (absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get into a region"); !status.ok()) {
    return status;
  }
  return Rate(seconds);
}

absl::StatusOr<double> DramScenario::CopyOutPlain() {
  const Stopwatch watch;
  crew_.Run(set_->count(), [this](uint32_t i) {
    const absl::Span<char> to = set_->Place(i);
    const Piece piece{to.data(), to.size()};
    CopyOut(Plain(i), {&piece, 1});
  });
  return Rate(watch.seconds());
}

absl::StatusOr<double> DramScenario::PutRegion() {
  const Stopwatch watch;
  const absl::Status status = fresh_->Put(0, fresh_->count());
  const double seconds = watch.seconds();
  if (!status.ok()) {
    return status;
  }
  return Rate(seconds);
}

absl::StatusOr<double> DramScenario::CopyInPlain() {
  const Stopwatch watch;
  crew_.Run(set_->count(), [this](uint32_t i) {
    std::memcpy(Plain(i).data(), fresh_->Place(i).data(), fresh_->block_bytes());
  });
  return Rate(watch.seconds());
}

absl::StatusOr<double> DramScenario::GetSingles() {
  std::vector<double> times;
  for (uint32_t i = 0; i < kSinglesAPair; ++i) {
    const uint32_t block = (single_ + i) % set_->count();
    const KeyChain chain = set_->Chain(block, 1);
    const Stopwatch watch;
    absl::StatusOr<Completion> got = session_->GetIntoRegion(chain, {});
    times.push_back(watch.microseconds());
    if (!got.ok()) {
      return got.status();
    }
    if (absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get of one block");
        !status.ok()) {
      return status;
    }
  }
  // Afterwards: the other side's copies follow each other without a pause too.
  for (uint32_t i = 0; verify() && i < kSinglesAPair; ++i) {
    report_.AddWrongBytes(set_->WrongBytesInRegion((single_ + i) % set_->count()));
  }
  single_ += kSinglesAPair;
  return SpreadOf(times).median;
}

absl::StatusOr<double> DramScenario::CopySingles() {
  std::vector<double> times;
  for (uint32_t i = 0; i < kSinglesAPair; ++i) {
    // Half the set away from what the other side copies next: that stays cold.
    const uint32_t block = (single_ + i + set_->count() / 2) % set_->count();
    const absl::Span<char> to = set_->Place(block);
    const Piece piece{to.data(), to.size()};
    const Stopwatch watch;
    CopyOut(Plain(block), {&piece, 1});
    times.push_back(watch.microseconds());
  }
  return SpreadOf(times).median;
}

absl::Status DramScenario::VerifyLanding() {
  if (verify()) {
    for (uint32_t i = 0; i < set_->count(); ++i) {
      report_.AddWrongBytes(set_->WrongBytesInRegion(i));
    }
  }
  return absl::OkStatus();
}

absl::Status DramScenario::VerifyAndForget() {
  if (verify()) {
    if (absl::Status status = fresh_->Verify(report_); !status.ok()) {
      return status;
    }
  }
  return fresh_->Delete(0, fresh_->count());
}

absl::Status DramScenario::Run() {
  if (absl::Status status = Prepare(); !status.ok()) {
    return status;
  }
  const auto nothing = [] { return absl::OkStatus(); };
  absl::Status status = Measure(
      "lease_read", "lease and read every byte, against reading plain memory", "GB/s",
      [this] { return ReadLeases(); }, [this] { return ReadPlain(); }, nothing);
  if (status.ok()) {
    status = Measure(
        "get_region", "get into a region, against the best copy", "GB/s",
        [this] { return GetRegion(); }, [this] { return CopyOutPlain(); },
        [this] { return VerifyLanding(); });
  }
  if (status.ok()) {
    status = Measure(
        "put_region", "put from a region, checksummed, against memcpy", "GB/s",
        [this] { return PutRegion(); }, [this] { return CopyInPlain(); },
        [this] { return VerifyAndForget(); });
  }
  if (status.ok()) {
    status = Measure(
        "get_one", "one block into a region, against its copy alone", "us",
        [this] { return GetSingles(); }, [this] { return CopySingles(); }, nothing);
  }
  if (status.ok()) {
    report_.AddNote("copy kernel " + std::string(CopyKernelName(ActiveCopyKernel())) + ", " +
                    std::to_string(crew_.threads()) + " copy threads, " +
                    std::string(PageKindName(plain_.page_kind())) + " pages, blocks of " +
                    std::to_string(set_->block_bytes() >> 10U) + " KiB, " +
                    std::to_string(options_.pairs) + " pairs");
  }
  return status;
}

}  // namespace

absl::Status RunDram(const BenchOptions& options, Report& report, Progress& progress) {
  return DramScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
