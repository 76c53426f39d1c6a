#include "tiers/gpu/cuda_driver.h"

#include <cstdlib>

#include <gmock/gmock.h>

#include "tests/unit/gpu/stand_in_room.h"

namespace terrace {
namespace {

using cuda::CudaDriver;
using testing::HasSubstr;

TEST(CudaDriverTest, AHostWithoutADriverIsUnavailable) {
  const auto driver = CudaDriver::Load("libno-such-driver.so.1");
  EXPECT_EQ(driver.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("libno-such-driver.so.1"));
}

TEST(CudaDriverTest, TheEnvironmentNamesTheLibrary) {
  setenv("TERRACE_CUDA_DRIVER", "libanother-driver.so.1", 1);
  const auto driver = CudaDriver::Load();
  unsetenv("TERRACE_CUDA_DRIVER");
  EXPECT_EQ(driver.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("libanother-driver.so.1"));
}

TEST(CudaDriverTest, ALibraryThatLacksACallIsRefusedByTheCallsName) {
  const auto driver = CudaDriver::Load(TERRACE_NOT_CUDA);
  EXPECT_EQ(driver.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("cuDriverGetVersion"));
}

TEST(CudaDriverTest, ADriverThatDoesNotStartSaysWhy) {
  stand_in_reset();
  stand_in_fail("cuInit", 1, cuda::kStubLibrary);
  const auto driver = CudaDriver::Load(TERRACE_STAND_IN_CUDA);
  EXPECT_EQ(driver.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("CUDA_ERROR_STUB_LIBRARY"));
}

class LoadedDriverTest : public StandInTest {};

TEST_F(LoadedDriverTest, ResultsBecomeStatusesWithTheDriversName) {
  EXPECT_TRUE(driver().StatusOf(cuda::kSuccess, "x").ok());
  const struct {
    cuda::Result result;
    absl::StatusCode code;
    const char* text;
  } cases[] = {
      {cuda::kOutOfMemory, absl::StatusCode::kResourceExhausted, "CUDA_ERROR_OUT_OF_MEMORY"},
      {cuda::kInvalidValue, absl::StatusCode::kInvalidArgument, "CUDA_ERROR_INVALID_VALUE"},
      {cuda::kNotSupported, absl::StatusCode::kUnimplemented, "CUDA_ERROR_NOT_SUPPORTED"},
      {cuda::kNotPermitted, absl::StatusCode::kPermissionDenied, "CUDA_ERROR_NOT_PERMITTED"},
      {cuda::kNoDevice, absl::StatusCode::kUnavailable, "CUDA_ERROR_NO_DEVICE"},
      {cuda::kIllegalAddress, absl::StatusCode::kUnavailable, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {cuda::kNotFound, absl::StatusCode::kInternal, "CUDA_ERROR_NOT_FOUND"},
      {12345, absl::StatusCode::kInternal, "CUDA error 12345"},
  };
  for (const auto& expected : cases) {
    const absl::Status status = driver().StatusOf(expected.result, "copy");
    EXPECT_EQ(status.code(), expected.code) << expected.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected.text));
    EXPECT_THAT(std::string(status.message()), HasSubstr("copy"));
  }
}

TEST_F(LoadedDriverTest, ErrorsOfTheDeviceEndTheContextAndBadValuesDoNot) {
  EXPECT_TRUE(CudaDriver::EndsContext(cuda::kIllegalAddress));
  EXPECT_TRUE(CudaDriver::EndsContext(cuda::kEccUncorrectable));
  EXPECT_FALSE(CudaDriver::EndsContext(cuda::kInvalidValue));
  EXPECT_FALSE(CudaDriver::EndsContext(cuda::kOutOfMemory));
  EXPECT_FALSE(CudaDriver::EndsContext(cuda::kNotReady));
}

TEST(CudaDriverTest, WhereBatchesAreForgoneCopiesAreEnqueuedOneByOne) {
  const auto driver = CudaDriver::Load(TERRACE_STAND_IN_CUDA);
  ASSERT_TRUE(driver.ok());
  (*driver)->ForgoBatches();
  EXPECT_FALSE((*driver)->copies_in_batches());
}

TEST_F(LoadedDriverTest, CopiesInOneCallMoveTheSameBytesAsOneByOne) {
  ASSERT_TRUE(driver().copies_in_batches());
  const cuda::DevicePointer memory = Allocate(4096);
  const auto stream = cuda::OwnedStream::Create(context(), cuda::OwnedStream::Urgency::kFirst);
  std::string text = "abcdefghijklmnop";
  const std::vector<cuda::CopyRange> ranges = {{memory, text.data(), 8},
                                               {memory + 100, text.data() + 8, 8}};
  ASSERT_EQ(driver().EnqueueCopies(cuda::CopyDirection::kToDevice, ranges, stream->get()),
            cuda::kSuccess);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(Counters().batches, 1U);
  EXPECT_EQ(Read(memory + 100, 8), "ijklmnop");

  std::string back(16, ' ');
  const std::vector<cuda::CopyRange> home = {{memory, back.data() + 8, 8},
                                             {memory + 100, back.data(), 8}};
  ASSERT_EQ(driver().EnqueueSingly(cuda::CopyDirection::kToHost, home, stream->get()),
            cuda::kSuccess);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(Counters().batches, 1U);
  EXPECT_EQ(back, "ijklmnopabcdefgh");
  EXPECT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

}  // namespace
}  // namespace terrace
