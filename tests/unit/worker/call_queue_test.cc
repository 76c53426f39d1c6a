#include "daemon/worker/call_queue.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

PendingCall Pending(std::string path, Priority priority, int deadline_s) {
  PendingCall pending;
  pending.call.path = std::move(path);
  pending.call.priority = priority;
  pending.call.deadline = absl::Seconds(deadline_s);
  return pending;
}

std::vector<std::string> PathsOf(const std::vector<PendingCall>& calls) {
  std::vector<std::string> paths;
  for (const PendingCall& pending : calls) {
    paths.push_back(pending.call.path);
  }
  return paths;
}

TEST(CallQueue, GivesHigherPrioritiesFirstAndOlderOnesBeforeYounger) {
  CallQueue queue;
  queue.Push(Pending("low", Priority::kLow, 1));
  queue.Push(Pending("first", Priority::kNormal, 1));
  queue.Push(Pending("high", Priority::kHigh, 1));
  queue.Push(Pending("second", Priority::kNormal, 1));
  for (const char* path : {"high", "first", "second", "low"}) {
    EXPECT_EQ(queue.Pop()->call.path, path);
  }
  EXPECT_FALSE(queue.Pop().has_value());
}

TEST(CallQueue, TakesOutWhatIsTooLateAndKnowsTheNextDeadline) {
  CallQueue queue;
  EXPECT_EQ(queue.earliest_deadline(), absl::InfiniteDuration());
  queue.Push(Pending("c", Priority::kNormal, 30));
  queue.Push(Pending("a", Priority::kHigh, 10));
  queue.Push(Pending("b", Priority::kLow, 20));
  EXPECT_EQ(queue.earliest_deadline(), absl::Seconds(10));
  EXPECT_TRUE(queue.TakeExpired(absl::Seconds(9)).empty());
  EXPECT_EQ(PathsOf(queue.TakeExpired(absl::Seconds(20))), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(queue.earliest_deadline(), absl::Seconds(30));
  EXPECT_EQ(PathsOf(queue.TakeAll()), std::vector<std::string>{"c"});
  EXPECT_EQ(queue.earliest_deadline(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace terrace
