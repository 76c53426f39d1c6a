#include "daemon/wire/stream_turn.h"

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

}  // namespace
}  // namespace terrace
