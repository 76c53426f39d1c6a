// The compact map of a pool's records, beside a plain one.
#include "tiers/shared/pool_table.h"

#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

bool Any(const PoolPlace&) {
  return true;
}

TEST(PoolTable, RandomCallsAgreeWithAPlainMap) {
  doubles::Seeded random(7);
  PoolTable table;
  std::map<uint64_t, std::set<std::pair<uint32_t, uint32_t>>> plain;  // (segment, page)
  for (int step = 0; step < 200000; ++step) {
    const uint64_t n = random.Below(3000);
    // Runs in few shards, so that entries meet each other.
    const Digest128 fingerprint{n % 3, n * 5};
    const auto segment = static_cast<uint32_t>(random.Below(4));
    const auto page = static_cast<uint32_t>(1 + random.Below(3));
    if (random.Below(100) < 55) {
      EXPECT_EQ(table.Insert(fingerprint, {{n, segment}, segment, page, 100}),
                plain[n].insert({segment, page}).second);
    } else if (random.Below(100) < 95) {
      EXPECT_EQ(table.Remove(fingerprint, segment, page), plain[n].erase({segment, page}) == 1);
    } else if (random.OneIn(50)) {
      table.RemoveSegments([segment](uint32_t s) { return s == segment; });
      for (auto& [key, places] : plain) {
        std::erase_if(places, [segment](const auto& place) { return place.first == segment; });
      }
    }
    PoolPlace found;
    EXPECT_EQ(table.Find(fingerprint, Any, &found), !plain[n].empty());
  }
  uint64_t count = 0;
  for (const auto& [n, places] : plain) {
    count += places.size();
    for (const auto& [segment, page] : places) {
      PoolPlace found;
      EXPECT_TRUE(table.Find(
          {n % 3, n * 5},
          [s = segment, p = page](const PoolPlace& at) { return at.segment == s && at.page == p; },
          &found));
      EXPECT_EQ(found.checksum, (Digest128{n, segment}));
    }
  }
  EXPECT_EQ(table.size(), count);
}

TEST(PoolTable, ARecordTakesLessThanAHundredBytes) {
  PoolTable table;
  doubles::Seeded random(1);
  for (uint32_t n = 1; n <= 300000; ++n) {
    table.Insert({random.Next(), random.Next()}, {{1, 2}, n / 100, n % 100, 4096});
    if (n > 100000 && n % 10000 == 0) {
      EXPECT_LT(table.memory_bytes(), n * 100);
    }
  }
  table.Clear();
  EXPECT_EQ(table.size(), 0U);
}

}  // namespace
}  // namespace terrace
