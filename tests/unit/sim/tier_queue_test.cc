#include "tools/sim/tier_queue.h"

#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace terrace::sim {
namespace {

constexpr uint64_t kBytes = 100'000'000;  // a tenth of a second
constexpr absl::Duration kLatency = absl::Milliseconds(10);
const TierSpeed kSpeed{1e9, kLatency};

struct Order {
  std::string names;
  std::vector<absl::Duration> ends;
};

TierQueue::Ended Note(Order& order, char name) {
  return [&order, name](absl::Duration at) {
    order.names.push_back(name);
    order.ends.push_back(at);
  };
}

void EndAll(TierQueue& queue) {
  while (queue.NextEnd() != absl::InfiniteDuration()) {
    queue.EndNext();
  }
}

TEST(TierQueue, ReadsShareTheBandwidthAndNotTheLatency) {
  TierQueue queue(kSpeed);
  Order order;
  for (const char name : {'a', 'b', 'c'}) {
    queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kWaited, Note(order, name));
  }
  EndAll(queue);
  EXPECT_EQ(order.names, "abc");
  EXPECT_EQ(order.ends[0], absl::Milliseconds(110));
  EXPECT_EQ(order.ends[1], absl::Milliseconds(210));
  EXPECT_EQ(order.ends[2], absl::Milliseconds(310));
  EXPECT_EQ(queue.bytes_read(), 3 * kBytes);
}

TEST(TierQueue, WhatIsWaitedForGoesBeforeWhatIsReadAhead) {
  TierQueue queue(kSpeed);
  Order order;
  for (const char name : {'a', 'b', 'c', 'd'}) {
    queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kAhead, Note(order, name));
  }
  queue.Read(absl::Milliseconds(1), kBytes, ReadNeed::kWaited, Note(order, 'W'));
  EndAll(queue);
  EXPECT_EQ(order.names, "abWcd") << "what has begun ends first";
}

TEST(TierQueue, AReadAheadThatIsAwaitedMovesUp) {
  TierQueue queue(kSpeed);
  Order order;
  queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kAhead, Note(order, 'a'));
  queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kAhead, Note(order, 'b'));
  queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kAhead, Note(order, 'c'));
  const uint64_t wanted =
      queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kAhead, Note(order, 'D'));
  queue.Await(absl::ZeroDuration(), wanted);
  queue.Await(absl::ZeroDuration(), wanted);
  EndAll(queue);
  EXPECT_EQ(order.names, "abDc");
  queue.Await(absl::Seconds(9), wanted);
  EXPECT_EQ(queue.NextEnd(), absl::InfiniteDuration()) << "it has ended";
}

TEST(TierQueue, AtMostSoManyAreUnderWay) {
  TierQueue queue({1e9, absl::ZeroDuration()});
  Order order;
  for (uint32_t i = 0; i < TierQueue::kReadsAtATime + 1; ++i) {
    queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kWaited, Note(order, 'x'));
  }
  EndAll(queue);
  EXPECT_EQ(order.ends.size(), TierQueue::kReadsAtATime + 1);
  EXPECT_EQ(order.ends.back(), absl::Milliseconds(100 * (TierQueue::kReadsAtATime + 1)));
}

TEST(TierQueue, TellsWhatLoadsTakeByItsFiguresAndThenByWhatItMeasured) {
  TierQueue queue(kSpeed);
  Order order;
  EXPECT_EQ(queue.LoadSeconds(absl::ZeroDuration(), 0, kBytes), 0);
  EXPECT_NEAR(queue.LoadSeconds(absl::ZeroDuration(), 5, kBytes), 0.51, 1e-9);
  for (int i = 0; i < 100; ++i) {
    queue.Read(absl::ZeroDuration(), kBytes, ReadNeed::kWaited, Note(order, 'x'));
  }
  EXPECT_NEAR(queue.LoadSeconds(absl::ZeroDuration(), 1, kBytes), 10.11, 1e-9);
  for (int i = 0; i < 60; ++i) {
    queue.EndNext();
  }
  EXPECT_NEAR(queue.LoadSeconds(absl::Seconds(6), 0, kBytes), 4, 0.1) << "40 are queued";
  EXPECT_NEAR(queue.LoadSeconds(absl::Seconds(6), 10, kBytes), 5, 0.1);
}

}  // namespace
}  // namespace terrace::sim
