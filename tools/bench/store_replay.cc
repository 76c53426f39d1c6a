#include "tools/bench/store_replay.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "daemon/block_store.h"
#include "tiers/placement/replay.h"
#include "tools/bench/payload.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kDramBytes = uint64_t{64} << 20;
constexpr uint32_t kKeyBytes = 36;
constexpr size_t kMaxChain = 16'384;

class TraceClock final : public Clock {
 public:
  [[nodiscard]] absl::Duration Now() const override { return now_; }
  void Reach(absl::Duration now) { now_ = std::max(now_, now); }

 private:
  absl::Duration now_ = absl::ZeroDuration();
};

class CallingThread final : public Executor {
 public:
  void Run(Priority /*priority*/, std::function<void()> work) override { work(); }
  [[nodiscard]] int parallelism() const override { return 1; }
};

RequestHints HintsOf(const TraceRequest& request) {
  return {.input_tokens = request.input_tokens,
          .output_tokens = request.output_tokens,
          .stop = StopReasonFrom(request.stop)};
}

class StoreReplay {
 public:
  StoreReplay(const BenchOptions& options, uint32_t block_tokens, Report& report)
      : verify_(options.verify == BenchOptions::Verify::kYes),
        block_bytes_(options.block_bytes == 0 ? kBlockBytes : options.block_bytes),
        block_tokens_(block_tokens),
        keys_a_call_(std::max<uint64_t>(1, kMaxInlineBytes / block_bytes_)),
        source_(options.seed),
        report_(report) {}

  absl::Status Prepare(const std::string& policy, uint64_t dram_bytes) {
    slabs_ = MakeSealedSlabSource(/*huge_pages=*/false, /*touch_threads=*/1);
    BlockStoreOptions store_options;
    store_options.dram_bytes = dram_bytes;
    store_options.policy = policy;
    BlockStore::Parts parts;
    parts.clock = &clock_;
    parts.executor = &executor_;
    parts.slabs = slabs_.get();
    absl::StatusOr<std::unique_ptr<BlockStore>> store = BlockStore::Create(store_options, parts);
    if (!store.ok()) {
      return store.status();
    }
    store_ = *std::move(store);
    absl::StatusOr<TenantId> tenant = store_->OpenTenant("bench");
    if (!tenant.ok()) {
      return tenant.status();
    }
    caller_ = {*tenant, store_->OpenSession(*tenant, BlockStore::LeaseRight::kNone)};
    NamespaceRecord record;
    record.model = "bench/replay";
    record.weights_revision = "1";
    record.kv_dtype = "bf16";
    record.layout = "bench/1";
    record.hash_algorithm = "bench";
    record.block_tokens = block_tokens_;
    record.block_bytes = block_bytes_;
    absl::StatusOr<OpenedNamespace> ns = store_->OpenNamespace(*tenant, record);
    if (!ns.ok()) {
      return ns.status();
    }
    digest_ = ns->digest;
    return absl::OkStatus();
  }

  void Request(const TraceRequest& request) {
    clock_.Reach(absl::Milliseconds(request.timestamp_ms));
    store_->Tick();
    const size_t count = std::min(request.block_ids.size(), kMaxChain);
    blocks_ += request.block_ids.size();
    if (count == 0) {
      return;
    }
    const std::string keys = source_.Keys({request.block_ids.data(), count}, kKeyBytes);
    ProbeResult probe;
    ProbeCall call{{PartOf(keys, 0, count)}, "", absl::Minutes(1), false, Priority::kNormal};
    store_->Probe(caller_, std::move(call), [&](ProbeResult got) { probe = std::move(got); });
    const size_t hits = Deliver(keys, probe.part_hits.front(), probe.hold_id);
    hits_ += hits;
    Store(keys, hits, count, HintsOf(request));
    store_->Release(caller_, {}, {&probe.hold_id, probe.hold_id.IsZero() ? 0U : 1U});
  }

  [[nodiscard]] uint64_t blocks() const { return blocks_; }
  [[nodiscard]] uint64_t hits() const { return hits_; }
  [[nodiscard]] uint64_t declined() const { return declined_; }

 private:
  [[nodiscard]] StorePart PartOf(const std::string& keys, size_t first, size_t count) const {
    StorePart part;
    part.namespace_digest = digest_;
    part.key_bytes = kKeyBytes;
    part.keys = keys.substr(first * kKeyBytes, count * kKeyBytes);
    part.first_token = first * block_tokens_;
    return part;
  }

  size_t Deliver(const std::string& keys, size_t held, const Digest128& hold) {
    size_t delivered = 0;
    while (delivered < held) {
      const size_t count = std::min<size_t>(held - delivered, keys_a_call_);
      GetCall call;
      call.parts.push_back(PartOf(keys, delivered, count));
      call.hold_id = hold;
      call.deadline = clock_.Now() + absl::Seconds(1);
      absl::StatusOr<GetResult> got = absl::InternalError("no answer");
      store_->Get(caller_, std::move(call),
                  [&](absl::StatusOr<GetResult> result) { got = std::move(result); });
      if (!got.ok()) {
        report_.AddError("get: " + std::string(got.status().message()));
        return delivered;
      }
      for (size_t i = 0; i < count; ++i) {
        if (got->outcomes[i] != static_cast<char>(GetOutcome::kOk)) {
          report_.AddError("get: a block under a hold was not delivered");
          return delivered + i;
        }
        if (verify_) {
          const std::string_view key =
              std::string_view(keys).substr((delivered + i) * kKeyBytes, kKeyBytes);
          report_.AddWrongBytes(
              source_.WrongBytes(key, {got->payload.data() + i * block_bytes_, block_bytes_}));
        }
      }
      delivered += count;
    }
    return delivered;
  }

  void Store(const std::string& keys, size_t first, size_t end, const RequestHints& hints) {
    while (first < end) {
      const size_t count = std::min<size_t>(end - first, keys_a_call_);
      PutCall call;
      call.part = PartOf(keys, first, count);
      call.parent = first == 0 ? "" : keys.substr((first - 1) * kKeyBytes, kKeyBytes);
      call.payload_bytes.assign(count, static_cast<uint32_t>(block_bytes_));
      call.payload.resize(count * block_bytes_);
      for (size_t i = 0; i < count; ++i) {
        source_.Fill(std::string_view(keys).substr((first + i) * kKeyBytes, kKeyBytes),
                     {call.payload.data() + i * block_bytes_, block_bytes_});
      }
      call.hints = hints;
      call.deadline = clock_.Now() + absl::Seconds(1);
      absl::StatusOr<PutResult> put = absl::InternalError("no answer");
      store_->Put(caller_, std::move(call),
                  [&](absl::StatusOr<PutResult> result) { put = std::move(result); });
      if (!put.ok()) {
        report_.AddError("put: " + std::string(put.status().message()));
        return;
      }
      for (size_t i = 0; i < count; ++i) {
        if (put->outcomes[i] == static_cast<char>(PutOutcome::kDeclined)) {
          declined_ += end - first - i;
          return;  // what follows could not be used
        }
      }
      first += count;
    }
  }

  const bool verify_;
  const uint64_t block_bytes_;
  const uint32_t block_tokens_;
  const uint64_t keys_a_call_;
  const PayloadSource source_;
  Report& report_;
  TraceClock clock_;
  CallingThread executor_;
  std::unique_ptr<SlabSource> slabs_;
  std::unique_ptr<BlockStore> store_;
  Caller caller_;
  Digest128 digest_;
  uint64_t blocks_ = 0;
  uint64_t hits_ = 0;
  uint64_t declined_ = 0;
};

}  // namespace

uint64_t CapacityBlocks(uint64_t dram_bytes, uint64_t block_bytes) {
  const uint64_t slot = SlotBytesFor(block_bytes);
  const uint64_t slab = std::max(kMinSlabBytes, kMinSlotsPerSlab * slot);
  const uint64_t slab_bytes = (slab + (uint64_t{2} << 20) - 1) >> 21U << 21U;
  return dram_bytes / slab_bytes * (slab_bytes / slot);
}

absl::Status ReplayInProcess(const BenchOptions& options,
                             const RequestTrace& trace,
                             uint32_t block_tokens,
                             Report& report,
                             Progress& progress) {
  const uint64_t dram_bytes = options.dram_bytes == 0 ? kDramBytes : options.dram_bytes;
  const uint64_t block_bytes = options.block_bytes == 0 ? kBlockBytes : options.block_bytes;
  StoreReplay replay(options, block_tokens, report);
  if (absl::Status status = replay.Prepare(options.policy, dram_bytes); !status.ok()) {
    return status;
  }
  const uint64_t capacity = CapacityBlocks(dram_bytes, block_bytes);
  const std::unique_ptr<PlacementReplay> alone = PlacementReplay::Create(options.policy, capacity);
  progress.Begin("replaying " + trace.name, trace.requests.size());
  uint64_t done = 0;
  for (const TraceRequest& request : trace.requests) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    replay.Request(request);
    const size_t count = std::min(request.block_ids.size(), kMaxChain);
    // What the store is told, when it is told that.
    alone->Request({absl::Milliseconds(request.timestamp_ms),
                    absl::MakeConstSpan(request.block_ids).first(count),
                    {.input_tokens = static_cast<uint32_t>(count) * block_tokens},
                    HintsOf(request)});
    progress.Advance(++done);
  }
  const double blocks = std::max<double>(1, static_cast<double>(replay.blocks()));
  const double expected = 100.0 * static_cast<double>(alone->counts().hits) / blocks;
  const double percent = 100.0 * static_cast<double>(replay.hits()) / blocks;
  report.AddValue("requests", "requests", "", static_cast<double>(trace.requests.size()));
  report.AddAgainst("hit_ratio", "hit ratio, against placement alone", "%", expected, {percent});
  report.AddValue("hit_ratio_g2", "  of it from DRAM", "%", percent);
  report.AddValue("declined_blocks", "blocks not let in", "",
                  static_cast<double>(replay.declined()));
  report.AddNote("BlockStore in this process with policy " + options.policy + " and " +
                 std::to_string(capacity) + " blocks: " + std::to_string(replay.hits()) +
                 " hits; placement alone: " + std::to_string(alone->counts().hits));
  return absl::OkStatus();
}

}  // namespace terrace::bench
