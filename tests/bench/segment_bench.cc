// What a segment tier costs beside raw O_DIRECT transfers of the same engine on the same folder.
// Not a test: run by hand, as
//
//   segment_bench FOLDER [payload KiB [depth [pairs]]]
//
// Figure and limit alternate, the order within a pair too; the median of the pairs' ratios is
// printed with minimum and maximum. Every read of the tier is verified, into registered memory with
// the slot's header page; the raw side reads and writes as many bytes at the same offsets' stride,
// into the same registered memory, from a preallocated file whose blocks have all been written.
// Both take their slots in turn from an arena that no cache holds, as a DRAM tier hands them out:
// into slots that are used again at once the raw side would copy within the caches.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "tests/doubles/pool_executor.h"
#include "tests/doubles/seeded.h"
#include "tiers/os/async_io.h"
#include "tiers/os/descriptor.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_tier.h"

namespace terrace {
namespace {

constexpr uint64_t kPassBytes = uint64_t{256} << 20;   // moved by one side of a pair
constexpr uint64_t kArenaBytes = uint64_t{512} << 20;  // of slots

struct Setting {
  std::string folder;
  uint64_t payload_bytes = uint64_t{2} << 20;
  uint32_t depth = 8;
  int pairs = 9;
};

// `depth` operations at a time, `count` in all, each in the slot that has been free the longest.
class Turns {
 public:
  Turns(uint32_t depth, uint32_t slots) : depth_(depth) {
    for (uint32_t slot = 0; slot < slots; ++slot) {
      free_.push_back(slot);
    }
  }
  void Run(uint32_t count, const std::function<void(uint32_t index, uint32_t slot)>& begin) {
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t slot = 0;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &Turns::HasRoom));
        slot = free_.front();
        free_.pop_front();
        ++running_;
      }
      begin(i, slot);
    }
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Turns::Idle));
  }
  void Ended(uint32_t slot) {
    absl::MutexLock lock(&mutex_);
    free_.push_back(slot);
    --running_;
  }

 private:
  [[nodiscard]] bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return running_ < depth_;
  }
  [[nodiscard]] bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; }
  const uint32_t depth_;
  absl::Mutex mutex_;
  uint32_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<uint32_t> free_ ABSL_GUARDED_BY(mutex_);
};

class Bench {
 public:
  explicit Bench(const Setting& setting)
      : setting_(setting),
        record_bytes_(kPageBytes + (setting.payload_bytes + 4095) / 4096 * 4096),
        count_(static_cast<uint32_t>(kPassBytes / setting.payload_bytes)),
        slots_(std::max(setting.depth, static_cast<uint32_t>(kArenaBytes / record_bytes_))) {}

  absl::Status Prepare() {
    absl::StatusOr<SealedMemory> memory = SealedMemory::Create(
        {.bytes = record_bytes_ * slots_, .huge_pages = true, .touch_threads = 2});
    if (!memory.ok()) {
      return memory.status();
    }
    memory_ = *std::move(memory);
    if (absl::Status registered = io_->RegisterMemory(memory_.memory()); !registered.ok()) {
      std::cerr << "not registered: " << registered << "\n";
    }
    const std::string noise = doubles::Seeded(1).Bytes(record_bytes_);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
      std::memcpy(Slot(slot).data(), noise.data(), noise.size());
    }
    absl::Status status = OpenRaw();
    return status.ok() ? OpenTier() : status;
  }

  void Report(const std::string& name,
              const std::function<double()>& figure,
              const std::function<double()>& limit) const {
    std::vector<double> ratios;
    std::vector<double> figures;
    for (int pair = 0; pair < setting_.pairs; ++pair) {
      double ours = pair % 2 == 0 ? figure() : 0;
      const double theirs = limit();
      ours = pair % 2 == 0 ? ours : figure();
      ratios.push_back(ours / theirs);
      figures.push_back(ours);
    }
    std::sort(ratios.begin(), ratios.end());
    std::sort(figures.begin(), figures.end());
    std::cout << name << ": " << figures[figures.size() / 2] << " GB/s, ratio to raw "
              << ratios[ratios.size() / 2] << " (" << ratios.front() << " to " << ratios.back()
              << ", " << ratios.size() << " pairs)\n";
  }

  double RawRead() { return Raw(IoKind::kRead); }
  double RawWrite() { return Raw(IoKind::kWrite); }

  double TierWrite() {
    std::atomic<uint32_t> failed{0};
    const uint64_t first = written_;
    const double rate = Timed([&](uint32_t index, uint32_t slot, Turns& turns) {
      const std::string key = KeyOf(first + index);
      WriteRequest request;
      request.identity = {{1, 2}, 1, "", key};
      request.slot = Slot(slot);
      request.payload_bytes = static_cast<uint32_t>(setting_.payload_bytes);
      request.checksum = checksum_;
      tier_->Write(request, [&, slot](WriteOutcome outcome, const LowerBlock&) {
        failed += outcome == WriteOutcome::kWritten ? 0 : 1;
        turns.Ended(slot);
      });
    });
    tier_->Tick();
    written_ += count_;
    if (failed > 0) {
      std::cerr << failed << " writes failed\n";
      std::exit(1);
    }
    return rate;
  }

  double TierRead() {
    std::atomic<uint32_t> failed{0};
    const double rate = Timed([&](uint32_t /*index*/, uint32_t slot, Turns& turns) {
      // Of what was written lately, in an order that no read-ahead follows.
      const std::string key =
          KeyOf(written_ - 1 - seeded_.Below(std::min<uint64_t>(written_, uint64_t{count_} * 3)));
      LowerTier::ReadRequest request;
      request.identity = {{1, 2}, 1, "", key};
      if (!tier_->Lookup(request.identity, &request.block)) {
        ++failed;
        turns.Ended(slot);
        return;
      }
      request.destination = Slot(slot).subspan(kPageBytes);
      request.header_page_in_front = true;
      request.deadline = absl::InfiniteDuration();
      tier_->Read(request, [&, slot](ReadOutcome outcome) {
        failed += outcome == ReadOutcome::kVerified ? 0 : 1;
        turns.Ended(slot);
      });
    });
    if (failed > 0) {
      std::cerr << failed << " reads failed\n";
      std::exit(1);
    }
    return rate;
  }

  void ReportAmplification() const {
    const SegmentTierFigures figures = tier_->figures();
    std::cout << "write amplification: "
              << static_cast<double>(figures.bytes_written) /
                     static_cast<double>(figures.payload_bytes_written)
              << ", segments reclaimed " << figures.reclaimed_segments << "\n";
  }

 private:
  [[nodiscard]] absl::Span<char> Slot(uint32_t slot) const {
    return memory_.memory().subspan(slot * record_bytes_, record_bytes_);
  }
  static std::string KeyOf(uint64_t number) {
    return absl::StrCat("block-", absl::Dec(number, absl::kZeroPad20));
  }

  absl::Status OpenRaw() {
    absl::StatusOr<std::unique_ptr<Folder>> folder =
        KernelFileSystem().OpenFolder(setting_.folder, FolderMode::kExisting);
    if (!folder.ok()) {
      return folder.status();
    }
    folder_ = *std::move(folder);
    folder_->Remove("raw").IgnoreError();
    absl::StatusOr<std::unique_ptr<File>> raw =
        folder_->Open("raw", OpenMode::kCreateNew, Caching::kDirect);
    if (!raw.ok()) {
      return raw.status();
    }
    raw_ = *std::move(raw);
    raw_records_ = 4 * count_;
    absl::Status status = raw_->Preallocate(raw_records_ * record_bytes_);
    for (uint32_t pass = 0; status.ok() && pass < 4; ++pass) {
      RawWrite();
    }
    return status;
  }

  absl::Status OpenTier() {
    SegmentTierOptions options;
    options.path = setting_.folder + "/tier";
    options.max_payload_bytes = std::max<uint64_t>(setting_.payload_bytes, 1 << 20);
    options.capacity_bytes = uint64_t{16} * (256 << 20);
    options.max_writes = 1024;
    SegmentTierParts parts;
    parts.files = &KernelFileSystem();
    parts.io = io_.get();
    parts.clock = &BootClock();
    parts.hashing = &hashing_;
    parts.maintenance = &maintenance_;
    absl::StatusOr<std::unique_ptr<SegmentTier>> tier = OpenSegmentTier(options, parts);
    if (!tier.ok()) {
      return tier.status();
    }
    tier_ = *std::move(tier);
    checksum_ = PayloadChecksum(Slot(0).subspan(kPageBytes, setting_.payload_bytes));
    // Once through the whole capacity: from then on files are used again, and no extent is new.
    while (written_ * setting_.payload_bytes < options.capacity_bytes + (uint64_t{1} << 29)) {
      Refill();
      TierWrite();
    }
    Refill();
    return absl::OkStatus();
  }

  // Reads leave other records' headers and equal payloads in the slots; all payloads are one.
  void Refill() const {
    const std::string noise = doubles::Seeded(1).Bytes(record_bytes_);
    for (uint32_t slot = 0; slot < slots_; ++slot) {
      std::memcpy(Slot(slot).data(), noise.data(), noise.size());
    }
  }

  double Timed(const std::function<void(uint32_t, uint32_t, Turns&)>& begin) {
    Turns turns(setting_.depth, slots_);
    const absl::Time start = absl::Now();
    turns.Run(count_, [&](uint32_t index, uint32_t slot) { begin(index, slot, turns); });
    return static_cast<double>(count_ * setting_.payload_bytes) / 1e9 /
           absl::ToDoubleSeconds(absl::Now() - start);
  }

  double Raw(IoKind kind) {
    return Timed([&](uint32_t /*index*/, uint32_t slot, Turns& turns) {
      IoRequest request;
      request.kind = kind;
      request.file = raw_.get();
      const uint64_t record =
          kind == IoKind::kRead ? seeded_.Below(raw_records_) : raw_next_++ % raw_records_;
      request.offset = record * record_bytes_;
      request.pieces = {Slot(slot)};
      const absl::StatusOr<uint64_t> token =
          io_->Submit(std::move(request), [&turns, slot](IoCompletion completion) {
            if (!completion.status.ok()) {
              std::cerr << completion.status << "\n";
              std::exit(1);
            }
            turns.Ended(slot);
          });
      if (!token.ok()) {
        std::cerr << token.status() << "\n";
        std::exit(1);
      }
    });
  }

  const Setting setting_;
  const uint64_t record_bytes_;
  const uint32_t count_;
  const uint32_t slots_;
  doubles::Seeded seeded_{7};
  SealedMemory memory_;
  std::unique_ptr<AsyncIo> io_ = MakeAsyncIo({}, BootClock());
  doubles::PoolExecutor hashing_{2};
  doubles::PoolExecutor maintenance_{1};
  std::unique_ptr<Folder> folder_;
  std::unique_ptr<File> raw_;
  uint64_t raw_records_ = 0;
  uint64_t raw_next_ = 0;
  std::unique_ptr<SegmentTier> tier_;
  uint64_t written_ = 0;
  Digest128 checksum_;
};

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) {
    std::cerr << "usage: segment_bench FOLDER [payload KiB [depth [pairs]]]\n";
    return 2;
  }
  Setting setting;
  setting.folder = arguments[1];
  if (arguments.size() > 2) {
    setting.payload_bytes = std::stoull(arguments[2]) << 10;
  }
  if (arguments.size() > 3) {
    setting.depth = static_cast<uint32_t>(std::stoul(arguments[3]));
  }
  if (arguments.size() > 4) {
    setting.pairs = std::stoi(arguments[4]);
  }
  Bench bench(setting);
  if (absl::Status prepared = bench.Prepare(); !prepared.ok()) {
    std::cerr << prepared << "\n";
    return 1;
  }
  bench.Report(
      "verified cold reads", [&] { return bench.TierRead(); }, [&] { return bench.RawRead(); });
  bench.Report(
      "appends", [&] { return bench.TierWrite(); }, [&] { return bench.RawWrite(); });
  bench.ReportAmplification();
  return 0;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Main({argv, argv + argc});
}
