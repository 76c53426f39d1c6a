// What was deleted before its segment was known.
#include "tiers/shared/pool_catalogue.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

constexpr Digest128 kPool{1, 2};
constexpr Digest128 kLister{3, 4};

SegmentName Name(uint32_t number) {
  return {{kLister, 5}, number};
}
Digest128 Block(uint32_t number, uint32_t page) {
  const uint64_t word = uint64_t{number} << 32 | page;
  return {word, word};
}
Kill KillOf(uint32_t number, uint32_t page) {
  return {Block(number, page), Name(number), page};
}

// Names the segment, with records at pages 1, 3 and 5.
void Learn(PoolCatalogue& catalogue, uint32_t number) {
  catalogue.Keep(kLister, Name(number), 100);
  std::vector<IndexedRecord> records;
  for (const uint32_t page : {1U, 3U, 5U}) {
    IndexedRecord record;
    record.page = page;
    record.payload_bytes = 4096;
    record.kind = static_cast<uint8_t>(RecordKind::kBlock);
    record.fingerprint = Block(number, page);
    records.push_back(record);
  }
  catalogue.Add(Name(number), records, 7, false);
}

TEST(PoolCatalogue, WhatWasKilledBeforeItWasKnownIsAMissAndItsNeighboursAreNot) {
  PoolCatalogue catalogue(kPool, nullptr);
  catalogue.Apply(KillOf(1, 3));
  Learn(catalogue, 1);
  Learn(catalogue, 2);
  EXPECT_FALSE(catalogue.Holds(Block(1, 3)));
  EXPECT_TRUE(catalogue.Holds(Block(1, 1)));
  EXPECT_TRUE(catalogue.Holds(Block(2, 3)));
}

TEST(PoolCatalogue, WhatIsUnlearnedStaysKilledAndListed) {
  PoolCatalogue catalogue(kPool, nullptr);
  Learn(catalogue, 1);
  catalogue.Apply(KillOf(1, 3));
  catalogue.Unlearn(Name(1), 100);
  EXPECT_FALSE(catalogue.Holds(Block(1, 1)));
  EXPECT_TRUE(catalogue.IsListed(Name(1)));
  EXPECT_EQ(catalogue.Known(Name(1))->complete_pages, 1U);
  Learn(catalogue, 1);
  EXPECT_TRUE(catalogue.Holds(Block(1, 1)));
  EXPECT_FALSE(catalogue.Holds(Block(1, 3)));
  ASSERT_TRUE(catalogue.Flush().ok());
  EXPECT_EQ(catalogue.records(), 2U);
  catalogue.Unlearn(Name(9), 100);  // which nobody knows
}

TEST(PoolCatalogue, WhatNobodyListsIsAMissAtOnceAndGivenBackWithTheNextFlush) {
  PoolCatalogue catalogue(kPool, nullptr);
  for (uint32_t number = 1; number <= 100; ++number) {
    Learn(catalogue, number);
    catalogue.Drop(kLister, {Name(number)});
    EXPECT_FALSE(catalogue.Holds(Block(number, 1)));
  }
  EXPECT_LE(catalogue.records(), 3 * 64U);  // however rarely that is
  Learn(catalogue, 1);
  ASSERT_TRUE(catalogue.Flush().ok());
  EXPECT_EQ(catalogue.records(), 3U);
  EXPECT_TRUE(catalogue.Holds(Block(1, 3)));
}

TEST(PoolCatalogue, KillsBeyondTheLimitTakeTheirWholeSegmentWithThem) {
  PoolCatalogue catalogue(kPool, nullptr);
  constexpr uint32_t kSegments = 64;
  for (uint32_t i = 0; i < PoolCatalogue::kMaxEarlyKills; ++i) {
    catalogue.Apply(KillOf(i % kSegments, 1 + 2 * (i / kSegments)));
  }
  catalogue.Apply(KillOf(1000, 3));
  catalogue.Apply(KillOf(0, 1U << 20));
  Learn(catalogue, 1000);
  Learn(catalogue, 0);
  Learn(catalogue, 1001);
  for (const uint32_t page : {1U, 3U, 5U}) {
    EXPECT_FALSE(catalogue.Holds(Block(1000, page)));
    EXPECT_FALSE(catalogue.Holds(Block(0, page)));
    EXPECT_TRUE(catalogue.Holds(Block(1001, page)));
  }
  // There is room for single ones again.
  catalogue.Apply(KillOf(1002, 3));
  Learn(catalogue, 1002);
  EXPECT_TRUE(catalogue.Holds(Block(1002, 1)));
  EXPECT_FALSE(catalogue.Holds(Block(1002, 3)));
}

TEST(PoolCatalogue, WhereNoMoreCanBeRememberedNothingNewIsFound) {
  PoolCatalogue catalogue(kPool, nullptr);
  Learn(catalogue, 1);
  for (uint32_t i = 0; i < PoolCatalogue::kMaxEarlyKills; ++i) {
    catalogue.Apply(KillOf(2, 1 + 2 * i));
  }
  for (uint32_t i = 0; i <= PoolCatalogue::kMaxEarlySegments; ++i) {
    catalogue.Apply(KillOf(1000 + i, 1));
  }
  Learn(catalogue, 3);
  EXPECT_FALSE(catalogue.Holds(Block(3, 1)));
  EXPECT_TRUE(catalogue.Holds(Block(1, 1)));
}

}  // namespace
}  // namespace terrace
