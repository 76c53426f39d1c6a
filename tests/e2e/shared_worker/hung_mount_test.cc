// A mount in which one kind of operation hangs.
#include "tests/e2e/shared_worker/sick_pool.h"

namespace terrace {
namespace {

class HungMount : public SickPool, public testing::WithParamInterface<Trigger> {};

INSTANTIATE_TEST_SUITE_P(EveryOperation,
                         HungMount,
                         testing::ValuesIn(kTriggers),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(HungMount, CostsTheCallItsDeadlineAndTheWorkerItsPlace) {
  const Trigger& trigger = GetParam();
  mount_->Hang(trigger.op);
  const std::shared_ptr<Answer> answer = Submit(CallOf(trigger.call, trigger.path, kDeadline));
  EXPECT_TRUE(Eventually([&] { return answer->Came(); }, 5 * kDeadline));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer->Status())) << answer->Status();
  EXPECT_TRUE(Eventually([this] { return files_->figures().starts >= 2; }));
  const PoolFilesFigures hung = files_->figures();
  EXPECT_GE(hung.abandoned, 1U);
  EXPECT_GE(hung.deadlines, 1U);
  EXPECT_GE(mount_->hanging(), 1U);
  mount_->Heal();
  EXPECT_TRUE(Serves());
  EXPECT_TRUE(Eventually([this] { return files_->figures().stuck == 0; }));
  EXPECT_FALSE(files_->figures().suspended);
  files_.reset();
  EXPECT_EQ(OpenDescriptorsHere(), descriptors_before_);
}

TEST_P(HungMount, DoesNotHoldUpTheEnd) {
  mount_->Hang(GetParam().op);
  const std::shared_ptr<Answer> answer =
      Submit(CallOf(GetParam().call, GetParam().path, absl::Minutes(10)));
  EXPECT_TRUE(Eventually([this] { return mount_->hanging() >= 1; }));
  EndWithoutWaiting();
  EXPECT_TRUE(absl::IsCancelled(answer->Status())) << answer->Status();
}

TEST_P(HungMount, DoesNotHoldUpTheBeginning) {
  files_.reset();
  mount_->Hang(GetParam().op);
  files_ = *MakeWorkerPoolFiles(Options(), {&BootClock(), nullptr});
  const std::shared_ptr<Answer> answer =
      Submit(CallOf(GetParam().call, GetParam().path, kDeadline));
  EXPECT_TRUE(Eventually([&] { return answer->Came(); }, 5 * (kDeadline + kDeadline)));
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer->Status()) || absl::IsUnavailable(answer->Status()))
      << answer->Status();
  mount_->Heal();
  EXPECT_TRUE(Serves());
}

using OneHungOperation = SickPool;

TEST_F(OneHungOperation, EndsTheOtherCallsOfTheWorkerAsUnavailable) {
  mount_->Hang(SickOp::kRead);
  const std::shared_ptr<Answer> late = Submit(CallOf(PoolOp::kRead, "file", kDeadline));
  const std::shared_ptr<Answer> other = Submit(CallOf(PoolOp::kRead, "file", absl::Minutes(10)));
  EXPECT_TRUE(Eventually([&] { return late->Came() && other->Came(); }));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late->Status())) << late->Status();
  EXPECT_TRUE(absl::IsUnavailable(other->Status())) << other->Status();
}

TEST_F(OneHungOperation, DoesNotKeepOthersFromTheirAnswers) {
  mount_->Hang(SickOp::kRead);
  const std::shared_ptr<Answer> late = Submit(CallOf(PoolOp::kRead, "file", absl::Minutes(10)));
  EXPECT_TRUE(Eventually([this] { return mount_->hanging() == 1; }));
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(Call(PoolOp::kList, "", absl::Seconds(60)).ok());
  }
  EXPECT_FALSE(late->Came());
  mount_->Heal();
  EXPECT_TRUE(Eventually([&] { return late->Came(); }));
  EXPECT_TRUE(late->Status().ok()) << late->Status();
  EXPECT_EQ(files_->figures().starts, 1U);
}

TEST_F(OneHungOperation, NeverWritesIntoMemoryThatIsUsedAgain) {
  {
    PoolCall fill = CallOf(PoolOp::kWrite, "file", absl::Seconds(60));
    std::memset(fill.buffer->memory().data(), 'o', kBytes);
    ASSERT_TRUE(files_->Call(std::move(fill)).status.ok());
  }
  mount_->Hang(SickOp::kRead);
  ASSERT_TRUE(absl::IsDeadlineExceeded(Call(PoolOp::kRead, "file")));
  // All that there is now, before the read that hangs comes to its end.
  const std::shared_ptr<PoolBuffer> all = files_->TakeBuffer(1 << 20);
  ASSERT_NE(all, nullptr);
  std::memset(all->memory().data(), 'n', all->memory().size());
  mount_->Heal();
  EXPECT_TRUE(Eventually([this] { return files_->figures().stuck == 0; }));
  for (const char byte : all->memory()) {
    ASSERT_EQ(byte, 'n');
  }
}

TEST_F(OneHungOperation, ThatIsMerelySlowIsWaitedFor) {
  mount_->Delay(SickOp::kRead, absl::Milliseconds(200));
  EXPECT_TRUE(Call(PoolOp::kRead, "file", absl::Seconds(60)).ok());
  EXPECT_EQ(files_->figures().starts, 1U);
}

}  // namespace
}  // namespace terrace
