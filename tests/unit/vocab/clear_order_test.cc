#include "tiers/vocab/clear_order.h"

#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

constexpr WhenFarApart kOrdered = WhenFarApart::kOrdered;
constexpr WhenFarApart kConcurrent = WhenFarApart::kConcurrent;

TEST(ClearOrderTest, AClearIsLargerThanWhatItKnewAndOrderedAfterIt) {
  std::mt19937_64 random(7);
  uint64_t known = 1;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t next = ClearedAfter(known, static_cast<uint32_t>(random()));
    ASSERT_GT(next, known);
    ASSERT_FALSE(AreConcurrent(known, next, kConcurrent));
    ASSERT_FALSE(AreConcurrent(next, known, kConcurrent));
    known = next;
  }
}

TEST(ClearOrderTest, TwoClearsThatKnewTheSameAreConcurrentAndTheirEndIsLargerAndOneForBoth) {
  const uint64_t a = ClearedAfter(1, 3);
  const uint64_t b = ClearedAfter(1, 4);
  EXPECT_TRUE(AreConcurrent(a, b, kOrdered));
  EXPECT_TRUE(AreConcurrent(b, a, kOrdered));
  EXPECT_EQ(EndOfBoth(a, b), EndOfBoth(b, a));
  EXPECT_GT(EndOfBoth(a, b), b);
  EXPECT_FALSE(AreConcurrent(b, EndOfBoth(a, b), kConcurrent)) << "the later one's side accepts it";
}

TEST(ClearOrderTest, AClearBehindOneThatTheOtherDidNotKnowIsConcurrentWithIt) {
  const uint64_t a = ClearedAfter(1, 3);
  const uint64_t b = ClearedAfter(ClearedAfter(1, 4), 9);
  EXPECT_TRUE(AreConcurrent(a, b, kOrdered));
  const uint64_t c = ClearedAfter(b, 5);
  EXPECT_TRUE(AreConcurrent(a, c, kConcurrent)) << "two lie between: they do not tell";
  EXPECT_FALSE(AreConcurrent(a, c, kOrdered));
}

TEST(ClearOrderTest, AClearIsLearnedByWhoKnowsItOrOneBehindIt) {
  const uint64_t a = ClearedAfter(1, 3);
  EXPECT_TRUE(HasLearned(a, a));
  EXPECT_TRUE(HasLearned(ClearedAfter(a, 5), a));
  EXPECT_FALSE(HasLearned(1, a));
  EXPECT_FALSE(HasLearned(ClearedAfter(1, 4), a)) << "larger, and raised without knowing it";
}

TEST(ClearOrderTest, GenerationsCountedInOnesAreOrdered) {
  EXPECT_FALSE(AreConcurrent(1, 2, kConcurrent));
  EXPECT_FALSE(AreConcurrent(7, 3, kConcurrent));
  EXPECT_FALSE(AreConcurrent(7, ClearedAfter(7, 1), kConcurrent));
}

// Each node knows its own clear and learns the others' in any order, handing on what it then knows.
TEST(ClearOrderTest, NodesThatClearAtOnceSoonAgreeOnAnEndOfAll) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    const size_t nodes = 2 + seed % 7;
    std::vector<uint64_t> known(nodes);
    std::vector<uint64_t> cleared(nodes);
    for (size_t i = 0; i < nodes; ++i) {
      known[i] = cleared[i] = ClearedAfter(1, static_cast<uint32_t>(random()));
    }
    std::vector<uint64_t> own = known;
    const auto agree = [&] { return std::vector<uint64_t>(nodes, known[0]) == known; };
    size_t steps = 0;
    for (; !agree(); ++steps) {
      ASSERT_LT(steps, 10'000U) << "seed " << seed;
      const size_t to = random() % nodes;
      const uint64_t learned = known[random() % nodes];
      if (own[to] == known[to] &&
          AreConcurrent(known[to], learned, learned > known[to] ? kConcurrent : kOrdered)) {
        own[to] = known[to] = EndOfBoth(known[to], learned);
      } else {
        known[to] = std::max(known[to], learned);
      }
    }
    for (const uint64_t each : cleared) {
      ASSERT_GT(known[0], each) << "what was stored under any of the clears has ended";
    }
  }
}

}  // namespace
}  // namespace terrace
