// From which prefix on a throttled tier is recommended, and whether that is right. Not a test: run
// by hand, as
//
//   crossover_bench [pairs]
//
// One store in this process over a tier of a given latency and bandwidth (reads side by side share
// the bandwidth and not the latency), and a declared engine (tools/trace/prefill_model.h). The
// store is told neither figure of the tier: it times the reads of a few blocks. Then, for prefixes
// of growing length, what a probe says before the load, how long the load took, and the same of
// computing; "wrong" counts probes that recommended what turned out slower, or advised against what
// turned out faster, by more than a tenth.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

#include "daemon/block_store.h"
#include "tests/doubles/heap_slab_source.h"
#include "tests/doubles/pool_executor.h"
#include "tiers/copy/one_pass.h"
#include "tools/trace/prefill_model.h"

namespace terrace {
namespace {

constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kBlockBytes = 64 << 10;

struct Throttle {
  absl::Duration latency;
  double bytes_per_second = 0;
};

// Holds every block, all of one payload. Reads end by themselves, in order.
class ThrottledTier final : public LowerTier {
 public:
  explicit ThrottledTier(const Throttle& throttle)
      : throttle_(throttle), payload_(kBlockBytes, 'k'), worker_([this] { Work(); }) {}
  ~ThrottledTier() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    worker_.join();
  }

  [[nodiscard]] std::string_view name() const override { return "throttled"; }
  bool Lookup(const BlockIdentity& /*identity*/, LowerBlock* out) override {
    *out = {kBlockBytes, checksum_, 0};
    return true;
  }
  uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) override {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = BootClock().Now();
    wire_free_ = std::max(wire_free_, now + throttle_.latency) +
                 absl::Seconds(kBlockBytes / throttle_.bytes_per_second);
    reads_.emplace(wire_free_, std::make_pair(request.destination, std::move(done)));
    return ++tokens_;
  }
  void Cancel(uint64_t /*token*/) override {}
  [[nodiscard]] absl::Duration EstimateRead(uint64_t /*bytes*/) const override {
    return absl::ZeroDuration();
  }

 private:
  using PendingRead = std::pair<absl::Span<char>, std::function<void(ReadOutcome)>>;

  void Work() {
    for (;;) {
      std::optional<PendingRead> ended;
      {
        absl::MutexLock lock(&mutex_);
        const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return stopping_ || !reads_.empty();
        };
        mutex_.Await(absl::Condition(&due));
        if (reads_.empty()) {
          return;
        }
        if (reads_.begin()->first <= BootClock().Now()) {
          ended = std::move(reads_.begin()->second);
          reads_.erase(reads_.begin());
        }
      }
      if (ended.has_value()) {
        std::copy(payload_.begin(), payload_.end(), ended->first.begin());
        ended->second(ReadOutcome::kVerified);
      } else {
        absl::SleepFor(absl::Microseconds(50));
      }
    }
  }

  const Throttle throttle_;
  const std::string payload_;
  const Digest128 checksum_ = HashPayload(payload_);
  absl::Mutex mutex_;
  std::multimap<absl::Duration, PendingRead> reads_ ABSL_GUARDED_BY(mutex_);
  absl::Duration wire_free_ ABSL_GUARDED_BY(mutex_);
  uint64_t tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread worker_;
};

class Room {
 public:
  explicit Room(const Throttle& throttle) : tier_(throttle) {
    BlockStore::Parts parts;
    parts.clock = &BootClock();
    parts.executor = &executor_;
    parts.slabs = &slabs_;
    parts.lower_tiers.push_back(&tier_);
    BlockStoreOptions options;
    options.dram_bytes = uint64_t{512} << 20;
    auto store = BlockStore::Create(options, parts);
    if (!store.ok()) {
      std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
      std::exit(1);
    }
    store_ = std::move(*store);
    tenant_ = *store_->OpenTenant("bench");
    NamespaceRecord record;
    record.model = "bench";
    record.weights_revision = "1";
    record.kv_dtype = "bf16";
    record.layout = "bench/1";
    record.hash_algorithm = "none";
    record.block_tokens = kBlockTokens;
    record.block_bytes = kBlockBytes;
    ns_ = store_->OpenNamespace(tenant_, record)->digest;
    const auto point = [](uint64_t tokens) {
      return PrefillTime{tokens, absl::Seconds(PrefillSeconds(tokens))};
    };
    store_->SetNamespaceRules(
        {{"", "*", std::nullopt, *ModelThrough({point(8192), point(131072)})}});
  }

  // A chain that nobody has asked for before.
  StorePart NewChain(uint32_t blocks) {
    StorePart part;
    part.namespace_digest = ns_;
    ++chains_;
    for (uint32_t i = 0; i < blocks; ++i) {
      std::string key(32, '\0');
      std::snprintf(key.data(), key.size(), "%u/%u", chains_, i);
      part.keys += key;
    }
    return part;
  }
  ProbeResult Probe(const StorePart& part) {
    ProbeCall call;
    call.parts.push_back(part);
    ProbeResult result;
    store_->Probe({tenant_, kNoSession}, std::move(call),
                  [&result](ProbeResult answer) { result = std::move(answer); });
    return result;
  }
  double LoadSeconds(const StorePart& part) {
    const absl::Duration began = BootClock().Now();
    absl::Notification ended;
    PrefetchCall call{{part}, Priority::kHigh, began + absl::Seconds(60), {}};
    uint64_t ticket = 0;
    store_->Prefetch({tenant_, kNoSession}, std::move(call),
                     [&ticket](absl::StatusOr<PrefetchResult> begun) { ticket = begun->ticket; });
    store_->WaitTicket({tenant_, kNoSession}, ticket, began + absl::Seconds(60),
                       [&ended](const absl::StatusOr<TicketResult>&) { ended.Notify(); });
    ended.WaitForNotification();
    return absl::ToDoubleSeconds(BootClock().Now() - began);
  }

 private:
  doubles::PoolExecutor executor_{2};
  HeapSlabSource slabs_;
  ThrottledTier tier_;
  std::unique_ptr<BlockStore> store_;
  TenantId tenant_{0};
  Digest128 ns_;
  uint32_t chains_ = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(const Throttle& throttle, int pairs) {
  Room room(throttle);
  for (int i = 0; i < 8; ++i) {
    room.LoadSeconds(room.NewChain(1));
  }
  room.LoadSeconds(room.NewChain(64));
  std::printf("\nlatency %s, %.0f MB/s\n", absl::FormatDuration(throttle.latency).c_str(),
              throttle.bytes_per_second / 1e6);
  std::printf("%8s %12s %12s %12s %8s\n", "tokens", "told load", "took load", "computing", "worth");
  int wrong = 0;
  for (uint32_t blocks = 1; blocks <= 1024; blocks *= 2) {
    const uint64_t tokens = uint64_t{blocks} * kBlockTokens;
    const double computing = PrefillSeconds(tokens);
    std::vector<double> told;
    std::vector<double> took;
    int worth = 0;
    for (int i = 0; i < pairs; ++i) {
      const StorePart chain = room.NewChain(blocks);
      const ProbeResult probe = room.Probe(chain);
      const bool advised = probe.worth_tokens == tokens;
      told.push_back(absl::ToDoubleSeconds(probe.load_time));
      took.push_back(room.LoadSeconds(chain));
      worth += advised ? 1 : 0;
      wrong += (advised ? took.back() > 1.1 * computing : computing > 1.1 * took.back()) ? 1 : 0;
    }
    std::printf("%8llu %9.2f ms %9.2f ms %9.2f ms %5d/%d\n",
                static_cast<unsigned long long>(tokens), Median(told) * 1e3, Median(took) * 1e3,
                computing * 1e3, worth, pairs);
  }
  std::printf("wrong: %d of %d\n", wrong, 11 * pairs);
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  const int pairs = argc > 1 ? std::max(1, std::atoi(argv[1])) : 9;
  for (const terrace::Throttle& throttle : {terrace::Throttle{absl::Microseconds(200), 1e9},
                                            terrace::Throttle{absl::Milliseconds(20), 200e6},
                                            terrace::Throttle{absl::Milliseconds(60), 100e6},
                                            terrace::Throttle{absl::Milliseconds(5), 50e6}}) {
    terrace::Measure(throttle, pairs);
  }
  return 0;
}
