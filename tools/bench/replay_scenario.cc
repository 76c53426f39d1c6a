// replay: a recorded trace through libterrace. Per request: probe with a hold, get the prefix by
// lease, check every byte, put the rest from a region, release. Beside it, the placement code alone
// on the same trace with as many blocks as the daemon has slots: the two hit ratios must be equal.
//
// With --local the daemon has a local tier, and placement alone is given one of as many segments.
// The two then differ a little: the daemon writes while it goes on, so that a block may be evicted
// a moment later than its turn, and has records of two heats and its own in segments that fill at
// their own pace.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tiers/dram/arena.h"
#include "tiers/placement/replay.h"
#include "tiers/segment/segment_tier.h"
#include "tools/bench/client_session.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/memory.h"
#include "tools/bench/operator_calls.h"
#include "tools/bench/payload.h"
#include "tools/bench/scenario.h"
#include "tools/bench/store_replay.h"
#include "tools/trace/prefill_model.h"
#include "tools/trace/request_trace.h"
#include "tools/trace/returns.h"

namespace terrace::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kBlockBytes = uint64_t{64} << 10;
constexpr uint64_t kDramBytes = uint64_t{1} << 30;
constexpr uint32_t kKeyBytes = 36;  // as vLLM's: a 32-byte hash and a 4-byte group
constexpr size_t kMaxChain = 16'384;
constexpr uint8_t kStateMask = 0x0f;
constexpr uint64_t kMaxStagingBytes = uint64_t{1} << 30;
// Of a large tier: those that are emptied ahead.
constexpr uint32_t kSegmentsWithoutRecords = 3;
constexpr double kLongestReturnMs = 4e9;
constexpr std::chrono::seconds kHold{60};
constexpr std::chrono::seconds kReconnects{30};

double Seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}
double Microseconds(Clock::duration time) {
  return Seconds(time) * 1e6;
}

size_t LongestChain(const RequestTrace& trace) {
  size_t longest = 1;
  for (const TraceRequest& request : trace.requests) {
    longest = std::max(longest, std::min(request.block_ids.size(), kMaxChain));
  }
  return longest;
}

// What the run adds up.
struct Totals {
  uint64_t blocks = 0;
  uint64_t hits = 0;
  uint64_t local_hits = 0;  // of them, that the probe found on the local tier
  uint64_t waits = 0;       // requests with such hits
  uint64_t gone = 0;        // that the probe found there, and the get did not
  uint64_t stored = 0;
  uint64_t not_stored = 0;
  uint64_t delivered_bytes = 0;
  Clock::duration delivering{};  // in get calls, and reading and checking what they gave
  double prefill_seconds = 0;
  std::vector<double> probe_us;
  std::vector<double> get_us;
};

// As told, else as the trace suggests, else 16.
uint32_t BlockTokensOf(const BenchOptions& options, const RequestTrace& trace) {
  const uint32_t tokens =
      options.block_tokens != 0 ? options.block_tokens : GuessBlockTokens(trace);
  return tokens != 0 ? tokens : 16;
}

class TraceReplay {
 public:
  TraceReplay(const BenchOptions& options, Report& report, RequestTrace trace)
      : options_(options),
        report_(report),
        trace_(std::move(trace)),
        source_(options.seed),
        block_bytes_(options.block_bytes == 0 ? kBlockBytes : options.block_bytes),
        block_tokens_(BlockTokensOf(options, trace_)),
        returns_(options.return_spread < 0 ? std::vector<double>() : ReturnsOf(trace_)) {}

  absl::Status Run(DaemonProcess& daemon, Progress& progress);
  void Summarise(uint64_t dram_bytes, uint64_t device_bytes);
  [[nodiscard]] uint64_t block_bytes() const { return block_bytes_; }
  absl::Status Prepare(const std::string& runtime_dir);

 private:
  absl::Status Request(const TraceRequest& request, const ClientSession::Hints& hints);
  [[nodiscard]] ClientSession::Hints HintsOf(size_t request) const;
  [[nodiscard]] ClientSession::Hints WithComputing(ClientSession::Hints hints,
                                                   uint64_t begin,
                                                   uint64_t end) const;
  absl::StatusOr<uint32_t> Deliver(const KeyChain& prefix, const terrace_id128& hold);
  absl::Status Store(const KeyChain& rest,
                     std::string_view parent,
                     const ClientSession::Hints& hints);
  absl::Status WaitFor(const TraceRequest& request);
  absl::Status KillAndRestart(DaemonProcess& daemon);
  [[nodiscard]] std::unique_ptr<PlacementReplay> MakeAlone(uint64_t dram_bytes) const;
  void AddAlone(uint64_t dram_bytes);
  [[nodiscard]] double PercentOfBlocks(uint64_t blocks) const {
    return totals_.blocks == 0
               ? 0
               : 100.0 * static_cast<double>(blocks) / static_cast<double>(totals_.blocks);
  }

  const BenchOptions& options_;
  Report& report_;
  const RequestTrace trace_;
  const PayloadSource source_;
  const uint64_t block_bytes_;
  const uint32_t block_tokens_;
  const std::vector<double> returns_;  // none: the daemon is not told
  SharedMemory staging_;
  std::unique_ptr<ClientSession> session_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
  uint32_t staging_blocks_ = 0;
  uint64_t kill_before_ = UINT64_MAX;  // this request
  uint32_t blocks_a_get_ = 1;  // so that a get stays well below the session's lease limit
  std::vector<uint32_t> indexes_;
  Clock::time_point started_;
  std::vector<Clock::duration> asked_at_;  // a request each, since started_
  Clock::duration took_{};
  Totals totals_;
};

absl::Status TraceReplay::Prepare(const std::string& runtime_dir) {
  absl::StatusOr<std::unique_ptr<ClientSession>> session = ClientSession::Connect(runtime_dir);
  if (!session.ok()) {
    return session.status();
  }
  session_ = *std::move(session);
  const uint64_t most = std::max<uint64_t>(1, kMaxStagingBytes / block_bytes_);
  staging_blocks_ = static_cast<uint32_t>(std::min<uint64_t>(LongestChain(trace_), most));
  absl::StatusOr<SharedMemory> staging = SharedMemory::Create(block_bytes_ * staging_blocks_);
  if (!staging.ok()) {
    return staging.status();
  }
  staging_ = *std::move(staging);
  indexes_.resize(staging_blocks_);
  for (uint32_t i = 0; i < staging_blocks_; ++i) {
    indexes_[i] = i;
  }
  const std::string model = "bench/replay/" + trace_.name + "/" + std::to_string(options_.seed);
  absl::StatusOr<terrace_namespace> ns =
      session_->OpenNamespace(model, block_bytes_, block_tokens_);
  if (!ns.ok()) {
    return ns.status();
  }
  ns_ = *ns;
  absl::StatusOr<terrace_region> region =
      session_->RegisterRegion(staging_.fd(), block_bytes_, staging_blocks_);
  if (!region.ok()) {
    return region.status();
  }
  region_ = *region;
  const uint64_t lease_blocks = session_->LeaseLimitBytes() / 2 / SlotBytesFor(block_bytes_);
  blocks_a_get_ = static_cast<uint32_t>(std::clamp<uint64_t>(lease_blocks, 1, kMaxChain));
  return absl::OkStatus();
}

absl::Status TraceReplay::Run(DaemonProcess& daemon, Progress& progress) {
  if (options_.kill_at > 0) {
    kill_before_ = static_cast<uint64_t>(options_.kill_at / 100.0 *
                                         static_cast<double>(trace_.requests.size()));
  }
  progress.Begin("replaying " + trace_.name, trace_.requests.size());
  started_ = Clock::now();
  uint64_t done = 0;
  for (const TraceRequest& request : trace_.requests) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    absl::Status ready = done == kill_before_ ? KillAndRestart(daemon) : absl::OkStatus();
    ready.Update(WaitFor(request));
    if (!ready.ok()) {
      return ready;
    }
    if (absl::Status status = Request(request, HintsOf(done)); !status.ok()) {
      report_.AddError(std::string(status.message()));
    }
    progress.Advance(++done);
  }
  took_ = Clock::now() - started_;
  return absl::OkStatus();
}

// The session goes on: to reach the new daemon and to open and register everything again is the
// library's work.
absl::Status TraceReplay::KillAndRestart(DaemonProcess& daemon) {
  daemon.Kill();
  if (absl::Status status = daemon.StartAgain(); !status.ok()) {
    return status;
  }
  return session_->WaitConnected(kReconnects)
             ? absl::OkStatus()
             : absl::UnavailableError("the session did not find the daemon again");
}

absl::Status TraceReplay::WaitFor(const TraceRequest& request) {
  if (options_.speed <= 0) {
    return absl::OkStatus();
  }
  const double due =
      (request.timestamp_ms - trace_.requests.front().timestamp_ms) / 1e3 / options_.speed;
  while (Seconds(Clock::now() - started_) < due) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    const double left = due - Seconds(Clock::now() - started_);
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(left, 0.0, 0.1)));
  }
  return absl::OkStatus();
}

// In the replay's time, as an engine would tell that is wrong by the spread.
ClientSession::Hints TraceReplay::HintsOf(size_t request) const {
  const TraceRequest& told = trace_.requests[request];
  ClientSession::Hints hints{told.output_tokens, told.stop};
  if (!returns_.empty() && returns_[request] > 0) {
    std::mt19937_64 numbers(options_.seed * 1'000'003 + request);
    const double spread =
        std::exp(options_.return_spread * std::normal_distribution<double>()(numbers));
    hints.return_ms = static_cast<uint32_t>(
        std::clamp(returns_[request] / options_.speed * spread, 1.0, kLongestReturnMs));
  }
  return hints;
}

// The replay computes nothing, from which the daemon would learn that nothing below DRAM is worth
// loading: where it is to read ahead, it is told what the model takes.
ClientSession::Hints TraceReplay::WithComputing(ClientSession::Hints hints,
                                                uint64_t begin,
                                                uint64_t end) const {
  if (options_.return_spread >= 0) {
    hints.compute_us = static_cast<uint64_t>(
        1e6 * (PrefillSeconds(end * block_tokens_) - PrefillSeconds(begin * block_tokens_)));
  }
  return hints;
}

absl::Status TraceReplay::Request(const TraceRequest& request, const ClientSession::Hints& hints) {
  const size_t count = std::min(request.block_ids.size(), kMaxChain);
  totals_.blocks += request.block_ids.size();
  asked_at_.push_back(Clock::now() - started_);
  if (count == 0) {
    return absl::OkStatus();
  }
  const std::string keys = source_.Keys({request.block_ids.data(), count}, kKeyBytes);
  KeyChain chain;
  chain.ns = ns_;
  chain.keys = keys;
  chain.key_bytes = kKeyBytes;
  const Clock::time_point begun = Clock::now();
  absl::StatusOr<Completion> probe = session_->Probe(chain, kHold);
  if (!probe.ok()) {
    return probe.status();
  }
  totals_.probe_us.push_back(Microseconds(Clock::now() - begun));
  const uint32_t held = (*probe)->part_hits[0];
  const auto is_below = [&probe](uint32_t key) {
    return ((*probe)->states[key] & kStateMask) == TERRACE_KEY_LOWER;
  };
  absl::StatusOr<uint32_t> hits = Deliver(chain.Slice(0, held, block_tokens_), (*probe)->hold);
  absl::Status status = hits.status();
  if (status.ok()) {
    totals_.hits += *hits;
    const uint64_t tokens = uint64_t{*hits} * block_tokens_;
    totals_.prefill_seconds += PrefillSeconds(
        request.input_tokens == 0 ? tokens : std::min<uint64_t>(tokens, request.input_tokens));
    const uint64_t local_hits = totals_.local_hits;
    for (uint32_t i = 0; i < held; ++i) {
      totals_.local_hits += i < *hits && is_below(i) ? 1 : 0;
    }
    totals_.waits += totals_.local_hits > local_hits ? 1 : 0;
    if (*hits < held && is_below(*hits)) {
      totals_.gone += held - *hits;  // a hold keeps nothing below DRAM
    } else if (*hits < held) {
      report_.AddError("get: " + std::to_string(held - *hits) +
                       " blocks under a hold were not delivered");
    }
    const std::string_view parent = *hits == 0 ? std::string_view() : chain.Key(*hits - 1);
    status = Store(chain.Slice(*hits, chain.count(), block_tokens_), parent,
                   WithComputing(hints, *hits, chain.count()));
  }
  const absl::Status released = session_->Release({}, (*probe)->hold);
  return status.ok() ? released : status;
}

absl::StatusOr<uint32_t> TraceReplay::Deliver(const KeyChain& prefix, const terrace_id128& hold) {
  const auto pending =
      options_.local_bytes != 0 ? ClientSession::Pending::kWait : ClientSession::Pending::kMiss;
  uint32_t delivered = 0;
  while (delivered < prefix.count()) {
    const KeyChain part = prefix.Slice(delivered, blocks_a_get_, block_tokens_);
    const Clock::time_point begun = Clock::now();
    absl::StatusOr<Completion> got = session_->GetLease(part, hold, pending);
    if (!got.ok()) {
      return got.status();
    }
    totals_.get_us.push_back(Microseconds(Clock::now() - begun));
    const uint32_t ok = DeliveredPrefix(**got);
    for (uint32_t i = 0; i < ok; ++i) {
      const auto* bytes = static_cast<const char*>((*got)->data[i]);
      const absl::Span<const char> payload(bytes, (*got)->payload_bytes[i]);
      totals_.delivered_bytes += payload.size();
      if (options_.verify == BenchOptions::Verify::kYes) {
        const uint64_t missing = payload.size() < block_bytes_ ? block_bytes_ - payload.size() : 0;
        report_.AddWrongBytes(source_.WrongBytes(part.Key(i), payload) + missing);
      } else {
        KeepSum(SumBytes(payload));
      }
    }
    totals_.delivering += Clock::now() - begun;
    if (absl::Status status = session_->Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
    delivered += ok;
    if (ok < part.count()) {
      break;
    }
  }
  return delivered;
}

absl::Status TraceReplay::Store(const KeyChain& rest,
                                std::string_view parent,
                                const ClientSession::Hints& hints) {
  const std::vector<uint32_t> payload_bytes(staging_blocks_, static_cast<uint32_t>(block_bytes_));
  for (uint32_t begin = 0; begin < rest.count();) {
    KeyChain part = rest.Slice(begin, staging_blocks_, block_tokens_);
    part.region = region_;
    part.block_indexes = absl::MakeConstSpan(indexes_).first(part.count());
    for (uint32_t i = 0; i < part.count(); ++i) {
      source_.Fill(part.Key(i), staging_.bytes().subspan(i * block_bytes_, block_bytes_));
    }
    absl::StatusOr<Completion> put =
        session_->Put(part, absl::MakeConstSpan(payload_bytes).first(part.count()), parent,
                      TERRACE_LEVEL_DRAM, hints);
    if (!put.ok()) {
      return put.status();
    }
    const uint32_t stored = CountOutcomes(**put, TERRACE_PUT_STORED);
    const uint32_t failed = CountOutcomes(**put, TERRACE_PUT_FAILED);
    totals_.stored += stored;
    totals_.not_stored += part.count() - stored;
    if (failed != 0) {
      report_.AddError("put: " + std::to_string(failed) + " blocks failed");
    }
    begin += part.count();
    parent = part.Key(part.count() - 1);
  }
  return absl::OkStatus();
}

std::unique_ptr<PlacementReplay> TraceReplay::MakeAlone(uint64_t dram_bytes) const {
  const uint64_t capacity = CapacityBlocks(dram_bytes, block_bytes_);
  if (options_.local_bytes == 0) {
    return PlacementReplay::Create(options_.policy, capacity);
  }
  const uint64_t segment_bytes = DefaultSegmentBytes(kOwnLocalMaxBlock);
  SegmentLog::Options log;
  log.segments = static_cast<uint32_t>(options_.local_bytes / segment_bytes);
  // A record is as long as a slot; what is left are the head and a footer of some pages.
  log.segment_records = static_cast<uint32_t>(segment_bytes / SlotBytesFor(block_bytes_)) - 1;
  log.kept_free = kSegmentsWithoutRecords;
  if (log.segments <= log.kept_free + 1) {
    return nullptr;
  }
  return PlacementReplay::CreateOverLog(options_.policy, capacity, log);
}

void TraceReplay::AddAlone(uint64_t dram_bytes) {
  const double percent = PercentOfBlocks(totals_.hits);
  const std::unique_ptr<PlacementReplay> alone = MakeAlone(dram_bytes);
  if (alone == nullptr) {
    report_.AddValue("hit_ratio", "hit ratio", "%", percent);
    report_.AddNote("the local tier has too few segments to be modelled");
    return;
  }
  uint64_t done = 0;
  for (const TraceRequest& request : trace_.requests) {
    if (done++ == kill_before_) {
      alone->Restart(PlacementReplay::Learnt::kKept);
    }
    const size_t count = std::min(request.block_ids.size(), kMaxChain);
    // With what the daemon was told, at the time at which it was, and by probe or put.
    alone->Request({absl::FromChrono(asked_at_[done - 1]),
                    absl::MakeConstSpan(request.block_ids).first(count),
                    {.input_tokens = static_cast<uint32_t>(count) * block_tokens_},
                    RequestHints{.output_tokens = request.output_tokens,
                                 .stop = StopReasonFrom(request.stop)}});
  }
  const ReplayCounts& counts = alone->counts();
  report_.AddAgainst("hit_ratio", "hit ratio, against placement alone", "%",
                     PercentOfBlocks(counts.hits), {percent});
  report_.AddAgainst("hit_ratio_g2", "  of it from DRAM", "%",
                     PercentOfBlocks(counts.hits - counts.local_hits),
                     {PercentOfBlocks(totals_.hits - totals_.local_hits)});
  if (alone->local() != nullptr) {
    report_.AddAgainst("hit_ratio_g3", "  of it from the local tier", "%",
                       PercentOfBlocks(counts.local_hits), {PercentOfBlocks(totals_.local_hits)});
  }
  report_.AddNote("placement alone with " +
                  std::to_string(CapacityBlocks(dram_bytes, block_bytes_)) +
                  " blocks in DRAM: " + std::to_string(counts.hits) +
                  " hits; the daemon: " + std::to_string(totals_.hits));
}

void TraceReplay::Summarise(uint64_t dram_bytes, uint64_t device_bytes) {
  report_.AddValue("requests", "requests", "", static_cast<double>(trace_.requests.size()));
  if (dram_bytes != 0) {
    AddAlone(dram_bytes);
  } else {
    report_.AddValue("hit_ratio", "hit ratio", "%", PercentOfBlocks(totals_.hits));
    report_.AddValue("hit_ratio_g2", "  of it from DRAM", "%",
                     PercentOfBlocks(totals_.hits - totals_.local_hits));
  }
  if (totals_.gone > 0) {
    report_.AddNote(
        std::to_string(totals_.gone) +
        " blocks were found on the local tier by a probe and were gone before their get");
  }
  if (options_.local_bytes != 0) {
    report_.AddValue("waits", "requests with hits below DRAM", "",
                     static_cast<double>(totals_.waits));
  }
  if (options_.local_bytes != 0 && device_bytes != 0 && totals_.stored != 0) {
    report_.AddValue(
        "device_bytes", "bytes on the device for a byte that is stored", "x",
        static_cast<double>(device_bytes) / static_cast<double>(totals_.stored * block_bytes_));
  }
  const double delivering = Seconds(totals_.delivering);
  report_.AddValue(
      "get_rate", "delivered and read", "GB/s",
      delivering > 0 ? static_cast<double>(totals_.delivered_bytes) / delivering / 1e9 : 0);
  report_.AddValue("probe", "probe, median", "us", Percentile(totals_.probe_us, 0.5));
  report_.AddValue("probe_p99", "probe, 99 %", "us", Percentile(totals_.probe_us, 0.99));
  report_.AddValue("get", "get, median", "us", Percentile(totals_.get_us, 0.5));
  report_.AddValue("get_p99", "get, 99 %", "us", Percentile(totals_.get_us, 0.99));
  report_.AddValue("stored_blocks", "blocks stored", "", static_cast<double>(totals_.stored));
  report_.AddValue("not_stored_blocks", "blocks not stored", "",
                   static_cast<double>(totals_.not_stored));
  report_.AddValue("prefill_saved", "prefill saved", "s", totals_.prefill_seconds);
  report_.AddValue("seconds", "whole replay", "s", Seconds(took_));
  report_.AddNote(std::string("prefill by the model \"") + kPrefillModelName + "\", " +
                  std::to_string(block_tokens_) + " tokens a block; payload " +
                  std::to_string(block_bytes_ >> 10U) + " KiB a block");
}

void AddReadAhead(const std::string& runtime_dir, Report& report) {
  const auto ahead = OperatorCalls::Create(runtime_dir)->ForReturns();
  if (!ahead.ok()) {
    report.AddError(std::string(ahead.status().message()));
    return;
  }
  const auto gigabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  report.AddValue("returns_read", "read ahead of returns", "GB", gigabytes(ahead->bytes));
  report.AddValue("returns_used", "  of it, used", "GB", gigabytes(ahead->used_bytes));
  report.AddValue("returns_wasted", "  of it, evicted unused", "GB",
                  gigabytes(ahead->wasted_bytes));
}

}  // namespace

absl::Status RunReplay(const BenchOptions& options, Report& report, Progress& progress) {
  absl::StatusOr<RequestTrace> trace =
      ReadRequestTrace(options.trace, {.max_requests = options.max_requests});
  if (!trace.ok()) {
    return absl::Status(trace.status().code(),
                        "--trace " + options.trace + ": " + std::string(trace.status().message()));
  }
  if (options.kill_at > 0 && !options.runtime_dir.empty()) {
    return absl::InvalidArgumentError("--kill-at: only a daemon of the bench's own is killed");
  }
  if (options.return_spread >= 0 && options.speed <= 0) {
    return absl::InvalidArgumentError(
        "--returns: a replay as fast as possible has no time to tell");
  }
  if (options.where == BenchOptions::Where::kInProcess) {
    if (options.local_bytes != 0) {
      return absl::InvalidArgumentError("--local: not in process");
    }
    const uint32_t tokens = BlockTokensOf(options, *trace);
    return ReplayInProcess(options, *trace, tokens, report, progress);
  }
  TraceReplay replay(options, report, *std::move(trace));
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = DaemonProcess::Start(options, kDramBytes);
  if (!daemon.ok()) {
    return daemon.status();
  }
  if (absl::Status status = replay.Prepare((*daemon)->runtime_dir()); !status.ok()) {
    return status;
  }
  absl::Status status = replay.Run(**daemon, progress);
  if (status.ok() && (*daemon)->HasEnded()) {
    status = absl::UnavailableError("terraced ended by itself:\n" + (*daemon)->LogEnd());
  }
  if (!status.ok()) {
    return status;
  }
  if (options.return_spread >= 0) {
    AddReadAhead((*daemon)->runtime_dir(), report);
  }
  // A daemon that was killed took its count along.
  const uint64_t device_bytes = options.kill_at > 0 ? 0 : (*daemon)->DeviceWrittenBytes();
  replay.Summarise((*daemon)->own_dram_bytes(), device_bytes);
  return absl::OkStatus();
}

}  // namespace terrace::bench
