// What a replay does where not all of a leading run is loaded.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tiers/placement/local_pool.h"
#include "tiers/placement/replay.h"

namespace terrace {
namespace {

class FixedGate final : public LoadGate {
 public:
  size_t Reach(absl::Span<const uint64_t> run, absl::Span<const BlockId> resident) override {
    EXPECT_EQ(run.size(), resident.size());
    in_dram = 0;
    for (const BlockId block : resident) {
      in_dram += block != kNoBlock ? 1 : 0;
    }
    asked = run.size();
    return std::min(most, run.size());
  }
  size_t most = 0;
  size_t asked = 0;
  size_t in_dram = 0;
};

class LoadGateTest : public testing::Test {
 protected:
  LoadGateTest() {
    LocalReplay local;
    local.contents = MakeLocalPool("lru", 16);
    local.blocks = 16;
    local.gate = &gate_;
    replay_ = *PlacementReplay::CreateAnyOver("lru", {.capacity_blocks = 4}, std::move(local));
  }
  uint64_t Ask(const std::vector<uint64_t>& chain) { return replay_->Request(chain); }

  FixedGate gate_;
  std::unique_ptr<PlacementReplay> replay_;
};

TEST_F(LoadGateTest, WhatIsNotLoadedIsComputedAndStored) {
  Ask({1, 2, 3});
  Ask({7, 8, 9, 10});
  gate_.most = 1;
  EXPECT_EQ(Ask({1, 2, 3}), 1U);
  EXPECT_EQ(gate_.asked, 3U);
  EXPECT_EQ(gate_.in_dram, 0U);
  EXPECT_EQ(replay_->counts().local_hits, 1U);
  EXPECT_EQ(replay_->counts().stored, 9U) << "two were stored again";
  gate_.most = 3;
  EXPECT_EQ(Ask({1, 2, 3}), 3U);
  EXPECT_EQ(gate_.in_dram, 3U);
  EXPECT_EQ(replay_->counts().stored, 9U);
}

TEST_F(LoadGateTest, WhatIsInDramBehindTheGateStaysThere) {
  Ask({1, 2, 3});
  gate_.most = 1;
  EXPECT_EQ(Ask({1, 2, 3}), 1U);
  EXPECT_EQ(replay_->counts().stored, 3U);
  gate_.most = 3;
  EXPECT_EQ(Ask({7, 8, 9, 10}), 0U) << "nothing is locked any more";
  EXPECT_EQ(replay_->counts().evicted, 3U);
}

}  // namespace
}  // namespace terrace
