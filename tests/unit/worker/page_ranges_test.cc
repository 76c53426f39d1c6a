#include "daemon/worker/page_ranges.h"

#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

constexpr uint64_t kPage = PageRanges::kPageBytes;

TEST(PageRanges, JoinsNeighboursThatAreGivenBackInAnyOrder) {
  PageRanges ranges(4 * kPage);
  EXPECT_EQ(ranges.Take(kPage), 0U);
  EXPECT_EQ(ranges.Take(kPage), kPage);
  EXPECT_EQ(ranges.Take(2 * kPage), 2 * kPage);
  EXPECT_FALSE(ranges.Take(kPage).has_value());
  ranges.Give(0, kPage);
  ranges.Give(2 * kPage, 2 * kPage);
  EXPECT_EQ(ranges.pieces(), 2U);
  EXPECT_FALSE(ranges.Take(3 * kPage).has_value());
  ranges.Give(kPage, kPage);
  EXPECT_EQ(ranges.pieces(), 1U);
  EXPECT_EQ(ranges.Take(4 * kPage), 0U);
  EXPECT_EQ(ranges.used(), 4 * kPage);
}

TEST(PageRanges, NeverGivesAPageTwice) {
  constexpr uint64_t kPages = 64;
  doubles::Seeded seeded(7);
  PageRanges ranges(kPages * kPage);
  std::vector<bool> taken(kPages);
  std::vector<std::pair<uint64_t, uint64_t>> mine;
  for (int i = 0; i < 20000; ++i) {
    if (mine.empty() || seeded.OneIn(2)) {
      const uint64_t pages = 1 + seeded.Below(9);
      const std::optional<uint64_t> offset = ranges.Take(pages * kPage);
      if (!offset.has_value()) {
        continue;
      }
      for (uint64_t page = *offset / kPage; page < *offset / kPage + pages; ++page) {
        ASSERT_FALSE(taken.at(page));
        taken[page] = true;
      }
      mine.emplace_back(*offset, pages);
    } else {
      std::swap(mine[seeded.Below(mine.size())], mine.back());
      const auto [offset, pages] = mine.back();
      mine.pop_back();
      ranges.Give(offset, pages * kPage);
      for (uint64_t page = offset / kPage; page < offset / kPage + pages; ++page) {
        taken[page] = false;
      }
    }
  }
  for (const auto& [offset, pages] : mine) {
    ranges.Give(offset, pages * kPage);
  }
  EXPECT_EQ(ranges.used(), 0U);
  EXPECT_EQ(ranges.pieces(), 1U);
}

}  // namespace
}  // namespace terrace
