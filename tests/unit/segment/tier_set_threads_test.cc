// A set on real folders, with threads that write, read, delete and tick all at once while a drive
// is swapped away and back.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include <gtest/gtest.h>

#include "tests/doubles/pool_executor.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/unit/segment/tier_room.h"
#include "tiers/segment/tier_set.h"

namespace terrace {
namespace {

constexpr uint64_t kBlocks = 60;
constexpr int kTurns = 150;

// Of absl::Mutex and not absl::Notification, whose order ThreadSanitizer does not see.
template <typename Outcome>
class Answer {
 public:
  void Give(Outcome outcome) {
    absl::MutexLock lock(&mutex_);
    outcome_ = outcome;
    given_ = true;
  }
  Outcome Take() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&given_));
    return outcome_;
  }

 private:
  absl::Mutex mutex_;
  bool given_ ABSL_GUARDED_BY(mutex_) = false;
  Outcome outcome_ ABSL_GUARDED_BY(mutex_) = {};
};

class Caller {
 public:
  Caller(SegmentTier& set, uint64_t seed) : set_(set), seeded_(seed) {}

  void Run() {
    for (int turn = 0; turn < kTurns; ++turn) {
      const TestBlock block(seeded_.Below(kBlocks), 9000);
      switch (seeded_.Below(8)) {
        case 0:
          Delete(block);
          break;
        case 1:
        case 2:
        case 3:
          Write(block);
          break;
        default:
          Read(block);
          break;
      }
    }
  }

 private:
  void Write(const TestBlock& block) {
    const std::string payload = block.payload();
    std::memcpy(slot_.bytes() + kPageBytes, payload.data(), payload.size());
    WriteRequest request;
    request.identity = block.identity();
    request.slot = slot_.span();
    request.payload_bytes = block.payload_bytes;
    request.checksum = PayloadChecksum({payload.data(), payload.size()});
    Answer<WriteOutcome> answer;
    set_.Write(request, [&](WriteOutcome outcome, const LowerBlock&) { answer.Give(outcome); });
    answer.Take();
  }
  void Read(const TestBlock& block) {
    LowerTier::ReadRequest request;
    request.identity = block.identity();
    if (!set_.Lookup(request.identity, &request.block)) {
      return;
    }
    request.destination = slot_.span().subspan(kPageBytes);
    request.header_page_in_front = true;
    request.deadline = absl::InfiniteDuration();
    Answer<ReadOutcome> answer;
    const uint64_t token = set_.Read(request, [&](ReadOutcome outcome) { answer.Give(outcome); });
    if (seeded_.OneIn(4)) {
      set_.Cancel(token);
    }
    const std::string payload = block.payload();
    if (answer.Take() == ReadOutcome::kVerified) {
      ASSERT_EQ(std::memcmp(request.destination.data(), payload.data(), payload.size()), 0)
          << "WRONG BYTES";
    }
  }
  void Delete(const TestBlock& block) {
    const BlockIdentity identity = block.identity();
    Answer<WriteOutcome> answer;
    set_.Delete({&identity, 1}, [&](WriteOutcome outcome, uint32_t) { answer.Give(outcome); });
    answer.Take();
  }

  SegmentTier& set_;
  doubles::Seeded seeded_;
  const AlignedBuffer slot_{kPageBytes + 3 * uint64_t{kPageBytes}};
};

TEST(TierSetThreadsTest, WritersReadersAndADriveThatLeavesGetAlong) {
  const doubles::PrivateFolder folder;
  doubles::PoolExecutor hashing{1};
  doubles::PoolExecutor maintenance{1};
  std::vector<std::unique_ptr<AsyncIo>> rings;
  TierSetOptions options;
  options.reopen_interval = absl::Milliseconds(20);
  for (int i = 0; i < 2; ++i) {
    rings.push_back(MakeAsyncIo({}, BootClock()));
    Drive drive;
    drive.options.path = folder.path() + "/" + std::to_string(i);
    drive.options.segment_bytes = kTestSegmentBytes;
    drive.options.max_payload_bytes = 40000;
    drive.options.capacity_bytes = 8 * kTestSegmentBytes;
    drive.options.free_reserve_bytes = 0;
    drive.options.retry_interval = absl::Milliseconds(20);
    drive.io = rings.back().get();
    options.drives.push_back(drive);
  }
  SegmentTierParts parts;
  parts.files = &KernelFileSystem();
  parts.clock = &BootClock();
  parts.hashing = &hashing;
  parts.maintenance = &maintenance;
  absl::StatusOr<std::unique_ptr<SegmentTier>> set = OpenTierSet(options, parts);
  ASSERT_TRUE(set.ok()) << set.status();
  std::atomic<bool> over{false};
  std::thread ticker([&] {
    while (!over.load()) {
      (*set)->Tick();
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (uint64_t i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] { Caller(**set, i).Run(); });
  }
  // Away until the set has noticed, and back until it has noticed that.
  const std::string path = options.drives[0].options.path;
  std::filesystem::rename(path, path + ".away");
  while ((*set)->Drives()[0].open) {
    std::this_thread::yield();
  }
  std::filesystem::rename(path + ".away", path);
  while (!(*set)->Drives()[0].open) {
    std::this_thread::yield();
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  Answer<bool> closed;
  (*set)->Close([&](const absl::Status& status) { closed.Give(status.ok()); });
  EXPECT_TRUE(closed.Take());
  over.store(true);
  ticker.join();
  set->reset();
}

}  // namespace
}  // namespace terrace
