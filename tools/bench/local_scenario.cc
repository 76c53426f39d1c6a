// local: what a get from the local tier and a put through to it cost, each beside raw O_DIRECT
// transfers of the same size and number at a time on the same file system.
//
// The set is twice as large as DRAM and is gone through in order, so that every block that a get
// delivers has just been read and verified; the next blocks are prefetched while these are
// delivered. A pass of puts is one call, as for a prompt of so many blocks, and waits for
// LEVEL_LOCAL_WRITTEN: first into segments that are made for it, beside raw writes to a file that
// is preallocated as they are, then, when the tier is full, into files that are used again, beside
// raw writes over what a file holds. Raw transfers are as many at a time as a get has blocks.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "tiers/dram/arena.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/lease_times.h"
#include "tools/bench/paired_sides.h"
#include "tools/bench/raw_transfers.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kDramBytes = uint64_t{512} << 20;
constexpr uint64_t kLocalBytes = uint64_t{8} << 30;
constexpr uint64_t kPassBytes = uint64_t{256} << 20;  // of one side of a pair
constexpr uint32_t kPassesOfSet = 4;                  // the set is so many passes long
constexpr uint32_t kMostTogether = 32;

class LocalScenario {
 public:
  LocalScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  absl::Status Measure(const char* name, const char* text, const Side& figure, const Side& limit);
  absl::StatusOr<double> ColdGet();
  absl::StatusOr<double> RawRead();
  absl::StatusOr<double> PutThrough();
  absl::StatusOr<double> RawWriteFresh();
  absl::StatusOr<double> RawWriteAgain();
  absl::Status MeasurePuts();
  absl::Status FillTier();
  void BeginAmplification();
  void AddAmplification(const char* name, const char* text);
  absl::Status MeasureHotHits();
  absl::Status GetTogether(BlockSet& set, uint32_t begin);

  [[nodiscard]] double Rate(double seconds) const {
    return static_cast<double>(pass_blocks_) * static_cast<double>(block_bytes_) / seconds / 1e9;
  }

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  uint64_t block_bytes_ = 0;
  uint32_t pass_blocks_ = 0;
  uint32_t together_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
  std::unique_ptr<BlockSet> fresh_;  // other blocks for every pass
  std::unique_ptr<RawTransfers> raw_;
  uint32_t get_at_ = 0;
  uint32_t raw_at_ = 0;
  uint64_t put_passes_ = 0;
  uint64_t put_bytes_ = 0;            // by passes
  uint64_t put_bytes_before_ = 0;     // since when amplification is counted
  uint64_t device_bytes_before_ = 0;  // likewise
};

absl::Status LocalScenario::Prepare() {
  block_bytes_ = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError(
        "--runtime: this scenario needs a daemon of its own, whose folder it can write to");
  }
  absl::StatusOr<DaemonProcess::Connected> connected =
      DaemonProcess::StartConnected(options_, kDramBytes, kLocalBytes);
  if (!connected.ok()) {
    return connected.status();
  }
  daemon_ = std::move(connected->daemon);
  session_ = std::move(connected->session);
  const uint64_t leasable = session_->LeaseLimitBytes() / SlotBytesFor(block_bytes_) / 2;
  together_ = static_cast<uint32_t>(std::clamp<uint64_t>(leasable, 1, kMostTogether));
  pass_blocks_ = static_cast<uint32_t>(
                     std::clamp<uint64_t>(kPassBytes / block_bytes_, together_, kMaxKeysAGet)) /
                 together_ * together_;
  const uint32_t count = pass_blocks_ * kPassesOfSet;
  absl::StatusOr<std::unique_ptr<BlockSet>> set =
      BlockSet::Create(*session_, {"bench/local", options_.seed, 0, count, block_bytes_});
  if (!set.ok()) {
    return set.status();
  }
  set_ = *std::move(set);
  absl::StatusOr<std::unique_ptr<BlockSet>> fresh = BlockSet::Create(
      *session_, {"bench/local", options_.seed, uint64_t{1} << 32, pass_blocks_, block_bytes_});
  if (!fresh.ok()) {
    return fresh.status();
  }
  fresh_ = *std::move(fresh);
  absl::StatusOr<std::unique_ptr<RawTransfers>> raw = RawTransfers::Create(
      {daemon_->folder() + "/raw", SlotBytesFor(block_bytes_), count, together_});
  if (!raw.ok()) {
    return raw.status();
  }
  raw_ = *std::move(raw);
  progress_.Begin("writing the set", count);
  for (uint32_t begin = 0; begin < count; begin += together_) {
    if (absl::Status s = set_->Put(begin, together_, TERRACE_LEVEL_LOCAL_SYNCED); !s.ok()) {
      return s;
    }
    progress_.Advance(begin);
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
  }
  return absl::OkStatus();
}

absl::Status LocalScenario::Measure(const char* name,
                                    const char* text,
                                    const Side& figure,
                                    const Side& limit) {
  return MeasureSides(
      {name, text, options_.pairs, figure, limit, [this](double seconds) { return Rate(seconds); }},
      report_, progress_);
}

absl::Status LocalScenario::GetTogether(BlockSet& set, uint32_t begin) {
  const KeyChain chain = set.Chain(begin, together_);
  absl::StatusOr<Completion> got = set.session().GetLease(chain, {}, ClientSession::Pending::kWait);
  if (!got.ok()) {
    return got.status();
  }
  if (absl::Status all = AllOutcomes(**got, TERRACE_GET_OK, "get"); !all.ok()) {
    report_.AddError(std::string(all.message()));
  }
  return set.session().Release((*got)->lease, {});
}

absl::StatusOr<double> LocalScenario::ColdGet() {
  const Stopwatch watch;
  for (uint32_t i = 0; i < pass_blocks_; i += together_) {
    // As an engine does that knows the rest of its prompt: the next blocks are on their way while
    // these are delivered.
    const uint32_t begin = (get_at_ + i) % set_->count();
    absl::Status status;
    if (i + together_ < pass_blocks_) {
      status = session_->Prefetch(set_->Chain((begin + together_) % set_->count(), together_));
    }
    status.Update(GetTogether(*set_, begin));
    if (!status.ok()) {
      return status;
    }
  }
  const double seconds = watch.seconds();
  get_at_ = (get_at_ + pass_blocks_) % set_->count();
  return seconds;
}

absl::StatusOr<double> LocalScenario::RawRead() {
  const uint32_t begin = std::exchange(raw_at_, (raw_at_ + pass_blocks_) % set_->count());
  return raw_->Read(begin, pass_blocks_);
}

absl::StatusOr<double> LocalScenario::PutThrough() {
  fresh_->Renew(++put_passes_ << 32);
  const Stopwatch watch;
  if (absl::Status s = fresh_->Put(0, pass_blocks_, TERRACE_LEVEL_LOCAL_WRITTEN); !s.ok()) {
    return s;
  }
  const double seconds = watch.seconds();
  put_bytes_ += uint64_t{pass_blocks_} * block_bytes_;
  return seconds;
}

absl::StatusOr<double> LocalScenario::RawWriteFresh() {
  if (absl::Status status = raw_->Renew(); !status.ok()) {
    return status;
  }
  return raw_->Write(0, pass_blocks_);
}

absl::StatusOr<double> LocalScenario::RawWriteAgain() {
  const uint32_t begin = std::exchange(raw_at_, (raw_at_ + pass_blocks_) % set_->count());
  return raw_->Write(begin, pass_blocks_);
}

absl::Status LocalScenario::FillTier() {
  const uint64_t capacity = options_.local_bytes != 0 ? options_.local_bytes : kLocalBytes;
  progress_.Begin("filling the tier", capacity);
  while (put_bytes_ < capacity) {
    if (absl::Status status = PutThrough().status(); !status.ok()) {
      return status;
    }
    progress_.Advance(put_bytes_);
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
  }
  return raw_->Write(0, set_->count()).status();
}

void LocalScenario::BeginAmplification() {
  device_bytes_before_ = daemon_->DeviceWrittenBytes();
  put_bytes_before_ = put_bytes_;
}

void LocalScenario::AddAmplification(const char* name, const char* text) {
  std::this_thread::sleep_for(std::chrono::seconds(2));  // the index follows within a second
  const uint64_t device_bytes = daemon_->DeviceWrittenBytes();
  report_.AddValue(name, text, "x",
                   static_cast<double>(device_bytes - device_bytes_before_) /
                       static_cast<double>(put_bytes_ - put_bytes_before_));
}

absl::Status LocalScenario::MeasurePuts() {
  BeginAmplification();
  absl::Status status = Measure(
      "put_through", "blocks into DRAM and the local tier, written",
      [this] { return PutThrough(); }, [this] { return RawWriteFresh(); });
  if (!status.ok()) {
    return status;
  }
  AddAmplification("write_amplification", "bytes on the device for a byte of payload");
  if (absl::Status filled = FillTier(); !filled.ok()) {
    return filled;
  }
  BeginAmplification();
  status = Measure(
      "put_through_full", "the same, the tier full and its files used again",
      [this] { return PutThrough(); }, [this] { return RawWriteAgain(); });
  if (status.ok()) {
    AddAmplification("write_amplification_full",
                     "bytes on the device for a byte of payload, the tier full");
  }
  return status;
}

// ---------------------------------------------------------------- DRAM beside a busy drive

absl::Status LocalScenario::MeasureHotHits() {
  const auto count = static_cast<uint32_t>(std::min<uint64_t>(16, pass_blocks_));
  absl::StatusOr<std::unique_ptr<BlockSet>> hot =
      BlockSet::Create(*session_, {"bench/local-hot", options_.seed, 0, count, block_bytes_});
  absl::StatusOr<std::unique_ptr<ClientSession>> other =
      ClientSession::Connect(daemon_->runtime_dir());
  if (!hot.ok() || !other.ok()) {
    return hot.ok() ? other.status() : hot.status();
  }
  absl::StatusOr<std::unique_ptr<BlockSet>> cold =
      BlockSet::Create(**other, {"bench/local", options_.seed, 0, set_->count(), block_bytes_});
  if (!cold.ok()) {
    return cold.status();
  }
  if (absl::Status stored = (*hot)->Put(0, count); !stored.ok()) {
    return stored;
  }
  progress_.Begin("DRAM hits beside a busy drive", options_.pairs);
  std::vector<Pair> pairs;
  for (uint32_t i = 0; i < options_.pairs && !Interrupted(); ++i) {
    const absl::StatusOr<double> idle = LeaseP99(**hot);
    std::atomic<bool> stop{false};
    absl::Status busy;
    std::thread load([&] {
      for (uint32_t at = 0; !stop && busy.ok(); at = (at + together_) % set_->count()) {
        busy = GetTogether(**cold, at);
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const absl::StatusOr<double> loaded = LeaseP99(**hot);
    stop = true;
    load.join();
    for (const absl::Status& status : {idle.status(), loaded.status(), busy}) {
      if (!status.ok()) {
        return status;
      }
    }
    pairs.push_back({*loaded, *idle});
    progress_.Advance(i);
  }
  report_.AddPairs("dram_hit_p99",
                   "lease of one block in DRAM, p99, the drive busy; idle beside it", "us", pairs);
  return absl::OkStatus();
}

absl::Status LocalScenario::Run() {
  if (absl::Status status = Prepare(); !status.ok()) {
    return status;
  }
  absl::Status status = Measure(
      "cold_get", "blocks from the local tier, verified, by lease", [this] { return ColdGet(); },
      [this] { return RawRead(); });
  if (status.ok() && options_.verify == BenchOptions::Verify::kYes) {
    progress_.Begin("comparing every byte", set_->count());
    for (uint32_t begin = 0; begin < set_->count() && status.ok(); begin += together_) {
      absl::StatusOr<Completion> got =
          session_->GetLease(set_->Chain(begin, together_), {}, ClientSession::Pending::kWait);
      status = got.status();
      for (uint32_t i = 0; got.ok() && i < DeliveredPrefix(**got); ++i) {
        report_.AddWrongBytes(set_->WrongBytes(
            begin + i, {static_cast<const char*>((*got)->data[i]), (*got)->payload_bytes[i]}));
      }
      if (got.ok() && DeliveredPrefix(**got) < together_) {
        report_.AddError("a block of the set is missing");
      }
      if (got.ok()) {
        status = session_->Release((*got)->lease, {});
      }
      progress_.Advance(begin);
    }
  }
  if (status.ok()) {
    status = MeasureHotHits();
  }
  if (status.ok()) {
    status = MeasurePuts();
  }
  if (!status.ok()) {
    return status;
  }
  report_.AddNote(std::to_string(together_) + " blocks a get, and raw transfers at a time");
  return absl::OkStatus();
}

}  // namespace

absl::Status RunLocal(const BenchOptions& options, Report& report, Progress& progress) {
  return LocalScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
