#include "daemon/thread_executor.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"

namespace terrace {
namespace {

using ::testing::ElementsAre;

// Both ways of waiting for work: asleep, and looking for it first.
class ThreadExecutorTest : public testing::TestWithParam<absl::Duration> {
 protected:
  static std::unique_ptr<Executor> Make(int threads) {
    absl::StatusOr<std::unique_ptr<Executor>> executor =
        MakeThreadExecutor({.threads = threads, .spin = GetParam()});
    EXPECT_TRUE(executor.ok()) << executor.status();
    return std::move(*executor);
  }
};

INSTANTIATE_TEST_SUITE_P(Spin,
                         ThreadExecutorTest,
                         testing::Values(absl::ZeroDuration(), absl::Microseconds(200)),
                         [](const auto& param) {
                           return param.param > absl::ZeroDuration() ? "Spinning" : "Sleeping";
                         });

TEST_P(ThreadExecutorTest, RunsAllWorkOfAllProducersOnce) {
  constexpr int kProducers = 4;
  constexpr int kEach = 2000;
  std::vector<std::atomic<int>> runs(kProducers * kEach);
  {
    const std::unique_ptr<Executor> executor = Make(3);
    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
      producers.emplace_back([&executor, &runs, p] {
        for (int i = 0; i < kEach; ++i) {
          executor->Run(static_cast<Priority>(1 + i % 3),
                        [&count = runs[static_cast<size_t>(p * kEach + i)]] { ++count; });
        }
      });
    }
    for (std::thread& producer : producers) {
      producer.join();
    }
  }
  for (const std::atomic<int>& count : runs) {
    ASSERT_EQ(count.load(), 1);
  }
}

TEST_P(ThreadExecutorTest, BeginsHigherPrioritiesFirstAndEachInItsOrder) {
  absl::Mutex mutex;
  std::vector<int> order;
  {
    absl::Notification busy;
    absl::Notification go;  // before the executor, whose thread may be in its wait to the end
    const std::unique_ptr<Executor> executor = Make(1);
    executor->Run(Priority::kNormal, [&] {
      busy.Notify();
      go.WaitForNotification();
    });
    busy.WaitForNotification();
    const auto add = [&](Priority priority, int number) {
      executor->Run(priority, [&, number] {
        absl::MutexLock lock(&mutex);
        order.push_back(number);
      });
    };
    add(Priority::kLow, 5);
    add(Priority::kNormal, 3);
    add(Priority::kHigh, 1);
    add(Priority::kLow, 6);
    add(Priority::kHigh, 2);
    add(Priority::kNormal, 4);
    go.Notify();
  }
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST_P(ThreadExecutorTest, RunsAsMuchAtOnceAsItSays) {
  const std::unique_ptr<Executor> executor = Make(4);
  ASSERT_EQ(executor->parallelism(), 4);
  // Each piece waits for all others: fewer threads would never end.
  absl::Barrier* all = new absl::Barrier(4);
  absl::BlockingCounter done(4);
  for (int i = 0; i < 4; ++i) {
    executor->Run(Priority::kNormal, [all, &done] {
      if (all->Block()) {
        delete all;
      }
      done.DecrementCount();
    });
  }
  done.Wait();
}

TEST_P(ThreadExecutorTest, TheDestructorRunsWhatWorkHandsInMeanwhile) {
  std::atomic<int> ran{0};
  std::unique_ptr<Executor> executor = Make(2);
  Executor* const borrowed = executor.get();
  std::function<void(int)> chain = [&](int left) {
    ++ran;
    if (left > 0) {
      borrowed->Run(Priority::kLow, [&chain, left] { chain(left - 1); });
    }
  };
  borrowed->Run(Priority::kHigh, [&chain] { chain(500); });
  executor.reset();
  EXPECT_EQ(ran.load(), 501);
}

TEST_P(ThreadExecutorTest, WorkIsDestroyedWhenItHasRun) {
  const auto owned = std::make_shared<int>(7);
  {
    const std::unique_ptr<Executor> executor = Make(2);
    for (int i = 0; i < 100; ++i) {
      executor->Run(Priority::kNormal, [owned] {});
    }
  }
  EXPECT_EQ(owned.use_count(), 1);
}

TEST_P(ThreadExecutorTest, WakesForEachPieceAfterAllThreadsSleep) {
  const std::unique_ptr<Executor> executor = Make(2);
  for (int i = 0; i < 2000; ++i) {
    absl::Notification ran;
    executor->Run(Priority::kNormal, [&ran] { ran.Notify(); });
    ran.WaitForNotification();
  }
}

TEST(ThreadExecutor, SaysThatTheSystemGivesNoMoreThreads) {
  const int code = InChildWithoutThreads(
      [] { return static_cast<int>(MakeThreadExecutor({.threads = 2}).status().code()); });
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kResourceExhausted));
}

TEST(ThreadExecutor, RefusesThreadCountsOutOfRange) {
  for (const int threads : {-1, 0, kMaxExecutorThreads + 1}) {
    EXPECT_EQ(MakeThreadExecutor({.threads = threads}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace terrace
