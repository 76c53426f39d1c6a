#include "tools/sim/lower_tiers.h"

#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/local_pool.h"

namespace terrace::sim {
namespace {

class LowerTiersTest : public testing::Test {
 protected:
  LowerTiers Make(uint64_t local, uint64_t shared) {
    return {MakeLocalPool("lru", local), shared == 0 ? nullptr : MakeLocalPool("lru", shared),
            [this](uint64_t name) { left_.push_back(name); }};
  }
  std::vector<uint64_t> left_;
};

TEST_F(LowerTiersTest, WhatLeavesDramIsPublishedOnce) {
  LowerTiers tiers = Make(4, 4);
  EXPECT_FALSE(tiers.NoteUse(1)) << "it does not lie in the local tier";
  EXPECT_TRUE(tiers.Holds(1));
  EXPECT_EQ(tiers.PlaceOf(1), Place::kShared);
  tiers.Append(1);
  EXPECT_EQ(tiers.PlaceOf(1), Place::kLocal);
  EXPECT_TRUE(tiers.NoteUse(1));
  EXPECT_EQ(tiers.counts().appended, 1U);
  EXPECT_EQ(tiers.shared_counts().appended, 1U);
  EXPECT_EQ(left_, (std::vector<uint64_t>{1, 1}));
}

TEST_F(LowerTiersTest, WhatTheLocalTierDroppedIsReadFromThePool) {
  LowerTiers tiers = Make(1, 4);
  for (const uint64_t name : {1, 2}) {
    tiers.NoteUse(name);
    tiers.Append(name);
  }
  EXPECT_EQ(tiers.PlaceOf(1), Place::kShared);
  EXPECT_EQ(tiers.PlaceOf(2), Place::kLocal);
  tiers.Begin(absl::Seconds(1), {}, {});
  const std::vector<uint64_t> names = {1, 2};
  tiers.NoteReads(names);
  tiers.ForgetUse();
  EXPECT_TRUE(tiers.Holds(1) && tiers.Holds(2));
}

TEST_F(LowerTiersTest, WithoutAPoolTheLocalTierIsAll) {
  LowerTiers tiers = Make(1, 0);
  EXPECT_FALSE(tiers.NoteUse(1));
  EXPECT_FALSE(tiers.Holds(1));
  tiers.Append(1);
  tiers.Begin(absl::Seconds(1), {}, {});
  const std::vector<uint64_t> names = {1};
  tiers.NoteReads(names);
  tiers.ForgetUse();
  EXPECT_TRUE(tiers.Holds(1));
  EXPECT_EQ(tiers.shared_counts().appended, 0U);
}

}  // namespace
}  // namespace terrace::sim
