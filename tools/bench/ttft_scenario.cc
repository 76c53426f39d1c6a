// ttft: time to first token of a prompt whose prefix was computed before, loaded from DRAM, from
// the local tier and from another node's pool, against computing it again.
//
// Loads are measured: blocks of the model's KV size, got into the engine's memory in one call,
// every byte compared. Computing is declared (declared_models.h), and the model also says what the
// prompt's last block costs, which an engine computes in any case. Prompts double from 1,024 tokens
// up to what --blocks holds. The copy to a GPU is not in the figures.
#include <system_error>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "tiers/dram/arena.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/declared_models.h"
#include "tools/bench/operator_calls.h"
#include "tools/bench/pool_node.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kSetBytes = uint64_t{4} << 30;
constexpr uint32_t kFirstTokens = 1024;
constexpr uint32_t kRounds = 3;
constexpr uint32_t kPutTogether = 64;

class TtftScenario {
 public:
  TtftScenario(const BenchOptions& options,
               const DeclaredModel& model,
               Report& report,
               Progress& progress)
      : options_(options), model_(model), report_(report), progress_(progress) {}
  ~TtftScenario() {
    std::error_code error;
    std::filesystem::remove_all(pool_, error);
  }
  TtftScenario(const TtftScenario&) = delete;
  TtftScenario& operator=(const TtftScenario&) = delete;
  TtftScenario(TtftScenario&&) = delete;
  TtftScenario& operator=(TtftScenario&&) = delete;

  absl::Status Run();

 private:
  enum class Warm : uint8_t { kNo, kYes };  // whether what is loaded lies in DRAM

  absl::Status Plan();
  absl::Status StartNode(uint64_t local_bytes);
  absl::Status Store();
  absl::Status MeasureTier(const char* name, const char* text, Warm warm);
  absl::StatusOr<double> Load(uint32_t blocks, Warm warm);
  // Of the block behind the prefix that is loaded.
  [[nodiscard]] double LastBlockSeconds(uint64_t tokens) const {
    return model_.Seconds(tokens) - model_.Seconds(tokens - kBenchBlockTokens);
  }

  const BenchOptions& options_;
  const DeclaredModel& model_;
  Report& report_;
  Progress& progress_;
  uint64_t block_bytes_ = 0;
  uint32_t blocks_ = 0;
  std::vector<uint32_t> prompts_;  // tokens
  std::string pool_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<OperatorCalls> calls_;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<BlockSet> set_;
};

absl::Status TtftScenario::Plan() {
  if (!options_.runtime_dir.empty()) {
    return absl::InvalidArgumentError("--runtime: this scenario needs daemons of its own");
  }
  block_bytes_ = model_.kv_bytes_a_token * kBenchBlockTokens;
  const uint64_t blocks = options_.blocks != 0 ? options_.blocks : kSetBytes / block_bytes_;
  if (blocks * kBenchBlockTokens < kFirstTokens || blocks > kMaxKeysAGet) {
    return absl::InvalidArgumentError(absl::StrFormat("--blocks: %d to %d of %d tokens",
                                                      kFirstTokens / kBenchBlockTokens,
                                                      kMaxKeysAGet, kBenchBlockTokens));
  }
  for (uint64_t tokens = kFirstTokens; tokens <= blocks * kBenchBlockTokens; tokens *= 2) {
    prompts_.push_back(static_cast<uint32_t>(tokens));
  }
  blocks_ = prompts_.back() / kBenchBlockTokens;
  absl::StatusOr<std::string> pool = MakePrivateFolder(options_.data_dir);
  if (!pool.ok()) {
    return pool.status();
  }
  pool_ = *pool;
  return absl::OkStatus();
}

absl::Status TtftScenario::StartNode(uint64_t local_bytes) {
  set_.reset();
  session_.reset();
  daemon_.reset();
  const uint64_t set_bytes = uint64_t{blocks_} * SlotBytesFor(block_bytes_);
  PoolNodeOptions node;
  node.pool = pool_;
  node.pool_bytes = 3 * set_bytes + (uint64_t{4} << 30);
  node.publish = "commit";
  node.dram_bytes = set_bytes * 5 / 4 + (uint64_t{256} << 20);  // slots do not fill slabs
  node.local_bytes = local_bytes;
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = StartPoolNode(options_, node);
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  calls_ = OperatorCalls::Create(daemon_->runtime_dir());
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect(daemon_->runtime_dir());
  absl::Status status = session.status();
  status.Update(AwaitPoolReady(*calls_));
  if (!status.ok()) {
    return status;
  }
  session_ = *std::move(session);
  absl::StatusOr<std::unique_ptr<BlockSet>> set = BlockSet::Create(
      *session_, {absl::StrCat("bench/ttft/", model_.id), options_.seed, 0, blocks_, block_bytes_});
  if (!set.ok()) {
    return set.status();
  }
  set_ = *std::move(set);
  return absl::OkStatus();
}

absl::Status TtftScenario::Store() {
  progress_.Begin("storing the prompt", blocks_);
  for (uint32_t begin = 0; begin < blocks_; begin += kPutTogether) {
    const uint32_t count = std::min(kPutTogether, blocks_ - begin);
    absl::Status status = set_->Put(begin, count, TERRACE_LEVEL_LOCAL_SYNCED);
    status.Update(status.ok() ? set_->Raise(begin, count, TERRACE_LEVEL_POOL) : status);
    if (!status.ok()) {
      return status;
    }
    progress_.Advance(begin);
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
  }
  return absl::OkStatus();
}

// Seconds until the first `blocks` blocks lie in the region.
absl::StatusOr<double> TtftScenario::Load(uint32_t blocks, Warm warm) {
  if (warm == Warm::kNo) {
    if (absl::Status status = calls_->EvictDram(); !status.ok()) {
      return status;
    }
  }
  for (uint32_t i = 0; i < blocks; ++i) {
    std::memset(set_->Place(i).data(), 0, block_bytes_);  // what is not delivered is wrong
  }
  const Stopwatch watch;
  absl::StatusOr<Completion> got =
      session_->GetIntoRegion(set_->Chain(0, blocks), {}, ClientSession::Pending::kWait);
  const double seconds = watch.seconds();
  if (!got.ok()) {
    return got.status();
  }
  if (absl::Status all = AllOutcomes(**got, TERRACE_GET_OK, "load"); !all.ok()) {
    return all;
  }
  for (uint32_t i = 0; options_.verify == BenchOptions::Verify::kYes && i < blocks; ++i) {
    report_.AddWrongBytes(set_->WrongBytesInRegion(i));
  }
  return seconds;
}

absl::Status TtftScenario::MeasureTier(const char* name, const char* text, Warm warm) {
  progress_.Begin(absl::StrCat("loading from ", text), prompts_.size() * kRounds);
  uint64_t done = 0;
  for (const uint32_t tokens : prompts_) {
    std::vector<double> seconds;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const absl::StatusOr<double> load = Load(tokens / kBenchBlockTokens, warm);
      if (!load.ok()) {
        return load.status();
      }
      seconds.push_back(*load + LastBlockSeconds(tokens));
      progress_.Advance(++done);
      if (Interrupted()) {
        return absl::CancelledError("interrupted");
      }
    }
    const double recompute = model_.Seconds(tokens);
    const double speedup = recompute / SpreadOf(seconds).median;
    report_.AddAgainst(absl::StrCat(name, "_", tokens),
                       absl::StrFormat("%d tokens, prefix from %s: %.1fx as fast as computing it",
                                       tokens, text, speedup),
                       "s", recompute, std::move(seconds));
  }
  return absl::OkStatus();
}

absl::Status TtftScenario::Run() {
  if (absl::Status status = Plan(); !status.ok()) {
    return status;
  }
  const uint64_t set_bytes = uint64_t{blocks_} * SlotBytesFor(block_bytes_);
  absl::Status status = StartNode(2 * set_bytes + (uint64_t{2} << 30));
  status.Update(status.ok() ? Store() : status);
  status.Update(status.ok() ? MeasureTier("dram", "DRAM", Warm::kYes) : status);
  status.Update(status.ok() ? MeasureTier("local", "the local tier", Warm::kNo) : status);
  // Another node, which has never seen the prompt.
  status.Update(status.ok() ? StartNode(0) : status);
  status.Update(status.ok() ? AwaitVisible(*session_, *set_) : status);
  status.Update(status.ok() ? MeasureTier("pool", "another node's pool", Warm::kNo) : status);
  if (!status.ok()) {
    return status;
  }
  report_.AddNote(absl::StrCat("computing is declared: ", model_.name, "; ",
                               model_.kv_bytes_a_token >> 10U, " KiB of KV a token, blocks of ",
                               kBenchBlockTokens, " tokens"));
  report_.AddNote("loads end in the engine's host memory; the copy to a GPU is not in them");
  report_.AddNote(
      "published by others, on GPUs: 56x at 130K tokens over shared storage (IBM, MD260021), 23.6x "
      "from DRAM, 8 to 12x from storage");
  report_.AddNote(absl::StrCat("a prompt of 128K tokens takes --blocks ",
                               131072 / kBenchBlockTokens, ", ",
                               (model_.kv_bytes_a_token * 131072) >> 30U,
                               " GiB of DRAM for the daemon and as much for the engine"));
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTtft(const BenchOptions& options, Report& report, Progress& progress) {
  const DeclaredModel* const model = FindDeclaredModel(options.model);
  if (model == nullptr) {
    return absl::InvalidArgumentError("--model: " + options.model + " is not declared");
  }
  return TtftScenario(options, *model, report, progress).Run();
}

}  // namespace terrace::bench
