#include "tiers/placement/recency_log.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

std::vector<uint32_t> Drain(RecencyLog& log) {
  std::vector<uint32_t> out;
  for (const RecencyLog::Entry* entry = log.Front(); entry != nullptr; entry = log.Front()) {
    out.push_back(static_cast<uint32_t>(entry->block));
    log.PopFront();
  }
  return out;
}

void Nothing(RecencyLog::Entry /*entry*/) {}

void Append(RecencyLog& log, uint32_t from, uint32_t to) {
  for (uint32_t i = from; i < to; ++i) {
    log.Append({BlockId{i}, i});
  }
}

TEST(RecencyLog, GivesEntriesBackInOrder) {
  RecencyLog log;
  EXPECT_EQ(log.Front(), nullptr);
  Append(log, 0, 5'000);
  EXPECT_EQ(log.size(), 5'000U);
  const std::vector<uint32_t> out = Drain(log);
  ASSERT_EQ(out.size(), 5'000U);
  for (uint32_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], i);
  }
  EXPECT_EQ(log.memory_bytes(), 0U);
  Append(log, 7, 9);
  EXPECT_EQ(Drain(log), (std::vector<uint32_t>{7, 8}));
}

TEST(RecencyLog, CompactionKeepsOrderAndDropsOnlyTheDead) {
  RecencyLog log;
  Append(log, 0, 10'000);
  const uint64_t memory = log.memory_bytes();
  const auto live = [](RecencyLog::Entry entry) { return entry.stamp_low % 10 == 0; };
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(log.CompactChunk(live, Nothing), RecencyLog::kChunkEntries);
  }
  EXPECT_LT(log.memory_bytes(), memory / 3);
  uint32_t last = 0;
  uint32_t tens = 0;
  for (const uint32_t id : Drain(log)) {
    EXPECT_GE(id, last);
    last = id;
    tens += id % 10 == 0 ? 1U : 0U;
    EXPECT_TRUE(id % 10 == 0 || id >= 9 * RecencyLog::kChunkEntries);
  }
  EXPECT_EQ(tens, 1'000U);
}

TEST(RecencyLog, CompactionLeavesTheNewestChunkAlone) {
  RecencyLog log;
  Append(log, 0, 10);
  EXPECT_EQ(log.CompactChunk([](RecencyLog::Entry) { return false; }, Nothing), 0U);
  EXPECT_EQ(log.size(), 10U);
}

TEST(RecencyLog, APassThatFindsNothingAliveEmptiesAllButTheNewestChunk) {
  RecencyLog log;
  Append(log, 0, 3 * RecencyLog::kChunkEntries + 1);
  const auto dead = [](RecencyLog::Entry) { return false; };
  while (log.CompactChunk(dead, Nothing) != 0) {
  }
  EXPECT_EQ(Drain(log), (std::vector<uint32_t>{3 * RecencyLog::kChunkEntries}));
}

TEST(RecencyLog, TakingFromTheFrontDuringAPassLosesNothing) {
  RecencyLog log;
  Append(log, 0, 8'000);
  const auto odd = [](RecencyLog::Entry entry) { return entry.stamp_low % 2 == 1; };
  uint32_t next = 1;
  while (log.CompactChunk(odd, Nothing) != 0 && log.size() > 2'000) {
    for (int i = 0; i < 300 && log.Front() != nullptr; ++i) {
      if (log.Front()->stamp_low % 2 == 1) {
        ASSERT_EQ(log.Front()->stamp_low, next);
        next += 2;
      }
      log.PopFront();
    }
  }
  for (const uint32_t id : Drain(log)) {
    if (id % 2 == 1) {
      ASSERT_EQ(id, next);
      next += 2;
    }
  }
  EXPECT_EQ(next, 8'001U);
}

}  // namespace
}  // namespace terrace
