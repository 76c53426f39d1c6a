// restart: how soon a daemon serves again: from its local tier with its index, after kill -9, and
// without the index; and from DRAM that a service manager keeps, after a stop and after kill -9.
//
// Small blocks, many of them, written to the local tier and synced, and then in DRAM alone. Every
// restart is over when all keys are found again; one in 64 is read and compared.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tiers/dram/arena.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/descriptor_store.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = 1024;
constexpr uint64_t kBlocks = 200'000;
constexpr uint64_t kDramBytes = uint64_t{256} << 20;
// No slab more is stored after so long a silence.
constexpr std::chrono::milliseconds kStoredAll{500};
constexpr uint32_t kCallKeys = 8192;
constexpr uint32_t kMissesARound = 4;
constexpr std::chrono::milliseconds kPause{2};
constexpr std::chrono::seconds kReconnects{30};
constexpr uint32_t kComparedOneIn = 64;
constexpr std::chrono::minutes kLongest{5};

class RestartScenario {
 public:
  RestartScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options), report_(report), progress_(progress) {}

  absl::Status Run();

 private:
  absl::Status PrepareLocal();
  absl::Status PrepareKept();
  absl::Status RunLocal();
  absl::Status RunKept();
  absl::Status Connect();
  absl::Status Fill(terrace_level level);
  void WaitStored() const;
  // Seconds from the start of the process to a session with it, and to the first and the last
  // block.
  struct Times {
    double ready = 0;
    double first = 0;
    double all = 0;
  };
  absl::StatusOr<Times> StartAgain(const char* text);
  // Blocks that probes have found since `found_` was filled with zeros, or an error.
  absl::StatusOr<uint64_t> Found();
  absl::Status Compare();

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  uint64_t block_bytes_ = 0;
  uint32_t blocks_ = 0;
  std::vector<uint32_t> found_;  // of the keys of each call, those from the first on
  uint32_t at_ = 0;              // the last call
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<DescriptorStore> store_;  // null: the daemon has none
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
};

absl::Status RestartScenario::Connect() {
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect(daemon_->runtime_dir());
  if (!session.ok()) {
    return session.status();
  }
  session_ = *std::move(session);
  absl::StatusOr<std::unique_ptr<BlockSet>> set =
      BlockSet::Create(*session_, {"bench/restart", options_.seed, 0, blocks_, block_bytes_});
  if (!set.ok()) {
    return set.status();
  }
  set_ = *std::move(set);
  return absl::OkStatus();
}

absl::Status RestartScenario::PrepareLocal() {
  const uint64_t record_bytes = 4096 + (block_bytes_ + 4095) / 4096 * 4096;
  const uint64_t local_bytes =
      std::max(uint64_t{4} << 30, blocks_ * record_bytes * 5 / 4 + (uint64_t{3} << 30));
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon =
      DaemonProcess::Start(options_, kDramBytes, local_bytes);
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  const absl::Status connected = Connect();
  return connected.ok() ? Fill(TERRACE_LEVEL_LOCAL_SYNCED) : connected;
}

absl::Status RestartScenario::PrepareKept() {
  const uint64_t dram_bytes = kDramBytes + blocks_ * SlotBytesFor(block_bytes_) * 17 / 16;
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon =
      DaemonProcess::Prepare(options_, dram_bytes, 0);
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  absl::StatusOr<std::unique_ptr<DescriptorStore>> store =
      DescriptorStore::Create(daemon_->folder());
  if (!store.ok()) {
    return store.status();
  }
  store_ = *std::move(store);
  absl::Status status = daemon_->StartAgain(store_->NextStart());
  if (status.ok()) {
    status = Connect();
  }
  if (status.ok()) {
    status = Fill(TERRACE_LEVEL_DRAM);
  }
  WaitStored();
  return status;
}

absl::Status RestartScenario::Fill(terrace_level level) {
  progress_.Begin("writing the set", blocks_);
  for (uint32_t begin = 0; begin < blocks_; begin += kCallKeys) {
    const uint32_t count = std::min(kCallKeys, blocks_ - begin);
    if (absl::Status s = set_->Put(begin, count, level); !s.ok()) {
      return s;
    }
    progress_.Advance(begin);
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
  }
  return absl::OkStatus();
}

// What a daemon has not stored yet is lost when it is killed.
void RestartScenario::WaitStored() const {
  size_t stored = 0;
  do {
    stored = store_->count();
  } while (store_->Wait([stored](const auto& now) { return now.size() != stored; },
                        absl::FromChrono(kStoredAll)));
}

// A few calls a round, each time others, and none twice that found all of its keys: what is
// measured is how fast the daemon recovers, and not how fast it says that it has not yet.
absl::StatusOr<uint64_t> RestartScenario::Found() {
  uint32_t missing = 0;
  for (uint32_t i = 0; i < found_.size() && missing < kMissesARound; ++i) {
    at_ = (at_ + 1) % static_cast<uint32_t>(found_.size());
    const uint32_t begin = at_ * kCallKeys;
    const uint32_t count = std::min(kCallKeys, blocks_ - begin);
    if (found_[at_] == count) {
      continue;
    }
    absl::StatusOr<Completion> probe =
        session_->Probe(set_->Chain(begin, count), std::chrono::milliseconds(0));
    if (!probe.ok()) {
      return probe.status();
    }
    found_[at_] = (*probe)->part_hits[0];
    missing += found_[at_] < count ? 1 : 0;
  }
  if (missing > 0) {
    std::this_thread::sleep_for(kPause);
  }
  return std::accumulate(found_.begin(), found_.end(), uint64_t{0});
}

absl::StatusOr<RestartScenario::Times> RestartScenario::StartAgain(const char* text) {
  progress_.Begin(text, blocks_);
  found_.assign((blocks_ + kCallKeys - 1) / kCallKeys, 0);
  Times times;
  const Stopwatch watch;
  if (absl::Status status =
          daemon_->StartAgain(store_ != nullptr ? store_->NextStart() : Handover{});
      !status.ok()) {
    return status;
  }
  times.ready = watch.seconds();
  // The session goes on with the new daemon: a set of so many blocks takes seconds to make.
  if (!session_->WaitConnected(kReconnects)) {
    return absl::UnavailableError("the session did not find the daemon again");
  }
  while (times.all == 0) {
    const absl::StatusOr<uint64_t> found = Found();
    if (!found.ok()) {
      return found.status();
    }
    times.first = times.first == 0 && *found > 0 ? watch.seconds() : times.first;
    times.all = *found == blocks_ ? watch.seconds() : 0;
    progress_.Advance(*found);
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    if (times.all == 0 && watch.seconds() > std::chrono::duration<double>(kLongest).count()) {
      report_.AddError("only " + std::to_string(*found) + " of " + std::to_string(blocks_) +
                       " blocks were found again");
      times.all = watch.seconds();
    }
  }
  if (absl::Status status = Compare(); !status.ok()) {
    return status;
  }
  return times;
}

absl::Status RestartScenario::Compare() {
  if (options_.verify == BenchOptions::Verify::kNo) {
    return absl::OkStatus();
  }
  for (uint32_t i = 0; i < blocks_; i += kComparedOneIn) {
    absl::StatusOr<Completion> got =
        session_->GetLease(set_->Chain(i, 1), {}, ClientSession::Pending::kWait);
    if (!got.ok()) {
      return got.status();
    }
    if (DeliveredPrefix(**got) == 0) {
      report_.AddError("block " + std::to_string(i) + " is not delivered");
      continue;
    }
    report_.AddWrongBytes(
        set_->WrongBytes(i, {static_cast<const char*>((*got)->data[0]), (*got)->payload_bytes[0]}));
    if (absl::Status status = session_->Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status RestartScenario::RunLocal() {
  if (absl::Status status = PrepareLocal(); !status.ok()) {
    return status;
  }
  daemon_->Stop();
  absl::StatusOr<Times> clean = StartAgain("starting after a stop");
  if (!clean.ok()) {
    return clean.status();
  }
  daemon_->Kill();
  absl::StatusOr<Times> killed = StartAgain("starting after kill -9");
  if (!killed.ok()) {
    return killed.status();
  }
  daemon_->Kill();
  std::error_code ignored;
  std::filesystem::remove_all(daemon_->index_dir(), ignored);
  absl::StatusOr<Times> lost = StartAgain("starting without the index");
  if (!lost.ok()) {
    return lost.status();
  }
  report_.AddAgainst("ready", "from start to a session, index there", "s", 2.0, {clean->ready});
  report_.AddAgainst("ready_killed", "the same after kill -9", "s", 2.0, {killed->ready});
  report_.AddValue("all_found", "from start to every block found, index there", "s", clean->all);
  report_.AddValue("all_found_killed", "the same after kill -9", "s", killed->all);
  report_.AddValue("ready_without_index", "from start to a session, index deleted", "s",
                   lost->ready);
  report_.AddValue("first_hit_without_index", "from start to the first block found, index deleted",
                   "s", lost->first);
  report_.AddValue("rebuild", "blocks found again a second, index deleted", "1/s",
                   static_cast<double>(blocks_) / std::max(lost->all - lost->ready, 1e-3));
  report_.AddNote(std::to_string(blocks_) + " blocks; touching " +
                  std::to_string(daemon_->own_dram_bytes() >> 20U) + " MiB of DRAM included");
  return absl::OkStatus();
}

absl::Status RestartScenario::RunKept() {
  set_ = nullptr;
  session_ = nullptr;
  daemon_ = nullptr;
  if (absl::Status status = PrepareKept(); !status.ok()) {
    return status;
  }
  daemon_->Stop();
  absl::StatusOr<Times> clean = StartAgain("starting after a stop, DRAM kept");
  if (!clean.ok()) {
    return clean.status();
  }
  daemon_->Kill();
  absl::StatusOr<Times> killed = StartAgain("starting after kill -9, DRAM kept");
  if (!killed.ok()) {
    return killed.status();
  }
  report_.AddAgainst("ready_kept", "from start to a session, DRAM kept", "s", 2.0, {clean->ready});
  report_.AddAgainst("ready_kept_killed", "the same after kill -9", "s", 2.0, {killed->ready});
  report_.AddValue("all_found_kept", "from start to every block found, DRAM kept", "s", clean->all);
  report_.AddValue("all_found_kept_killed", "the same after kill -9", "s", killed->all);
  report_.AddNote("DRAM kept: " + std::to_string(daemon_->own_dram_bytes() >> 20U) +
                  " MiB, its descriptors held by a stand-in for the service manager");
  return absl::OkStatus();
}

absl::Status RestartScenario::Run() {
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError(
        "--runtime: this scenario stops its daemon, so it needs its own");
  }
  block_bytes_ = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  blocks_ = static_cast<uint32_t>(options_.blocks != 0 ? options_.blocks : kBlocks);
  const absl::Status status = RunLocal();
  return status.ok() ? RunKept() : status;
}

}  // namespace

absl::Status RunRestart(const BenchOptions& options, Report& report, Progress& progress) {
  return RestartScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
