#include "tools/bench/memory.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace terrace::bench {
namespace {

TEST(SumBytes, ChangesWithEveryByte) {
  std::vector<char> bytes(1'003, '\x01');
  const uint64_t before = SumBytes(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = '\x02';
    EXPECT_NE(SumBytes(bytes), before) << i;
    bytes[i] = '\x01';
  }
}

TEST(SharedMemory, IsWritableThroughASecondMapping) {
  absl::StatusOr<SharedMemory> memory = SharedMemory::Create(5'000);
  ASSERT_TRUE(memory.ok()) << memory.status();
  ASSERT_GE(memory->bytes().size(), 5'000U);
  const absl::StatusOr<Mapping> second =
      Mapping::Map(memory->fd(), 0, 4'096, MapAccess::kReadWrite);
  ASSERT_TRUE(second.ok()) << second.status();
  second->data()[17] = 'x';
  EXPECT_EQ(memory->bytes()[17], 'x');
}

TEST(Crew, DoesEveryShareOnceInEveryRound) {
  Crew crew(3);
  EXPECT_EQ(crew.threads(), 3U);
  for (uint32_t round = 0; round < 500; ++round) {
    const uint32_t count = round % 7;
    std::vector<std::atomic<int>> done(count);
    crew.Run(count, [&](uint32_t i) { ++done[i]; });
    for (const std::atomic<int>& each : done) {
      ASSERT_EQ(each, 1);
    }
  }
}

TEST(Crew, OfOneWorksOnTheCallingThread) {
  Crew crew(1);
  const std::thread::id self = std::this_thread::get_id();
  crew.Run(3, [&](uint32_t) { EXPECT_EQ(std::this_thread::get_id(), self); });
}

}  // namespace
}  // namespace terrace::bench
