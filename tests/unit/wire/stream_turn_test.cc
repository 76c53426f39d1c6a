#include "daemon/wire/stream_turn.h"

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

using Others = StreamTurn::Others;

TEST(StreamTurn, WhoEndsAnIdleStreamFinishesIt) {
  StreamTurn turn;
  EXPECT_EQ(turn.End({grpc::StatusCode::CANCELLED, "why"}), Others::kNone);
  EXPECT_TRUE(turn.Leave());
  EXPECT_EQ(turn.status().error_message(), "why");
}

TEST(StreamTurn, WhoIsAtWorkWhenItEndsFinishesIt) {
  StreamTurn turn;
  ASSERT_TRUE(turn.Enter());
  EXPECT_FALSE(turn.ended());
  EXPECT_EQ(turn.End({grpc::StatusCode::CANCELLED, ""}), Others::kAtWork);
  EXPECT_TRUE(turn.ended());
  EXPECT_FALSE(turn.Leave()) << "the one who ended it is not the last";
  EXPECT_TRUE(turn.Leave());
}

TEST(StreamTurn, NobodyEntersWhatHasEnded) {
  StreamTurn turn;
  ASSERT_TRUE(turn.Enter());
  EXPECT_FALSE(turn.Leave());
  EXPECT_EQ(turn.End(grpc::Status::OK), Others::kNone);
  EXPECT_FALSE(turn.Enter());
  EXPECT_TRUE(turn.Leave());
}

TEST(StreamTurn, OfManyThreadsExactlyOneFinishes) {
  for (int round = 0; round < 50; ++round) {
    StreamTurn turn;
    std::atomic<int> finished{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        while (turn.Enter()) {
          EXPECT_EQ(finished.load(), 0) << "finished while somebody is at work";
          finished += turn.Leave() ? 1 : 0;
        }
      });
    }
    threads.emplace_back([&] {
      static_cast<void>(turn.End(grpc::Status::OK));
      finished += turn.Leave() ? 1 : 0;
    });
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(finished.load(), 1);
  }
}

}  // namespace
}  // namespace terrace
