// probe: 1,000 random chains of 1,024 keys over an index of 1 M blocks, beside empty gRPC calls;
// the daemon's processor time a key; the resident memory that a block costs beyond its payload.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tiers/dram/arena.h"
#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/empty_call.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlocks = 1'000'000;
constexpr uint64_t kBlockBytes = 4096;  // the smallest slot: 8 KiB with its header page
constexpr uint32_t kChain = 1024;
constexpr uint32_t kProbes = 1000;
constexpr double kCpuLimitUs = 0.2;     // a key
constexpr double kMetadataLimit = 200;  // bytes a block
constexpr uint64_t kSpareBytes = uint64_t{256} << 20;

uint64_t AvailableBytes() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  while (file >> word) {
    if (word == "MemAvailable:") {
      uint64_t kib = 0;
      file >> kib;
      return kib * 1024;
    }
  }
  return UINT64_MAX;
}

class ProbeScenario {
 public:
  ProbeScenario(const BenchOptions& options, Report& report, Progress& progress)
      : options_(options),
        report_(report),
        progress_(progress),
        source_(options.seed),
        random_(options.seed) {}

  absl::Status Run();

 private:
  absl::Status Prepare();
  absl::Status PutChain(uint64_t chain);
  absl::Status Fill();
  absl::Status ProbeRandomChains(uint32_t count, std::vector<double>& times);
  absl::Status CallEmpty(uint32_t count, std::vector<double>& times);
  absl::Status Measure();
  absl::Status VerifySome();
  [[nodiscard]] std::string KeysOf(uint64_t chain) const;
  [[nodiscard]] uint32_t LengthOf(uint64_t chain) const {
    return static_cast<uint32_t>(std::min<uint64_t>(kChain, blocks_ - chain * kChain));
  }
  [[nodiscard]] KeyChain ChainOf(const std::string& keys) const;

  const BenchOptions& options_;
  Report& report_;
  Progress& progress_;
  const PayloadSource source_;
  std::mt19937_64 random_;
  uint64_t blocks_ = 0;
  uint64_t block_bytes_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
  std::unique_ptr<EmptyCaller> empty_;
  std::unique_ptr<ClientSession> session_;
  SharedMemory staging_;
  std::vector<uint32_t> indexes_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
};

std::string ProbeScenario::KeysOf(uint64_t chain) const {
  std::vector<uint64_t> names(LengthOf(chain));
  for (uint32_t i = 0; i < names.size(); ++i) {
    names[i] = chain * kChain + i;
  }
  return source_.Keys(names, kBenchKeyBytes);
}

KeyChain ProbeScenario::ChainOf(const std::string& keys) const {
  KeyChain chain;
  chain.ns = ns_;
  chain.keys = keys;
  chain.key_bytes = kBenchKeyBytes;
  return chain;
}

absl::Status ProbeScenario::Prepare() {
  blocks_ = options_.blocks != 0 ? options_.blocks : kBlocks;
  block_bytes_ = options_.block_bytes != 0 ? options_.block_bytes : kBlockBytes;
  const uint64_t slots_a_slab =
      std::max(kMinSlabBytes, kMinSlotsPerSlab * SlotBytesFor(block_bytes_)) /
      SlotBytesFor(block_bytes_);
  const uint64_t slabs = blocks_ / slots_a_slab + 2;
  const uint64_t dram_bytes =
      slabs * std::max(kMinSlabBytes, kMinSlotsPerSlab * SlotBytesFor(block_bytes_));
  const uint64_t needed =
      dram_bytes + blocks_ * static_cast<uint64_t>(kMetadataLimit) + kSpareBytes;
  if (options_.runtime_dir.empty() && AvailableBytes() < needed) {
    return absl::ResourceExhaustedError(
        std::to_string(needed >> 20U) + " MiB of memory are needed and " +
        std::to_string(AvailableBytes() >> 20U) + " are available; --blocks takes a smaller index");
  }
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon =
      DaemonProcess::Start(options_, dram_bytes);
  if (!daemon.ok()) {
    return daemon.status();
  }
  daemon_ = *std::move(daemon);
  absl::StatusOr<std::unique_ptr<EmptyCaller>> empty = EmptyCaller::Start();
  if (!empty.ok()) {
    return empty.status();
  }
  empty_ = *std::move(empty);
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect(daemon_->runtime_dir());
  if (!session.ok()) {
    return session.status();
  }
  session_ = *std::move(session);
  absl::StatusOr<SharedMemory> staging = SharedMemory::Create(kChain * block_bytes_);
  if (!staging.ok()) {
    return staging.status();
  }
  staging_ = *std::move(staging);
  for (uint32_t i = 0; i < kChain; ++i) {
    indexes_.push_back(i);
  }
  absl::StatusOr<terrace_namespace> ns = session_->OpenNamespace(
      "bench/probe/" + std::to_string(options_.seed), block_bytes_, kBenchBlockTokens);
  if (!ns.ok()) {
    return ns.status();
  }
  ns_ = *ns;
  absl::StatusOr<terrace_region> region =
      session_->RegisterRegion(staging_.fd(), block_bytes_, kChain);
  if (!region.ok()) {
    return region.status();
  }
  region_ = *region;
  return absl::OkStatus();
}

absl::Status ProbeScenario::PutChain(uint64_t chain) {
  const std::string keys = KeysOf(chain);
  KeyChain put = ChainOf(keys);
  put.region = region_;
  put.block_indexes = absl::MakeConstSpan(indexes_).first(put.count());
  for (uint32_t i = 0; i < put.count(); ++i) {
    source_.Fill(put.Key(i), staging_.bytes().subspan(i * block_bytes_, block_bytes_));
  }
  absl::StatusOr<Completion> stored = session_->Put(put, static_cast<uint32_t>(block_bytes_), {});
  return stored.ok() ? AllOutcomes(**stored, TERRACE_PUT_STORED, "put") : stored.status();
}

absl::Status ProbeScenario::Fill() {
  const uint64_t chains = (blocks_ + kChain - 1) / kChain;
  progress_.Begin("storing " + std::to_string(blocks_) + " blocks", chains);
  // The first chain brings the daemon's own buffers into being, which are no block's.
  if (absl::Status status = PutChain(0); !status.ok()) {
    return status;
  }
  const uint64_t before = daemon_->PrivateBytes();
  for (uint64_t chain = 1; chain < chains; ++chain) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    if (absl::Status status = PutChain(chain); !status.ok()) {
      return status;
    }
    progress_.Advance(chain);
  }
  const uint64_t after = daemon_->PrivateBytes();
  if (blocks_ > kChain && before != 0) {
    const auto grown = static_cast<double>(std::max(after, before) - before);
    report_.AddAgainst("metadata_per_block", "resident memory a block beyond its slot", "bytes",
                       kMetadataLimit, {grown / static_cast<double>(blocks_ - kChain)});
  }
  return absl::OkStatus();
}

absl::Status ProbeScenario::ProbeRandomChains(uint32_t count, std::vector<double>& times) {
  const uint64_t full_chains = std::max<uint64_t>(1, blocks_ / kChain);
  for (uint32_t i = 0; i < count; ++i) {
    const std::string keys = KeysOf(random_() % full_chains);
    const KeyChain chain = ChainOf(keys);
    const Stopwatch watch;
    absl::StatusOr<Completion> probe = session_->Probe(chain, std::chrono::milliseconds(0));
    times.push_back(watch.microseconds());
    if (!probe.ok()) {
      return probe.status();
    }
    if ((*probe)->part_hits[0] != chain.count()) {
      report_.AddError("probe: " + std::to_string((*probe)->part_hits[0]) + " of " +
                       std::to_string(chain.count()) + " keys are there");
    }
  }
  return absl::OkStatus();
}

absl::Status ProbeScenario::CallEmpty(uint32_t count, std::vector<double>& times) {
  for (uint32_t i = 0; i < count; ++i) {
    const Stopwatch watch;
    if (absl::Status status = empty_->Call(); !status.ok()) {
      return status;
    }
    times.push_back(watch.microseconds());
  }
  return absl::OkStatus();
}

absl::Status ProbeScenario::Measure() {
  const uint32_t probes = (kProbes + options_.pairs - 1) / options_.pairs;
  progress_.Begin("probing", options_.pairs);
  std::vector<Pair> pairs;
  std::vector<double> cpu_us;
  for (uint32_t i = 0; i <= options_.pairs; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    std::vector<double> ours;
    std::vector<double> theirs;
    if (absl::Status status = CallEmpty(probes, theirs); !status.ok()) {
      return status;
    }
    const double cpu_before = daemon_->CpuSeconds();
    if (absl::Status status = ProbeRandomChains(probes, ours); !status.ok()) {
      return status;
    }
    const double cpu = daemon_->CpuSeconds() - cpu_before;
    if (i > 0) {  // the first turn warms up
      pairs.push_back({Percentile(ours, 0.5), Percentile(theirs, 0.5)});
      cpu_us.push_back(cpu * 1e6 /
                       (probes * std::min<double>(kChain, static_cast<double>(blocks_))));
    }
    progress_.Advance(i);
  }
  report_.AddPairs("p50_1024", "probe of 1,024 keys, against an empty gRPC call", "us", pairs);
  report_.AddAgainst("cpu_per_key", "processor time of the daemon a key", "us", kCpuLimitUs,
                     cpu_us);
  return absl::OkStatus();
}

absl::Status ProbeScenario::VerifySome() {
  const std::string keys = KeysOf(random_() % std::max<uint64_t>(1, blocks_ / kChain));
  const KeyChain chain = ChainOf(keys);
  absl::StatusOr<Completion> got = session_->GetLease(chain, {});
  if (!got.ok()) {
    return got.status();
  }
  for (uint32_t i = 0; i < DeliveredPrefix(**got); ++i) {
    const absl::Span<const char> payload(static_cast<const char*>((*got)->data[i]),
                                         (*got)->payload_bytes[i]);
    report_.AddWrongBytes(source_.WrongBytes(chain.Key(i), payload));
  }
  if (absl::Status status = AllOutcomes(**got, TERRACE_GET_OK, "get"); !status.ok()) {
    report_.AddError(std::string(status.message()));
  }
  return session_->Release((*got)->lease, {});
}

absl::Status ProbeScenario::Run() {
  absl::Status status = Prepare();
  if (status.ok()) {
    status = Fill();
  }
  if (status.ok()) {
    status = Measure();
  }
  if (status.ok() && options_.verify == BenchOptions::Verify::kYes) {
    status = VerifySome();
  }
  if (status.ok()) {
    report_.AddNote(std::to_string(blocks_) + " blocks of " + std::to_string(block_bytes_) +
                    " bytes, keys of " + std::to_string(kBenchKeyBytes) + " bytes");
  }
  return status;
}

}  // namespace

absl::Status RunProbe(const BenchOptions& options, Report& report, Progress& progress) {
  return ProbeScenario(options, report, progress).Run();
}

}  // namespace terrace::bench
