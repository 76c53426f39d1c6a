// peers: get (every byte read) and put of 2 MiB blocks, one at a time, against other stores on this
// machine over their Unix sockets, in alternation. A ratio is Terrace's speed over the peer's.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tiers/dram/arena.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"
#include "tools/bench/store_peer.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr uint64_t kSetBytes = uint64_t{256} << 20;
constexpr uint32_t kBlocksATurn = 16;

class PeersScenario {
 public:
  PeersScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress) {}
  ~PeersScenario() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  PeersScenario(const PeersScenario&) = delete;
  PeersScenario& operator=(const PeersScenario&) = delete;
  PeersScenario(PeersScenario&&) = delete;
  PeersScenario& operator=(PeersScenario&&) = delete;

  absl::Status Run();

 private:
  absl::Status Prepare();
  absl::Status MeasureAgainst(StorePeer& peer);
  // One turn over kBlocksATurn blocks from `begin`; GB/s.
  absl::StatusOr<double> GetOurs(uint32_t begin);
  absl::StatusOr<double> PutOurs(uint32_t begin);
  absl::StatusOr<double> GetTheirs(StorePeer& peer, uint32_t begin);
  absl::StatusOr<double> PutTheirs(StorePeer& peer, uint32_t begin);
  absl::Status VerifyTheirs(StorePeer& peer, uint32_t begin);
  absl::Status DeleteFrom(StorePeer& peer, uint32_t begin);
  absl::Status StoreAll(StorePeer& peer);

  [[nodiscard]] uint32_t Count(uint32_t begin) const {
    return std::min(kBlocksATurn, set_->count() - begin);
  }
  [[nodiscard]] double Rate(uint32_t begin, double seconds) const {
    return static_cast<double>(Count(begin)) * static_cast<double>(set_->block_bytes()) / seconds /
           1e9;
  }
  [[nodiscard]] std::string Name(uint32_t i) const { return "bench:" + std::to_string(i); }

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  std::string folder_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
  std::vector<char> landing_;
};

absl::Status PeersScenario::Prepare() {
  const uint64_t block_bytes = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  const uint64_t blocks = options_.blocks != 0 ? options_.blocks : kSetBytes / block_bytes;
  if (blocks > kMaxKeysAGet || blocks < 1 || block_bytes > kMaxPayloadBytes) {
    return absl::InvalidArgumentError("--blocks: 1 to 16,384; --block-bytes: at most 64 MiB");
  }
  const uint64_t dram_bytes = std::max(uint64_t{512} << 20, 2 * blocks * SlotBytesFor(block_bytes));
  absl::StatusOr<DaemonProcess::Connected> connected =
      DaemonProcess::StartConnected(options_, dram_bytes);
  if (!connected.ok()) {
    return connected.status();
  }
  daemon_ = std::move(connected->daemon);
  session_ = std::move(connected->session);
  absl::StatusOr<std::unique_ptr<BlockSet>> set = BlockSet::Create(
      *session_, {"bench/peers", options_.seed, 0, static_cast<uint32_t>(blocks), block_bytes});
  if (!set.ok()) {
    return set.status();
  }
  set_ = *std::move(set);
  landing_.resize(block_bytes);
  static_cast<void>(
      set_->Delete(0, set_->count()));  // of an earlier run against a daemon that goes on
  if (absl::Status status = set_->Put(0, set_->count()); !status.ok()) {
    return status;
  }
  if (absl::Status status = set_->Verify(report_); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::string> folder = MakePrivateFolder("");
  if (!folder.ok()) {
    return folder.status();
  }
  folder_ = *folder;
  return absl::OkStatus();
}

absl::StatusOr<double> PeersScenario::GetOurs(uint32_t begin) {
  const Stopwatch watch;
  for (uint32_t i = begin; i < begin + Count(begin); ++i) {
    absl::StatusOr<Completion> got = session_->GetLease(set_->Chain(i, 1), {});
    if (!got.ok()) {
      return got.status();
    }
    if (absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get"); !status.ok()) {
      return status;
    }
    KeepSum(SumBytes({static_cast<const char*>((*got)->data[0]), (*got)->payload_bytes[0]}));
    if (absl::Status status = session_->Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
  }
  return Rate(begin, watch.seconds());
}

absl::StatusOr<double> PeersScenario::GetTheirs(StorePeer& peer, uint32_t begin) {
  const Stopwatch watch;
  for (uint32_t i = begin; i < begin + Count(begin); ++i) {
    if (absl::Status status = peer.Get(Name(i), absl::MakeSpan(landing_)); !status.ok()) {
      return status;
    }
    KeepSum(SumBytes(landing_));
  }
  return Rate(begin, watch.seconds());
}

absl::StatusOr<double> PeersScenario::PutOurs(uint32_t begin) {
  if (absl::Status status = set_->Delete(begin, Count(begin)); !status.ok()) {
    return status;
  }
  const Stopwatch watch;
  for (uint32_t i = begin; i < begin + Count(begin); ++i) {
    if (absl::Status status = set_->Put(i, 1); !status.ok()) {
      return status;
    }
  }
  return Rate(begin, watch.seconds());
}

absl::StatusOr<double> PeersScenario::PutTheirs(StorePeer& peer, uint32_t begin) {
  if (absl::Status status = DeleteFrom(peer, begin); !status.ok()) {
    return status;
  }
  const Stopwatch watch;
  for (uint32_t i = begin; i < begin + Count(begin); ++i) {
    if (absl::Status status = peer.Put(Name(i), set_->Place(i)); !status.ok()) {
      return status;
    }
  }
  return Rate(begin, watch.seconds());
}

absl::Status PeersScenario::DeleteFrom(StorePeer& peer, uint32_t begin) {
  for (uint32_t i = begin; i < begin + Count(begin); ++i) {
    if (absl::Status status = peer.Delete(Name(i)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status PeersScenario::VerifyTheirs(StorePeer& peer, uint32_t begin) {
  if (absl::Status status = peer.Get(Name(begin), absl::MakeSpan(landing_)); !status.ok()) {
    return status;
  }
  return std::equal(landing_.begin(), landing_.end(), set_->Place(begin).begin())
             ? absl::OkStatus()
             : absl::InternalError(std::string(peer.name()) +
                                   " returned other bytes than it was given");
}

absl::Status PeersScenario::StoreAll(StorePeer& peer) {
  for (uint32_t i = 0; i < set_->count(); ++i) {
    if (absl::Status status = peer.Put(Name(i), set_->Place(i)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status PeersScenario::MeasureAgainst(StorePeer& peer) {
  if (absl::Status status = StoreAll(peer); !status.ok()) {
    return status;
  }
  const std::string name(peer.name());
  progress_.Begin("against " + name, options_.pairs);
  std::vector<Pair> gets;
  std::vector<Pair> puts;
  uint32_t begin = 0;
  for (uint32_t i = 0; i <= options_.pairs; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    const absl::StatusOr<double> get_theirs = GetTheirs(peer, begin);
    const absl::StatusOr<double> get_ours = GetOurs(begin);
    const absl::StatusOr<double> put_theirs = PutTheirs(peer, begin);
    const absl::StatusOr<double> put_ours = PutOurs(begin);
    for (const absl::Status& status : {get_theirs.status(), get_ours.status(), put_theirs.status(),
                                       put_ours.status(), VerifyTheirs(peer, begin)}) {
      if (!status.ok()) {
        return status;
      }
    }
    if (i > 0) {  // the first turn warms up
      gets.push_back({*get_ours, *get_theirs});
      puts.push_back({*put_ours, *put_theirs});
    }
    begin = begin + kBlocksATurn < set_->count() ? begin + kBlocksATurn : 0;
    progress_.Advance(i);
  }
  report_.AddPairs(name + "_get", "get and read, against " + name, "GB/s", gets);
  report_.AddPairs(name + "_put", "put, against " + name, "GB/s", puts);
  return options_.verify == BenchOptions::Verify::kYes ? set_->Verify(report_) : absl::OkStatus();
}

absl::Status PeersScenario::Run() {
  if (absl::Status status = Prepare(); !status.ok()) {
    return status;
  }
  for (const PeerKind& kind : PeerKinds()) {
    absl::StatusOr<std::unique_ptr<StorePeer>> peer = kind.start(folder_, set_->bytes());
    if (peer.status().code() == absl::StatusCode::kNotFound) {
      report_.AddNote(std::string("skipped: ") + kind.program + " is not installed");
      continue;
    }
    absl::Status status = peer.ok() ? MeasureAgainst(**peer) : peer.status();
    if (!status.ok()) {
      return absl::Status(status.code(),
                          std::string(kind.name) + ": " + std::string(status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunPeers(const BenchOptions& options, Report& report, Progress& progress) {
  return PeersScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
