// How soon a segment tier is there again. Not a test: run by hand, as
//
//   recovery_bench FOLDER [thousands of records [rounds]]
//
// A tier of records of 4 KiB (8 KiB with their headers) is filled once and closed. Then it is
// opened with its index, without the index (by footers), and without footers (by headers, beside as
// many random reads of 4 KiB at depth 8), each as often as there are rounds; medians, minima and
// maxima. "ready" is when OpenSegmentTier returns and the tier serves, "found" when every record is
// held.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "tests/doubles/pool_executor.h"
#include "tests/doubles/seeded.h"
#include "tiers/index/rocksdb_block_index.h"
#include "tiers/os/async_io.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_tier.h"

namespace terrace {
namespace {

constexpr uint32_t kPayload = 4096;
constexpr uint32_t kDepth = 8;
constexpr uint32_t kWritesInFlight = 256;
constexpr uint64_t kRawReads = 100000;

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << what << "\n";
  std::exit(1);
}

// How many are in flight.
class Flight {
 public:
  void Begin(uint32_t most) {
    absl::MutexLock lock(&mutex_);
    const auto room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ < most; };
    mutex_.Await(absl::Condition(&room));
    ++running_;
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    --running_;
  }
  void Wait() {
    absl::MutexLock lock(&mutex_);
    const auto idle = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
    mutex_.Await(absl::Condition(&idle));
  }

 private:
  absl::Mutex mutex_;
  uint32_t running_ ABSL_GUARDED_BY(mutex_) = 0;
};

class Bench {
 public:
  Bench(const std::string& folder, uint64_t records) : folder_(folder), records_(records) {
    options_.path = folder + "/tier";
    options_.max_payload_bytes = uint64_t{1} << 20;
    options_.capacity_bytes = records * 2 * 4096 / 100 * 103 + (uint64_t{8} << 28);
    options_.max_writes = kWritesInFlight;
    options_.scrub_interval = absl::InfiniteDuration();
  }

  void Fill() {
    {
      const std::unique_ptr<SegmentTier> tier = Open(nullptr);
      uuid_ = tier->uuid();
      Close(*tier);
    }
    const std::unique_ptr<BlockIndex> index = OpenIndex();
    const std::unique_ptr<SegmentTier> tier = Open(index.get());
    std::vector<std::unique_ptr<AlignedBuffer>> slots;
    std::vector<AlignedBuffer*> free;
    for (uint32_t i = 0; i < kWritesInFlight; ++i) {
      slots.push_back(std::make_unique<AlignedBuffer>(kPageBytes + kPayload));
      free.push_back(slots.back().get());
    }
    const Digest128 checksum = PayloadChecksum(slots[0]->span().subspan(kPageBytes, kPayload));
    absl::Mutex mutex;
    Flight flight;
    for (uint64_t i = 0; i < records_; ++i) {
      flight.Begin(kWritesInFlight);
      AlignedBuffer* slot = nullptr;
      {
        absl::MutexLock lock(&mutex);
        slot = free.back();
        free.pop_back();
      }
      const std::string key = absl::StrCat("block-", absl::Dec(i, absl::kZeroPad20));
      WriteRequest request;
      request.identity = {{1, 2}, 1, "", key};
      request.slot = slot->span();
      request.payload_bytes = kPayload;
      request.checksum = checksum;
      tier->Write(request, [&, slot](WriteOutcome outcome, const LowerBlock&) {
        if (outcome != WriteOutcome::kWritten) {
          Fail(absl::StrCat("write: ", static_cast<int>(outcome)));
        }
        {
          absl::MutexLock lock(&mutex);
          free.push_back(slot);
        }
        flight.End();
      });
      if (i % 20000 == 0) {
        tier->Tick();
      }
    }
    flight.Wait();
    Close(*tier);
  }

  struct Times {
    double ready = 0;
    double found = 0;
  };
  enum class From : uint8_t { kIndex, kFooters, kHeaders };
  Times Reopen(From from) {
    if (from == From::kHeaders) {
      DamageFooters();
    }
    const absl::Time start = absl::Now();
    const std::unique_ptr<BlockIndex> index = from == From::kIndex ? OpenIndex() : nullptr;
    const std::unique_ptr<SegmentTier> tier = Open(index.get());
    Times times;
    times.ready = absl::ToDoubleSeconds(absl::Now() - start);
    while (tier->figures().segments_to_recover > 0) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    times.found = absl::ToDoubleSeconds(absl::Now() - start);
    const SegmentTierFigures figures = tier->figures();
    const uint64_t by = from == From::kIndex     ? figures.recovered_by_index
                        : from == From::kFooters ? figures.recovered_by_footer
                                                 : figures.recovered_by_header;
    if (figures.records != records_ || by != records_) {
      Fail(absl::StrCat(figures.records, " records, ", by, " of them that way"));
    }
    Close(*tier);
    return times;
  }

  double RawReads() {
    std::vector<std::unique_ptr<File>> files = Files(OpenMode::kRead);
    std::vector<std::unique_ptr<AlignedBuffer>> pages;
    std::vector<AlignedBuffer*> free;
    for (uint32_t i = 0; i < kDepth; ++i) {
      pages.push_back(std::make_unique<AlignedBuffer>(kPageBytes));
      free.push_back(pages.back().get());
    }
    absl::Mutex mutex;
    Flight flight;
    const absl::Time start = absl::Now();
    for (uint64_t i = 0; i < kRawReads; ++i) {
      flight.Begin(kDepth);
      AlignedBuffer* page = nullptr;
      {
        absl::MutexLock lock(&mutex);
        page = free.back();
        free.pop_back();
      }
      IoRequest request;
      request.file = files[seeded_.Below(files.size())].get();
      request.offset = seeded_.Below((uint64_t{256} << 20) / kPageBytes) * kPageBytes;
      request.pieces = {page->span()};
      const auto token = io_->Submit(std::move(request), [&, page](const IoCompletion& completion) {
        if (!completion.status.ok()) {
          Fail(std::string(completion.status.message()));
        }
        {
          absl::MutexLock lock(&mutex);
          free.push_back(page);
        }
        flight.End();
      });
      if (!token.ok()) {
        Fail(std::string(token.status().message()));
      }
    }
    flight.Wait();
    return static_cast<double>(kRawReads) / absl::ToDoubleSeconds(absl::Now() - start);
  }

 private:
  std::unique_ptr<BlockIndex> OpenIndex() {
    absl::StatusOr<OpenedBlockIndex> opened =
        OpenRocksdbBlockIndex({.path = folder_ + "/index", .tier_uuid = uuid_});
    if (!opened.ok()) {
      Fail(std::string(opened.status().message()));
    }
    return std::move(opened->index);
  }
  std::unique_ptr<SegmentTier> Open(BlockIndex* index) {
    SegmentTierParts parts;
    parts.files = &KernelFileSystem();
    parts.io = io_.get();
    parts.clock = &BootClock();
    parts.hashing = &executor_;
    parts.maintenance = &executor_;
    parts.index = index;
    absl::StatusOr<std::unique_ptr<SegmentTier>> tier = OpenSegmentTier(options_, parts);
    if (!tier.ok()) {
      Fail(std::string(tier.status().message()));
    }
    return *std::move(tier);
  }
  static void Close(SegmentTier& tier) {
    absl::Notification closed;
    tier.Close([&](const absl::Status&) { closed.Notify(); });
    closed.WaitForNotification();
  }
  std::vector<std::unique_ptr<File>> Files(OpenMode mode) const {
    std::vector<std::unique_ptr<File>> files;
    const auto folder = KernelFileSystem().OpenFolder(options_.path, FolderMode::kExisting);
    const auto entries = (*folder)->List();
    for (const FolderEntry& entry : *entries) {
      if (entry.name.rfind("segment-", 0) == 0) {
        files.push_back(*(*folder)->Open(entry.name, mode, Caching::kDirect));
      }
    }
    return files;
  }
  void DamageFooters() const {
    const AlignedBuffer zeros(kPageBytes);
    for (const std::unique_ptr<File>& file : Files(OpenMode::kReadWrite)) {
      if (!WriteFully(*file, *file->Size() - kPageBytes, zeros.span()).ok()) {
        Fail("a footer cannot be overwritten");
      }
    }
  }

  const std::string folder_;
  const uint64_t records_;
  SegmentTierOptions options_;
  Digest128 uuid_;
  doubles::Seeded seeded_{3};
  std::unique_ptr<AsyncIo> io_ = MakeAsyncIo({}, BootClock());
  doubles::PoolExecutor executor_{2};
};

void Print(const std::string& name, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::cout << name << ": " << values[values.size() / 2] << " (" << values.front() << " to "
            << values.back() << ", " << values.size() << " rounds)\n";
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) {
    std::cerr << "usage: recovery_bench FOLDER [thousands of records [rounds]]\n";
    return 2;
  }
  const uint64_t records =
      (arguments.size() > 2 ? std::stoull(arguments[2]) : uint64_t{1000}) * 1000;
  const int rounds = arguments.size() > 3 ? std::stoi(arguments[3]) : 5;
  Bench bench(arguments[1], records);
  bench.Fill();
  const auto count = static_cast<double>(records);
  for (const auto& [name, from] :
       {std::pair("index", Bench::From::kIndex), std::pair("footers", Bench::From::kFooters),
        std::pair("headers", Bench::From::kHeaders)}) {
    std::vector<double> ready;
    std::vector<double> found;
    std::vector<double> rates;
    std::vector<double> ratios;
    for (int round = 0; round < rounds; ++round) {
      const Bench::Times times = bench.Reopen(from);
      ready.push_back(times.ready);
      found.push_back(times.found);
      rates.push_back(count / times.found);
      if (from == Bench::From::kHeaders) {
        ratios.push_back(rates.back() / bench.RawReads());
      }
    }
    Print(absl::StrCat(name, ", ready, s"), ready);
    Print(absl::StrCat(name, ", found, s"), found);
    Print(absl::StrCat(name, ", records/s"), rates);
    if (!ratios.empty()) {
      Print(absl::StrCat(name, ", ratio to raw reads of 4 KiB at depth 8"), ratios);
    }
  }
  return 0;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Main({argv, argv + argc});
}
