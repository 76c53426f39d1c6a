// What a pool costs beside raw O_DIRECT transfers on the same folder, and its catalogue by itself.
// Not a test: run by hand, as
//
//   pool_bench FOLDER [payload KiB [depth [pairs]]]
//
// The pool is in FOLDER/pool, behind a worker process of its own. Figure and limit alternate; the
// median of the pairs' ratios is printed with minimum and maximum. Published means synced and named
// by a head; the raw side writes a preallocated file and syncs it. Every read of the pool is
// verified and copied into a slot.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "daemon/worker/worker_pool_files.h"
#include "tests/doubles/pool_executor.h"
#include "tests/doubles/seeded.h"
#include "tiers/os/async_io.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/shared/pool_catalogue.h"
#include "tiers/shared/shared_tier.h"

namespace terrace {
namespace {

constexpr uint64_t kPassBytes = uint64_t{1} << 30;  // moved by one side of a pair

double Seconds(absl::Time from) {
  return absl::ToDoubleSeconds(absl::Now() - from);
}

// So many at a time.
class Gate {
 public:
  explicit Gate(uint32_t depth) : free_(depth), depth_(depth) {}
  void Enter() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Gate* gate) { return gate->free_ > 0; }, this));
    --free_;
  }
  void Leave() {
    absl::MutexLock lock(&mutex_);
    ++free_;
  }
  void WaitForAll() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Gate* gate) { return gate->free_ == gate->depth_; }, this));
  }

 private:
  absl::Mutex mutex_;
  uint32_t free_ ABSL_GUARDED_BY(mutex_);
  const uint32_t depth_;
};

class Bench {
 public:
  Bench(std::string folder, uint64_t payload_bytes, uint32_t depth)
      : folder_(std::move(folder)),
        payload_bytes_(payload_bytes),
        record_bytes_(kPageBytes + payload_bytes),
        count_(static_cast<uint32_t>(kPassBytes / payload_bytes)),
        depth_(depth) {}
  ~Bench() {
    stop_ = true;
    if (ticker_.joinable()) {
      ticker_.join();
    }
  }

  absl::Status Open() {
    std::filesystem::create_directories(folder_ + "/pool");
    WorkerPoolFilesOptions worker;
    worker.name = "g4";
    worker.root = folder_ + "/pool";
    worker.program = POOL_WORKER_PATH;
    absl::StatusOr<std::unique_ptr<PoolFiles>> files =
        MakeWorkerPoolFiles(worker, {&BootClock(), nullptr});
    if (!files.ok()) {
      return files.status();
    }
    files_ = *std::move(files);
    SharedTierOptions options;
    options.node = {1, 2};
    options.capacity_bytes = uint64_t{256} << 30;
    SharedTierParts parts;
    parts.files = files_.get();
    parts.clock = &BootClock();
    parts.hashing = &hashing_;
    parts.maintenance = &maintenance_;
    absl::StatusOr<std::unique_ptr<SharedTier>> tier = OpenSharedTier(options, parts);
    if (!tier.ok()) {
      return tier.status();
    }
    tier_ = *std::move(tier);
    ticker_ = std::thread([this] {
      while (!stop_) {
        tier_->Tick();
        absl::SleepFor(absl::Milliseconds(10));
      }
    });
    while (tier_->figures().state != PoolState::kOnline) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    const std::string noise = doubles::Seeded(1).Bytes(payload_bytes_);
    for (uint32_t i = 0; i < depth_; ++i) {
      slots_.emplace_back(record_bytes_);
      std::memcpy(slots_.back().bytes() + kPageBytes, noise.data(), noise.size());
    }
    checksum_ = PayloadChecksum(noise);
    absl::StatusOr<std::unique_ptr<Folder>> raw =
        KernelFileSystem().OpenFolder(folder_, FolderMode::kExisting);
    if (!raw.ok()) {
      return raw.status();
    }
    raw_folder_ = *std::move(raw);
    return absl::OkStatus();
  }

  double Publish() {
    Gate gate(depth_);
    std::atomic<uint32_t> failed{0};
    const absl::Time begun = absl::Now();
    // Blocks in flight to the head are more than slots.
    Gate published(1U << 20);
    for (uint32_t i = 0; i < count_; ++i) {
      gate.Enter();
      const std::string key = KeyOf(written_++);
      WriteRequest request;
      request.identity = {{1, 2}, 1, "", key};
      request.slot = slots_[i % depth_].span();
      request.payload_bytes = static_cast<uint32_t>(payload_bytes_);
      request.checksum = checksum_;
      published.Enter();
      Try(request, &gate, &published, &failed);
    }
    published.WaitForAll();
    if (failed > 0) {
      std::cerr << failed << " not published\n";
      std::exit(1);
    }
    return static_cast<double>(count_ * payload_bytes_) / Seconds(begun) / 1e9;
  }
  void Try(const WriteRequest& request,
           Gate* gate,
           Gate* published,
           std::atomic<uint32_t>* failed) {
    while (true) {
      const auto answered = std::make_shared<std::atomic<int>>(0);
      tier_->Publish(
          request, [gate] { gate->Leave(); },
          [published, failed, answered](WriteOutcome outcome) {
            answered->store(static_cast<int>(outcome));
            if (outcome != WriteOutcome::kBusy) {
              *failed += outcome == WriteOutcome::kWritten ? 0 : 1;
              published->Leave();
            }
          });
      if (answered->load() != static_cast<int>(WriteOutcome::kBusy)) {
        return;
      }
      absl::SleepFor(absl::Milliseconds(1));
      gate->Enter();
    }
  }
  double Read() {
    Gate gate(depth_);
    std::atomic<uint32_t> failed{0};
    std::vector<uint64_t> order(count_);
    for (uint32_t i = 0; i < count_; ++i) {
      order[i] = written_ - 1 - i;
    }
    doubles::Seeded random(written_);
    for (uint32_t i = count_; i > 1; --i) {
      std::swap(order[i - 1], order[random.Below(i)]);
    }
    std::vector<AlignedBuffer> into;
    for (uint32_t i = 0; i < depth_; ++i) {
      into.emplace_back(record_bytes_);
    }
    const absl::Time begun = absl::Now();
    for (uint32_t i = 0; i < count_; ++i) {
      gate.Enter();
      const std::string key = KeyOf(order[i]);
      LowerTier::ReadRequest request;
      request.identity = {{1, 2}, 1, "", key};
      if (!tier_->Lookup(request.identity, &request.block)) {
        ++failed;
        gate.Leave();
        continue;
      }
      request.destination = into[i % depth_].span().subspan(kPageBytes);
      request.header_page_in_front = true;
      request.deadline = absl::InfiniteDuration();
      tier_->Read(request, [&](ReadOutcome outcome) {
        failed += outcome == ReadOutcome::kVerified ? 0 : 1;
        gate.Leave();
      });
    }
    gate.WaitForAll();
    if (failed > 0) {
      std::cerr << failed << " reads failed\n";
      std::exit(1);
    }
    return static_cast<double>(count_ * payload_bytes_) / Seconds(begun) / 1e9;
  }
  double RawWrite() {
    const std::string name = "raw" + std::to_string(++raws_);
    if (raws_ > 2) {
      static_cast<void>(raw_folder_->Remove("raw" + std::to_string(raws_ - 2)));
    }
    raw_ = *raw_folder_->Open(name, OpenMode::kCreateNew, Caching::kDirect);
    static_cast<void>(raw_->Preallocate(count_ * record_bytes_));
    static_cast<void>(raw_->Sync());
    const absl::Time begun = absl::Now();
    Raw(IoKind::kWrite);
    static_cast<void>(raw_->Sync());
    return static_cast<double>(count_ * payload_bytes_) / Seconds(begun) / 1e9;
  }
  double RawRead() {
    const absl::Time begun = absl::Now();
    Raw(IoKind::kRead);
    return static_cast<double>(count_ * payload_bytes_) / Seconds(begun) / 1e9;
  }

  static void Report(const std::string& name,
                     int pairs,
                     const std::function<double()>& figure,
                     const std::function<double()>& limit) {
    std::vector<double> ratios;
    std::vector<double> figures;
    for (int pair = 0; pair < pairs; ++pair) {
      figures.push_back(figure());
      ratios.push_back(figures.back() / limit());
    }
    std::sort(ratios.begin(), ratios.end());
    std::sort(figures.begin(), figures.end());
    std::cout << name << ": " << figures[figures.size() / 2] << " GB/s, ratio to raw "
              << ratios[ratios.size() / 2] << " (" << ratios.front() << " to " << ratios.back()
              << ", " << ratios.size() << " pairs)\n";
  }
  void ReportCalls() const {
    const PoolFilesFigures files = tier_->figures().files;
    std::cout << "calls:";
    for (uint32_t op = 1; op <= kPoolOps; ++op) {
      std::cout << " " << files.calls[op];
    }
    std::cout
        << " (read write sync make create replace remove mkfolder rmfolder list space root)\n";
  }

 private:
  void Raw(IoKind kind) {
    Gate gate(depth_);
    for (uint32_t i = 0; i < count_; ++i) {
      gate.Enter();
      IoRequest request;
      request.kind = kind;
      request.file = raw_.get();
      request.offset = uint64_t{kind == IoKind::kRead ? (i * 37) % count_ : i} * record_bytes_;
      request.pieces = {slots_[i % depth_].span()};
      const auto token = io_->Submit(std::move(request), [&](const IoCompletion& completion) {
        if (!completion.status.ok()) {
          std::cerr << completion.status << "\n";
          std::exit(1);
        }
        gate.Leave();
      });
      static_cast<void>(token);
    }
    gate.WaitForAll();
  }
  static std::string KeyOf(uint64_t n) { return doubles::Seeded(n).Bytes(32); }

  const std::string folder_;
  const uint64_t payload_bytes_;
  const uint64_t record_bytes_;
  const uint32_t count_;
  const uint32_t depth_;
  doubles::PoolExecutor hashing_{2};
  doubles::PoolExecutor maintenance_{2};
  std::unique_ptr<PoolFiles> files_;
  std::unique_ptr<SharedTier> tier_;
  std::unique_ptr<AsyncIo> io_ = MakeAsyncIo({}, BootClock());
  std::unique_ptr<Folder> raw_folder_;
  std::unique_ptr<File> raw_;
  std::vector<AlignedBuffer> slots_;
  Digest128 checksum_;
  uint64_t written_ = 0;
  uint32_t raws_ = 0;
  std::atomic<bool> stop_{false};
  std::thread ticker_;
};

void ReportCatalogue(uint64_t records) {
  PoolCatalogue catalogue({1, 2}, nullptr);
  doubles::Seeded random(5);
  constexpr uint32_t kARound = 1000;
  std::vector<Digest128> some;
  for (uint64_t n = 0; n < records; n += kARound) {
    const SegmentName name{{{n % 800000 + 1, 1}, 1}, static_cast<uint32_t>(n / kARound)};
    catalogue.Keep(name.life.node, name, 65536);
    std::vector<IndexedRecord> listed(kARound);
    for (uint32_t i = 0; i < kARound; ++i) {
      listed[i].fingerprint = {random.Next(), random.Next()};
      listed[i].page = 1 + i * 60;
      listed[i].payload_bytes = 200000;
      listed[i].kind = 1;
    }
    catalogue.Add(name, listed, 65000, true);
    some.push_back(listed[n / kARound % kARound].fingerprint);
  }
  std::vector<double> hits;
  std::vector<double> misses;
  for (int round = 0; round < 200; ++round) {
    FoundPlace found;
    std::vector<Digest128> keys;
    for (int i = 0; i < 1024; ++i) {
      keys.push_back(some[random.Below(some.size())]);
    }
    absl::Time begun = absl::Now();
    uint32_t count = 0;
    for (const Digest128& key : keys) {
      count += catalogue.Find(key, &found) ? 1 : 0;
    }
    hits.push_back(Seconds(begun) * 1e6);
    for (Digest128& key : keys) {
      key.lo ^= 0x5555555555555555U;
    }
    begun = absl::Now();
    for (const Digest128& key : keys) {
      count += catalogue.Find(key, &found) ? 1 : 0;
    }
    misses.push_back(Seconds(begun) * 1e6);
    if (count != 1024) {
      std::exit(1);
    }
  }
  std::sort(hits.begin(), hits.end());
  std::sort(misses.begin(), misses.end());
  std::cout << "catalogue of " << records << ": "
            << static_cast<double>(catalogue.memory_bytes()) / static_cast<double>(records)
            << " bytes a record; 1,024 lookups that hit " << hits[100] << " us, that miss "
            << misses[100] << " us\n";
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: pool_bench FOLDER [payload KiB [depth [pairs]]]\n";
    return 2;
  }
  const uint64_t payload_kib = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 2048;
  const auto depth = static_cast<uint32_t>(argc > 3 ? std::atoi(argv[3]) : 8);
  const int pairs = argc > 4 ? std::atoi(argv[4]) : 9;
  terrace::ReportCatalogue(5000000);
  terrace::Bench bench(argv[1], payload_kib << 10, depth);
  if (absl::Status status = bench.Open(); !status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  terrace::Bench::Report(
      "publish", pairs, [&] { return bench.Publish(); }, [&] { return bench.RawWrite(); });
  terrace::Bench::Report(
      "cold read", pairs, [&] { return bench.Read(); }, [&] { return bench.RawRead(); });
  bench.ReportCalls();
  return 0;
}
