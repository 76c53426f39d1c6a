// Following other nodes where what they name cannot be read at once.
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;

TEST(PoolTailing, ASegmentThatCannotBeReadIsTriedAgainAndKeepsNobodyFromBeingOnline) {
  PoolFleet fleet(2);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);
  fleet.Stop(0);
  fleet.Start(0);  // which lists the segment in its manifest, without its records
  fleet.Kill(1);
  std::string segment;
  for (const std::string& path : fleet.mount.Paths()) {
    segment = path.ends_with("/s00000001") ? path : segment;
  }
  ASSERT_FALSE(segment.empty());
  fleet.mount.Rename(segment, segment + "-away");
  fleet.node(1).with_index = false;
  fleet.Start(1);
  fleet.Pass(absl::Seconds(20));
  EXPECT_FALSE(fleet.Finds(1, FleetBlock(1)));
  EXPECT_EQ(fleet.tier(1).figures().state, PoolState::kOnline);
  fleet.mount.Rename(segment + "-away", segment);
  fleet.Pass(absl::Seconds(20));
  EXPECT_EQ(fleet.Read(1, FleetBlock(1)), ReadOutcome::kVerified);
}

}  // namespace
}  // namespace terrace
