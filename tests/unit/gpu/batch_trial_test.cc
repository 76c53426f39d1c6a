#include "tiers/gpu/batch_trial.h"

#include <gmock/gmock.h>

#include "tests/unit/gpu/stand_in_room.h"

namespace terrace {
namespace {

using ::testing::HasSubstr;

class BatchTrialTest : public StandInTest {
 protected:
  ~BatchTrialTest() override { ExpectNothingHeld(); }
  [[nodiscard]] absl::Status Try() const { return TryCopiesInBatches(context()); }
};

TEST_F(BatchTrialTest, ADeviceThatTakesThemIsTrusted) {
  EXPECT_TRUE(Try().ok()) << Try();
  EXPECT_GT(Counters().batches, 0U);
}

// The call would take the processor's addresses as they are, and end the context.
TEST_F(BatchTrialTest, ADeviceWithAddressesOfItsOwnIsNotAskedAtAll) {
  stand_in_set_host_pointers(0);
  const absl::Status tried = Try();
  EXPECT_EQ(tried.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(tried.message()), HasSubstr("addresses of its own"));
  EXPECT_EQ(Counters().batches, 0U);
}

TEST_F(BatchTrialTest, ACallThatIsRefusedIsAReasonAndNothingIsLeftOnItsWay) {
  stand_in_fail("cuMemcpyBatchAsync_v2", 2, cuda::kNotSupported);
  const absl::Status tried = Try();
  EXPECT_EQ(tried.code(), absl::StatusCode::kUnimplemented) << tried;
  EXPECT_EQ(Counters().queued_bytes_to_device, 0U);
}

TEST_F(BatchTrialTest, BytesThatGoAstrayAreSeen) {
  for (const unsigned copy : {1, 4, 5, 8}) {
    stand_in_fail("flip", copy, cuda::kUnknown);
    EXPECT_EQ(Try().code(), absl::StatusCode::kDataLoss) << copy;
  }
  EXPECT_TRUE(Try().ok());
}

TEST_F(BatchTrialTest, WhereThereIsNoMemoryForItThatIsAReason) {
  stand_in_fail("cuMemAlloc_v2", 1, cuda::kOutOfMemory);
  EXPECT_EQ(Try().code(), absl::StatusCode::kResourceExhausted);
  stand_in_fail("cuMemHostRegister_v2", 1, cuda::kOutOfMemory);
  EXPECT_EQ(Try().code(), absl::StatusCode::kResourceExhausted);
  stand_in_fail("cuStreamCreateWithPriority", 1, cuda::kInvalidValue);
  EXPECT_FALSE(Try().ok());
}

}  // namespace
}  // namespace terrace
