// What a node writes, and in how many calls.
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;

TEST(PoolWriting, WhatWasWrittenBeforeAFailedWriteIsPublished) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.node(0).view.Fail(PoolOp::kWrite, 2, absl::InternalError("EIO"));
  std::vector<PoolFleet::Answer> answers;
  for (uint64_t n = 2; n <= 4; ++n) {  // a batch each, as none of them waits
    answers.push_back(fleet.StartPublish(0, FleetBlock(n)));
  }
  fleet.Pass(absl::Seconds(3));
  EXPECT_EQ(*answers[0], WriteOutcome::kWritten);
  EXPECT_EQ(*answers[1], WriteOutcome::kFault);
  EXPECT_EQ(*answers[2], WriteOutcome::kFault);
  EXPECT_EQ(fleet.Read(1, FleetBlock(2)), ReadOutcome::kVerified);
  EXPECT_EQ(fleet.Publish(0, FleetBlock(3)), WriteOutcome::kWritten);  // in another segment
  fleet.Pass(absl::Seconds(3));
  EXPECT_EQ(fleet.Read(1, FleetBlock(3)), ReadOutcome::kVerified);
}

TEST(PoolWriting, ASegmentThatEndsIsSyncedOnceWithItsFooter) {
  PoolFleet fleet(2);
  fleet.StartAll();
  const uint64_t heads = fleet.node(0).view.calls(PoolOp::kReplace);
  const uint64_t made = fleet.node(0).view.calls(PoolOp::kMake);
  std::vector<PoolFleet::Answer> answers;
  for (uint64_t n = 0; n < 60; ++n) {
    answers.push_back(fleet.StartPublish(0, FleetBlock(n)));
  }
  fleet.Pass(absl::Seconds(3));
  for (const PoolFleet::Answer& answer : answers) {
    EXPECT_EQ(*answer, WriteOutcome::kWritten);
  }
  const uint64_t segments = fleet.node(0).view.calls(PoolOp::kMake) - made;
  EXPECT_GE(segments, 2U);
  // One of each segment for each head that says something of it, and no other.
  EXPECT_LE(fleet.node(0).view.calls(PoolOp::kSync),
            segments + fleet.node(0).view.calls(PoolOp::kReplace) - heads);
  fleet.Pass(absl::Seconds(3));
  // By the footers.
  fleet.Kill(1);
  fleet.node(1).with_index = false;
  fleet.Start(1);
  fleet.Pass(absl::Seconds(8));
  for (uint64_t n = 0; n < 60; ++n) {
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
}

TEST(PoolWriting, EveryOtherWriteThatFailsCostsItsOwnBlocksAlone) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(0)), WriteOutcome::kWritten);
  uint64_t next = 1;
  const uint64_t made = fleet.node(0).view.calls(PoolOp::kMake);
  while (fleet.node(0).view.calls(PoolOp::kMake) == made) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(next++)), WriteOutcome::kWritten);
  }
  for (int n = 0; n < 12; ++n) {
    fleet.node(0).view.Fail(PoolOp::kWrite, 2, absl::InternalError("EIO"));
    fleet.Publish(0, FleetBlock(next++));
  }
  fleet.node(0).view.Heal();
  fleet.Pass(absl::Seconds(3));
  for (uint64_t n = 0; n < next; ++n) {
    const auto read = fleet.Read(1, FleetBlock(n));
    EXPECT_TRUE(!read.has_value() || read == ReadOutcome::kVerified) << n;
    EXPECT_TRUE(n >= next - 12 || read == ReadOutcome::kVerified) << n;
  }
}

}  // namespace
}  // namespace terrace
