// Real processes on a real folder, killed with SIGKILL while they write: whatever one reported as
// written the next one finds, byte for byte.
//
// TERRACE_KILL_LOOPS says how many are killed.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "tests/doubles/pool_executor.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/seeded.h"
#include "tests/unit/segment/tier_room.h"
#include "tiers/os/async_io.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

constexpr uint64_t kSegmentBytes = uint64_t{2} << 20;
constexpr uint32_t kInFlight = 12;

enum class Engine : uint8_t { kUring, kThreads };

// A tier with threads of its own.
class RealTier {
 public:
  RealTier(const std::string& path, Engine engine)
      : io_(engine == Engine::kUring ? MakeAsyncIo({}, BootClock())
                                     : MakeThreadedIo({}, BootClock())) {
    SegmentTierOptions options;
    options.path = path;
    options.segment_bytes = kSegmentBytes;
    options.max_payload_bytes = 64 << 10;
    options.capacity_bytes = 256 * kSegmentBytes;
    options.free_reserve_bytes = 0;
    options.hash_inline_bytes = 16 << 10;
    SegmentTierParts parts;
    parts.files = &KernelFileSystem();
    parts.io = io_.get();
    parts.clock = &BootClock();
    parts.hashing = &hashing_;
    parts.maintenance = &maintenance_;
    absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenSegmentTier(options, parts);
    if (opened.ok()) {
      tier_ = *std::move(opened);
    } else {
      status_ = opened.status();
    }
  }
  SegmentTier* tier() { return tier_.get(); }
  [[nodiscard]] const absl::Status& status() const { return status_; }

 private:
  std::unique_ptr<AsyncIo> io_;
  doubles::PoolExecutor hashing_{1};
  doubles::PoolExecutor maintenance_{1};
  absl::Status status_;
  std::unique_ptr<SegmentTier> tier_;
};

TestBlock BlockOf(uint64_t number) {
  return TestBlock(number, static_cast<uint32_t>(1 + number * 7919 % 50000));
}

// Writes blocks from `first` on for ever, and says each that was reported written through the pipe.
[[noreturn]] void WriteUntilKilled(const std::string& path,
                                   Engine engine,
                                   uint64_t first,
                                   int reports) {
  RealTier real(path, engine);
  if (real.tier() == nullptr) {
    _exit(3);
  }
  absl::Mutex mutex;
  uint32_t in_flight = 0;
  for (uint64_t number = first;; ++number) {
    {
      absl::MutexLock lock(&mutex);
      const auto room = [&in_flight] { return in_flight < kInFlight; };
      mutex.Await(absl::Condition(&room));
      ++in_flight;
    }
    const TestBlock block = BlockOf(number);
    const std::string payload = block.payload();
    // Shared with the write, which owns it until it ends.
    auto slot = std::make_shared<AlignedBuffer>(
        kPageBytes + uint64_t{PagesOf(block.payload_bytes)} * kPageBytes);
    std::memcpy(slot->bytes() + kPageBytes, payload.data(), payload.size());
    WriteRequest request;
    request.identity = block.identity();
    request.slot = slot->span();
    request.payload_bytes = block.payload_bytes;
    request.checksum = PayloadChecksum({payload.data(), payload.size()});
    request.heat = static_cast<Heat>(number % 2);
    real.tier()->Write(request, [&, slot, number](WriteOutcome outcome, const LowerBlock&) {
      if (outcome == WriteOutcome::kWritten) {
        [[maybe_unused]] const ssize_t told = write(reports, &number, sizeof(number));
      }
      absl::MutexLock lock(&mutex);
      --in_flight;
    });
    real.tier()->Tick();
  }
}

ReadOutcome ReadBack(SegmentTier& tier, const TestBlock& block) {
  LowerTier::ReadRequest request;
  request.identity = block.identity();
  if (!tier.Lookup(request.identity, &request.block)) {
    return ReadOutcome::kGone;
  }
  const AlignedBuffer slot(kPageBytes + uint64_t{PagesOf(block.payload_bytes)} * kPageBytes);
  request.destination = slot.span().subspan(kPageBytes);
  request.header_page_in_front = true;
  request.deadline = absl::InfiniteDuration();
  absl::Notification ended;
  ReadOutcome result = ReadOutcome::kFault;
  tier.Read(request, [&](ReadOutcome outcome) {
    result = outcome;
    ended.Notify();
  });
  ended.WaitForNotification();
  if (result == ReadOutcome::kVerified) {
    const std::string payload = block.payload();
    EXPECT_EQ(std::memcmp(request.destination.data(), payload.data(), payload.size()), 0)
        << "WRONG BYTES";
  }
  return result;
}

void CheckAll(const std::string& path, Engine engine, const std::vector<uint64_t>& reported) {
  RealTier real(path, engine);
  ASSERT_TRUE(real.status().ok()) << real.status();
  // Recovery goes on beside: whatever it has not found yet is looked for again.
  while (real.tier()->figures().state == TierState::kRecovering) {
    sched_yield();
  }
  for (const uint64_t number : reported) {
    ASSERT_EQ(ReadBack(*real.tier(), BlockOf(number)), ReadOutcome::kVerified) << number;
  }
  absl::Notification closed;
  real.tier()->Close([&](const absl::Status&) { closed.Notify(); });
  closed.WaitForNotification();
}

uint64_t LoopsWanted() {
  const char* const wanted = std::getenv("TERRACE_KILL_LOOPS");
  return wanted == nullptr ? 8 : std::strtoull(wanted, nullptr, 10);
}

class KillTest : public testing::TestWithParam<Engine> {};

INSTANTIATE_TEST_SUITE_P(All,
                         KillTest,
                         testing::Values(Engine::kUring, Engine::kThreads),
                         [](const auto& instance) {
                           return instance.param == Engine::kUring ? "Uring" : "Threads";
                         });

TEST_P(KillTest, WhatAKilledProcessReportedIsThere) {
  const doubles::PrivateFolder folder;
  const std::string path = folder.path() + "/tier";
  std::vector<uint64_t> reported;
  for (uint64_t loop = 0; loop < LoopsWanted(); ++loop) {
    SCOPED_TRACE(testing::Message() << "loop " << loop);
    doubles::Seeded seeded(loop);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const Descriptor reading(ends[0]);
    Descriptor writing(ends[1]);
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      WriteUntilKilled(path, GetParam(), loop * 1000000, writing.get());
    }
    writing = Descriptor();
    // At the instant of a report that a seed chooses; others are under way.
    const uint64_t until = seeded.Below(150);
    uint64_t number = 0;
    for (uint64_t i = 0; i < until; ++i) {
      ASSERT_EQ(read(reading.get(), &number, sizeof(number)), static_cast<ssize_t>(sizeof(number)));
      reported.push_back(number);
    }
    ASSERT_EQ(kill(pid, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status));
    // What it still said counts as well.
    while (read(reading.get(), &number, sizeof(number)) == static_cast<ssize_t>(sizeof(number))) {
      reported.push_back(number);
    }
    CheckAll(path, GetParam(), reported);
    if (HasFailure()) {
      return;
    }
  }
}

}  // namespace
}  // namespace terrace
