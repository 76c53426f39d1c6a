// A daemon whose pool hangs: it goes on, stops and starts as if there were no pool, and has it back
// when the mount answers again.
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/sick_mount/sick_mount.h"
#include "tests/e2e/shared_tier/pool_node.h"

namespace terrace {
namespace {

using doubles::SickMount;
using doubles::SickOp;

constexpr SickOp kOps[] = {SickOp::kOpen,  SickOp::kStat,  SickOp::kRead,    SickOp::kWrite,
                           SickOp::kFsync, SickOp::kClose, SickOp::kReaddir, SickOp::kUnlink};

class HungPool : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<SickMount>> mount = SickMount::Mount();
    if (!mount.ok()) {
      GTEST_SKIP() << mount.status();
    }
    mount_ = *std::move(mount);
  }
  std::unique_ptr<SickMount> mount_;
};

TEST_F(HungPool, HitsInDramGoOnWhateverHangs) {
  Node node(mount_->path());
  ASSERT_TRUE(node.Becomes("ready")) << node.daemon().Log();
  ASSERT_TRUE(node.Publish());
  for (const SickOp op : kOps) {
    mount_->Hang(op);
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(node.Hits(bench::ClientSession::Pending::kMiss), kBlocks) << NameOf(op);
    }
    mount_->Heal();
    EXPECT_TRUE(node.Becomes("ready")) << NameOf(op) << node.daemon().Log();
  }
}

TEST_F(HungPool, TheDaemonStopsAndStartsWhileItHangsAndHasThePoolBackAfterwards) {
  Node node(mount_->path());
  ASSERT_TRUE(node.Becomes("ready")) << node.daemon().Log();
  ASSERT_TRUE(node.Publish());
  for (const SickOp op : kOps) {
    mount_->Hang(op);
  }
  EXPECT_TRUE(Eventually([&] { return mount_->hanging() > 0; }));
  EXPECT_EQ(node.daemon().Stop(), 0) << node.daemon().Log();
  ASSERT_TRUE(node.daemon().StartAgain().ok()) << node.daemon().Log();
  node.Connect();
  EXPECT_EQ(node.Hits(), kBlocks) << "they lie on the local tier, too";
  EXPECT_NE(node.Pool().state(), "ready");
  EXPECT_LE(node.Pool().worker().stuck(), 8U);
  mount_->Heal();
  EXPECT_TRUE(Eventually([&] { return node.Pool().state() == "ready"; }, absl::Minutes(5)))
      << node.daemon().Log();
  EXPECT_EQ(node.daemon().Stop(), 0) << node.daemon().Log();
}

}  // namespace
}  // namespace terrace
