// A mount that hangs for so long that as many workers as may are stuck in it.
#include "tests/e2e/shared_worker/sick_pool.h"

namespace terrace {
namespace {

class StuckWorkers : public SickPool, public testing::WithParamInterface<Trigger> {
 protected:
  // Those that are stuck in their beginning take so long each.
  StuckWorkers() { start_deadline_ = absl::Milliseconds(500); }

  // Calls until no further worker may be started.
  void GetStuck() {
    const uint32_t most = Options().max_stuck;
    mount_->Hang(GetParam().op);
    EXPECT_TRUE(Eventually([this, most] {
      const absl::Status status = Call(GetParam().call, GetParam().path);
      EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
      const PoolFilesFigures figures = files_->figures();
      EXPECT_LE(figures.stuck, most);
      return figures.stuck == most && figures.suspended;
    }));
  }
};

INSTANTIATE_TEST_SUITE_P(EveryOperation,
                         StuckWorkers,
                         testing::ValuesIn(kTriggers),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(StuckWorkers, AreAtMostEightAndGoWhenTheMountIsBack) {
  GetStuck();
  const uint64_t starts = files_->figures().starts;
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(absl::IsUnavailable(Call(GetParam().call, GetParam().path)));
  }
  EXPECT_EQ(files_->figures().starts, starts);
  EXPECT_EQ(files_->figures().pid, 0U);
  mount_->Heal();
  EXPECT_TRUE(Serves());
  EXPECT_FALSE(files_->figures().suspended);
  EXPECT_TRUE(Eventually([this] { return files_->figures().stuck == 0; }));
  files_.reset();
  EXPECT_EQ(OpenDescriptorsHere(), descriptors_before_);
}

TEST_P(StuckWorkers, DoNotHoldUpTheEndAndAreReapedLater) {
  GetStuck();
  EXPECT_EQ(LeftWorkers(), 0);
  absl::Mutex mutex;
  bool ended = false;
  std::thread end([&] {
    files_.reset();
    absl::MutexLock lock(&mutex);
    ended = true;
  });
  EXPECT_TRUE(Eventually(
      [&] {
        absl::MutexLock lock(&mutex);
        return ended;
      },
      absl::Seconds(5)));
  EXPECT_EQ(LeftWorkers(), static_cast<int>(Options().max_stuck));
  mount_->Heal();
  end.join();
  EXPECT_TRUE(Eventually([] { return LeftWorkers() == 0; }));
}

}  // namespace
}  // namespace terrace
