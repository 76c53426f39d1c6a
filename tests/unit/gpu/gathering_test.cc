#include "tiers/gpu/gathering.h"

#include <gmock/gmock.h>

#include "tests/doubles/seeded.h"
#include "tests/unit/gpu/engine_room.h"
#include "tiers/gpu/gather_choice.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr uint64_t kKiB = 1024;

class GatheringTest : public EngineTest {
 protected:
  GatheringTest() { piece_bytes_ = kSmallPiece; }

  // That blocks in small pieces arrive, whichever way.
  void ExpectBytesComeBack() {
    const std::string bytes = doubles::Seeded(5).Bytes(kDeviceBytes);
    bytes.copy(host_.bytes(), bytes.size());
    Submit(Load(0, kDeviceBytes), 0);
    ASSERT_TRUE(endings_.Await(0).ok());
    FillHost('.');
    Submit(Save(0, kDeviceBytes), 1);
    ASSERT_TRUE(endings_.Await(1).ok());
    EXPECT_TRUE(std::string(host_.bytes(), kDeviceBytes) == bytes);
  }
};

TEST_F(GatheringTest, WithoutCompiledKernelsPiecesAreCopiedOneByOne) {
  CopyEngineOptions options = GatheringOptions();
  options.kernels = {};
  StartWith(HostPath::kDirect, options);
  EXPECT_THAT(engine_->facts().plain_reason, HasSubstr("built without nvcc"));
  EXPECT_EQ(engine_->facts().gathered_piece_bytes_to_device, 0U);
  ExpectBytesComeBack();
  EXPECT_EQ(engine_->facts().bytes_gathered, 0U);
}

TEST_F(GatheringTest, WhatTheDriverRefusesIsAReasonAndNoError) {
  const struct {
    const char* function;
    cuda::Result result;
    const char* reason;
  } kRefusals[] = {
      {"cuModuleLoadData", cuda::kNoBinaryForGpu, "kernels: "},
      {"cuModuleGetFunction", cuda::kNotFound, "terrace_gather"},
      {"cuMemAlloc_v2", cuda::kOutOfMemory, "device memory"},
      {"cuMemHostRegister_v2", cuda::kOutOfMemory, "cuMemHostRegister"},
      {"cuMemHostGetDevicePointer_v2", cuda::kNotSupported, "cuMemHostGetDevicePointer"}};
  for (const auto& refusal : kRefusals) {
    const StandInCounters before = Counters();
    stand_in_fail(refusal.function, 1, refusal.result);
    StartWith(HostPath::kDirect, GatheringOptions());
    EXPECT_THAT(engine_->facts().plain_reason, HasSubstr(refusal.reason));
    EXPECT_EQ(Counters().modules, before.modules);
    EXPECT_EQ(Counters().allocated_bytes, before.allocated_bytes) << "nothing is kept";
    engine_.reset();
  }
  StartWith(HostPath::kDirect, GatheringOptions());
  EXPECT_EQ(engine_->facts().plain_reason, "");
  ExpectBytesComeBack();
}

TEST_F(GatheringTest, ADriverWithoutModulesIsSaidToBeOne) {
  const CopyEngineOptions options = GatheringOptions();
  stand_in_set_kernels(0);
  StartWith(HostPath::kDirect, options);
  EXPECT_THAT(engine_->facts().plain_reason, HasSubstr("CUDA_ERROR_NOT_SUPPORTED"));
}

TEST_F(GatheringTest, AContextThatIsLostMeanwhileIsAnError) {
  const CopyEngineOptions options = GatheringOptions();
  stand_in_fail("cuModuleLoadData", 1, cuda::kIllegalAddress);
  EXPECT_EQ(CopyEngine::Start(context(), options).status().code(), absl::StatusCode::kUnavailable);
  stand_in_reset();  // so that what is held can be given back
}

TEST_F(GatheringTest, TheSizeIsMeasuredAndWhatThatTookIsGivenBack) {
  CopyEngineOptions options = GatheringOptions();
  options.gathered_piece_bytes.reset();
  options.max_bytes_in_flight = 1 << 20;
  stand_in_set_delay_us(200);  // of each copy and kernel: one kernel instead of 64 copies pays
  const StandInCounters before = Counters();
  Start(options);
  // A quarter of a MiB is 16 pieces of 16 KiB, and fewer than 16 larger ones.
  EXPECT_EQ(engine_->facts().gathered_piece_bytes_to_device, 16 * kKiB);
  EXPECT_EQ(engine_->facts().gathered_piece_bytes_to_host, 16 * kKiB);
  EXPECT_LE(Counters().allocated_bytes - before.allocated_bytes,
            4 * StageBytesFor(256 * kKiB, kMaxPiecesOfStage));
  EXPECT_EQ(Counters().streams, before.streams + 2);
}

TEST_F(GatheringTest, TheEnvironmentMayFixTheSize) {
  setenv("TERRACE_GATHER_PIECE_BYTES", "8192", 1);
  EXPECT_EQ(CopyEngineOptions().gathered_piece_bytes, 8192U);
  for (const char* const nothing : {"", "much", "-1", "8192 bytes"}) {
    setenv("TERRACE_GATHER_PIECE_BYTES", nothing, 1);
    EXPECT_EQ(CopyEngineOptions().gathered_piece_bytes, std::nullopt) << nothing;
  }
  unsetenv("TERRACE_GATHER_PIECE_BYTES");
  EXPECT_EQ(CopyEngineOptions().gathered_piece_bytes, std::nullopt);
}

TEST_F(GatheringTest, WhatCannotBeMeasuredIsNotGathered) {
  CopyEngineOptions options = GatheringOptions();
  options.gathered_piece_bytes.reset();
  Start(options);
  EXPECT_EQ(engine_->facts().gathered_piece_bytes_to_host, 0U) << "a stage of 16 KiB";
  EXPECT_THAT(engine_->facts().plain_reason, HasSubstr("faster"));
  engine_.reset();
  options.max_bytes_in_flight = 1 << 20;
  stand_in_fail("cuStreamSynchronize", 1, cuda::kOutOfMemory);
  Start(options);
  EXPECT_THAT(engine_->facts().plain_reason, HasSubstr("measuring"));
  engine_.reset();
  stand_in_fail("cuMemAlloc_v2", 3, cuda::kOutOfMemory);
  Start(options);
  EXPECT_THAT(engine_->facts().plain_reason, HasSubstr("device memory"));
}

TEST_F(GatheringTest, SmallPiecesCostFewCopies) {
  StartWith(HostPath::kDirect, GatheringOptions());
  Submit(Load(0, 16 * kKiB), 0);
  ASSERT_TRUE(endings_.Await(0).ok());
  EXPECT_EQ(Counters().copies, 1U);
  EXPECT_EQ(Counters().kernels, 1U);
  Submit(Save(0, 16 * kKiB), 1);
  ASSERT_TRUE(endings_.Await(1).ok());
  EXPECT_EQ(Counters().copies, 2U);
  EXPECT_EQ(Counters().kernels, 2U);
  EXPECT_EQ(engine_->facts().bytes_gathered, 32 * kKiB);
}

TEST_F(GatheringTest, SmallAndLargePiecesOfOneTransferGoTheirOwnWays) {
  StartWith(HostPath::kDirect, GatheringOptions());
  DeviceTransfer load = Load(0, 8 * kKiB);
  load.plan.pieces.push_back({device_ + 64 * kKiB, host_.bytes() + 64 * kKiB, 4 * kKiB});
  load.plan.layer_ends = {static_cast<uint32_t>(load.plan.pieces.size())};
  FillHost('m');
  Submit(std::move(load), 0);
  ASSERT_TRUE(endings_.Await(0).ok());
  EXPECT_EQ(Read(device_, 8 * kKiB), std::string(8 * kKiB, 'm'));
  EXPECT_EQ(Read(device_ + 64 * kKiB, 4 * kKiB), std::string(4 * kKiB, 'm'));
  EXPECT_EQ(engine_->facts().bytes_gathered, 8 * kKiB);
}

TEST_F(GatheringTest, WhatWaitsForAStageLetsOthersPass) {
  StartWith(HostPath::kDirect, GatheringOptions());
  stand_in_hold_back(1);
  Submit(Load(0, 64 * kKiB), 0);
  piece_bytes_ = kDeviceBytes;
  Submit(Load(128 * kKiB, kKiB), 1);
  EXPECT_TRUE(doubles::Eventually([] { return Counters().queued_bytes_to_device == 33 * kKiB; }))
      << "two stages of 16 KiB, and the other";
  stand_in_hold_back(0);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_TRUE(endings_.Await(1).ok());
}

TEST_F(GatheringTest, AKernelThatReadsBeforeTheProducersEventIsCaught) {
  StartWith(HostPath::kDirect, GatheringOptions());
  stand_in::ExportingProcess producer;
  const auto memory =
      cuda::ImportedMemory::OpenIpc(context(), producer.Allocate(kDeviceBytes), kDeviceBytes);
  const auto event = cuda::OwnedEvent::Open(context(), producer.event());
  ASSERT_TRUE(memory.ok() && event.ok());
  producer.HoldBack(true);
  producer.Fill(0, kDeviceBytes, 'p');
  const auto save = [&](cuda::Event behind) {
    DeviceTransfer transfer = Save(0, 16 * kKiB);
    for (cuda::CopyRange& piece : transfer.plan.pieces) {
      piece.device = piece.device - device_ + memory->address();
    }
    transfer.behind = behind;
    return transfer;
  };
  Submit(save(nullptr), 0);
  EXPECT_TRUE(endings_.Await(0).ok());
  const uint64_t early = Counters().reads_under_pending_write;
  EXPECT_GT(early, 0U);
  Submit(save(event->get()), 1);
  producer.HoldBack(false);
  EXPECT_TRUE(endings_.Await(1).ok());
  EXPECT_EQ(Counters().reads_under_pending_write, early);
  EXPECT_EQ(std::string(host_.bytes(), 16 * kKiB), std::string(16 * kKiB, 'p'));
}

TEST_F(GatheringTest, AKernelOverADeadExportersMemoryFailsTheEngine) {
  StartWith(HostPath::kDirect, GatheringOptions());
  stand_in::ExportingProcess producer;
  const auto memory =
      cuda::ImportedMemory::OpenIpc(context(), producer.Allocate(kDeviceBytes), kDeviceBytes);
  producer.Kill();
  DeviceTransfer save = Save(0, 16 * kKiB);
  for (cuda::CopyRange& piece : save.plan.pieces) {
    piece.device = piece.device - device_ + memory->address();
  }
  Submit(std::move(save), 0);
  EXPECT_THAT(std::string(endings_.Await(0).message()), HasSubstr("CUDA_ERROR_ILLEGAL_ADDRESS"));
  stand_in_reset();  // so that what is held can be given back
}

TEST_F(GatheringTest, ALaunchThatFailsEndsTheEngineWhenCopiesAreDone) {
  StartWith(HostPath::kDirect, GatheringOptions());
  stand_in_fail("cuLaunchKernel", 2, cuda::kOutOfMemory);
  Submit(Load(0, 64 * kKiB), 0);
  EXPECT_EQ(endings_.Await(0).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Counters().queued_bytes_to_device, 0U);
  EXPECT_EQ(engine_->Submit(Load(0, kKiB), endings_.Into(1)).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace terrace
