// What a session is told of the processes that copy for it, what they do with a driver that lacks
// something, and workers of several GPUs beside each other.
#include <signal.h>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/cuda/gpu_room.h"

namespace terrace::doubles {
namespace {

using ::testing::HasSubstr;

std::string All(size_t keys, int outcome) {
  return std::string(keys, static_cast<char>(outcome));
}

class WorkerNoticeTest : public GpuRoomTest {
 protected:
  std::unique_ptr<FrameClient> NewSessionWith(const std::vector<v1::Feature>& features) const {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->Connect();
    EXPECT_TRUE(client.ok()) << client.status();
    FrameClient::HelloOptions options;
    options.features = features;
    EXPECT_TRUE((*client)->Hello(options).ok());
    return *std::move(client);
  }
  // The next push, which is a notice of region 1: the process that it names.
  static PidDescriptor TakeNotice(FrameClient& client) {
    std::optional<ClientFrame> frame = client.Receive();
    EXPECT_TRUE(frame.has_value());
    v1::GpuWorkerNotice notice;
    if (!frame.has_value() || frame->method != v1::METHOD_GPU_WORKER_NOTICE ||
        frame->descriptors.size() != 1 || !notice.ParseFromString(frame->payload)) {
      ADD_FAILURE() << "no notice";
      return {};
    }
    EXPECT_EQ(notice.region_id(), 1U);
    EXPECT_NE(notice.boot_id(), 0U);
    absl::StatusOr<PidDescriptor> process =
        PidDescriptor::FromPassed(std::move(frame->descriptors.front()));
    EXPECT_TRUE(process.ok()) << process.status();
    return process.ok() ? *std::move(process) : PidDescriptor();
  }
};

TEST_F(WorkerNoticeTest, WhoUnderstandsItIsToldWhichProcessMayTouchARegion) {
  Open();
  const std::unique_ptr<FrameClient> client = NewSessionWith({v1::FEATURE_GPU_WORKERS});
  const uint64_t call = client->Send(v1::METHOD_REGISTER_REGION, RegionOf(Allocate()));
  const PidDescriptor first = TakeNotice(*client);  // before the reply
  EXPECT_EQ(first.Pid(), DeviceFigures().worker_pid);
  EXPECT_TRUE(client->ReceiveReply(call).has_value());
  kill(DeviceFigures().worker_pid, SIGKILL);
  const PidDescriptor second = TakeNotice(*client);
  EXPECT_EQ(second.Pid(), DeviceFigures().worker_pid);
  EXPECT_TRUE(Eventually([&] { return first.Exited(); }));
  EXPECT_FALSE(second.Exited());
}

TEST_F(WorkerNoticeTest, WhoDoesNotUnderstandItIsToldNothing) {
  Open();
  const std::unique_ptr<FrameClient> client = NewSessionWith({v1::FEATURE_LEASES});
  const uint64_t call = client->Send(v1::METHOD_REGISTER_REGION, RegionOf(Allocate()));
  const std::optional<ClientFrame> frame = client->Receive();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->call_id, call) << "the reply, and nothing before it";
}

// ---- drivers that lack something

class OddDriverTest : public GpuRoomTest {
 protected:
  // Blocks 0.. of region 1 saved and loaded back into blocks 32..
  void ExpectThereAndBack(const std::string& script) {
    ASSERT_NO_FATAL_FAILURE(Open(script));
    memory_ = Allocate();
    ASSERT_NO_FATAL_FAILURE(RegisterOne(memory_));
    const std::string all = Seeded(6).Bytes(kRegionBytes);
    Write(memory_, all);
    std::vector<std::string> payloads;
    for (uint32_t block = 0; block < 3; ++block) {
      payloads.push_back(ReadBlock(memory_, block));
    }
    ASSERT_EQ(Put(PutOf(Numbers(100, 3), Numbers(0, 3)))->outcomes(),
              All(3, v1::PUT_OUTCOME_STORED));
    ASSERT_EQ(Get(GetOf(Numbers(100, 3), Numbers(32, 3)))->outcomes(), All(3, v1::GET_OUTCOME_OK));
    for (uint32_t block = 0; block < 3; ++block) {
      EXPECT_TRUE(ReadBlock(memory_, 32 + block) == payloads[block]) << block;
    }
    EXPECT_EQ(DeviceFigures().workers_lost, 0U) << DeviceFigures().last_fault;
  }
  cuda::DevicePointer memory_ = 0;
};

TEST_F(OddDriverTest, OneThatTakesSeveralCopiesAtOnceIsUsedSo) {
  ASSERT_NO_FATAL_FAILURE(ExpectThereAndBack(""));
  EXPECT_EQ(DeviceFigures().single_reason, "");
}

TEST_F(OddDriverTest, AddressesOfItsOwnForPinnedMemoryMeanOneCallACopy) {
  ASSERT_NO_FATAL_FAILURE(ExpectThereAndBack("aliases"));
  EXPECT_THAT(DeviceFigures().single_reason, HasSubstr("addresses of its own"));
}

TEST_F(OddDriverTest, ACallThatIsRefusedMeansOneCallACopy) {
  ASSERT_NO_FATAL_FAILURE(ExpectThereAndBack("fail=cuMemcpyBatchAsync_v2,1,801"));
  EXPECT_THAT(DeviceFigures().single_reason, HasSubstr("CUDA_ERROR_NOT_SUPPORTED"));
}

TEST_F(OddDriverTest, AContextThatIsLostWhileTheyAreTriedCostsTheWorkerItsPlace) {
  Open("fail=copy,3,700");
  const v1::RegisterRegionRequest region = RegionOf(Allocate());
  const absl::Status lost = Register(*client_, region).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable) << lost;
  EXPECT_THAT(std::string(lost.message()), HasSubstr("CUDA_ERROR_ILLEGAL_ADDRESS"));
  setenv("STAND_IN_CUDA", "", 1);  // the next worker is well
  EXPECT_TRUE(Eventually([&] { return Register(*client_, region).ok(); }));
}

// Neither the slab nor a ring can be pinned, twice; then they can.
TEST_F(OddDriverTest, ASlabThatCouldNotBePinnedIsTriedAgainWithTheNextCopy) {
  Open(
      "fail=cuMemHostRegister_v2,3,304;fail=cuMemHostRegister_v2,4,2;"
      "fail=cuMemHostRegister_v2,5,304;fail=cuMemHostRegister_v2,6,2");
  const cuda::DevicePointer memory = Allocate();
  ASSERT_NO_FATAL_FAILURE(RegisterOne(memory));
  Write(memory, Seeded(6).Bytes(kRegionBytes));
  ASSERT_EQ(Put(PutOf({100}, {0}))->outcomes(), All(1, v1::PUT_OUTCOME_STORED));
  EXPECT_EQ(Get(GetOf({100}, {9}))->outcomes(), All(1, v1::GET_OUTCOME_REGION_FAILED));
  EXPECT_EQ(Get(GetOf({100}, {9}))->outcomes(), All(1, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(ReadBlock(memory, 9) == ReadBlock(memory, 0));
  EXPECT_EQ(DeviceFigures().workers_lost, 0U);
}

// An engine that makes an event for every call, as PyTorch's may be used.
TEST_F(OddDriverTest, EventsWithoutNumberAreWaitedForOneAfterTheOther) {
  Open();
  stand_in::ExportingProcess engine;
  const cuda::IpcMemHandle handle = engine.Allocate(kRegionBytes);
  v1::RegisterRegionRequest region = RegionOf(Allocate());
  region.set_handle(handle.reserved, sizeof(handle.reserved));
  ASSERT_TRUE(Register(*client_, region).ok());
  for (uint64_t i = 0; i < 150; ++i) {
    const cuda::IpcEventHandle event = engine.NewEvent();
    const auto value = static_cast<unsigned char>('a' + i % 26);
    engine.Fill(0, kRegionBytes, value);
    v1::PutRequest put = PutOf({100 + i}, {0});
    put.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
    const auto reply = Put(put);
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_EQ(reply->outcomes(), All(1, v1::PUT_OUTCOME_STORED)) << i;
    ASSERT_TRUE(Kept(100 + i) == std::string(kBlockBytes, static_cast<char>(value))) << i;
  }
}

// ---- two GPUs

class TwoGpusTest : public GpuRoomTest {
 protected:
  // Region 1 in memory of GPU 0, region 2 in that of GPU 1, whose copies nothing else holds back.
  void OpenBoth(const std::string& script = "devices=2") {
    stand_in_set_devices(2);
    ASSERT_NO_FATAL_FAILURE(Open(script));
    second_.emplace(*cuda::PrimaryContext::Retain(*driver_, 1));
    memory_ = {Allocate(), AllocateOnSecond()};
    ASSERT_TRUE(Register(*client_, RegionOf(memory_[0], 1)).ok());
    const auto registered = Register(*client_, OnSecond(RegionOf(memory_[1], 2)));
    ASSERT_TRUE(registered.ok()) << registered.status();
    Write(memory_[0], Seeded(8).Bytes(kRegionBytes));
  }
  cuda::DevicePointer AllocateOnSecond() {
    EXPECT_TRUE(second_->MakeCurrent().ok());
    const cuda::DevicePointer memory = Allocate();
    EXPECT_TRUE(context_->MakeCurrent().ok());
    return memory;
  }
  [[nodiscard]] v1::RegisterRegionRequest OnSecond(v1::RegisterRegionRequest request) const {
    const cuda::DeviceUuid uuid = *second_->Uuid();
    request.set_device_uuid(uuid.bytes, sizeof(uuid.bytes));
    return request;
  }
  v1::GetRequest GetInto(uint32_t region, uint64_t key, uint64_t block) const {
    v1::GetRequest request = GetOf({key}, {block});
    request.mutable_regions(0)->set_region_id(region);
    return request;
  }
  // By the order in which they were named first.
  [[nodiscard]] std::array<GpuDeviceFigures, 2> BothFigures() const {
    std::array<GpuDeviceFigures, 2> both;
    for (const GpuDeviceFigures& figures : Figures().devices) {
      both.at(figures.number) = figures;
    }
    return both;
  }

  std::optional<cuda::PrimaryContext> second_;
  std::array<cuda::DevicePointer, 2> memory_{};
};

TEST_F(TwoGpusTest, WhatOneSavesTheOtherLoads) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  ASSERT_EQ(Put(PutOf({100}, {3}))->outcomes(), All(1, v1::PUT_OUTCOME_STORED));
  const auto get = Get(GetInto(2, 100, 7));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(1, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(ReadBlock(memory_[1], 7) == ReadBlock(memory_[0], 3));
  const std::array<GpuDeviceFigures, 2> figures = BothFigures();
  EXPECT_NE(figures[0].worker_pid, figures[1].worker_pid);
  EXPECT_EQ(figures[0].ordinal, 0U);
  EXPECT_EQ(figures[1].ordinal, 1U);
  EXPECT_EQ(figures[0].regions, 1U);
  EXPECT_EQ(figures[1].regions, 1U);
}

TEST_F(TwoGpusTest, OneCallMayBeOfBoth) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  ASSERT_EQ(Put(PutOf({100}, {3}))->outcomes(), All(1, v1::PUT_OUTCOME_STORED));
  v1::GetRequest request = GetOf({100}, {5});
  *request.add_parts() = PartOf({100});
  v1::RegionBlocks* const second = request.add_regions();
  second->set_region_id(2);
  second->add_block_indexes(6);
  const auto get = Get(request);
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(2, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(ReadBlock(memory_[0], 5) == ReadBlock(memory_[0], 3));
  EXPECT_TRUE(ReadBlock(memory_[1], 6) == ReadBlock(memory_[0], 3));
}

TEST_F(TwoGpusTest, TheEndOfOneWorkerIsNothingToTheOther) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  ASSERT_EQ(Put(PutOf({100}, {3}))->outcomes(), All(1, v1::PUT_OUTCOME_STORED));
  ASSERT_EQ(Get(GetInto(2, 100, 7))->outcomes(), All(1, v1::GET_OUTCOME_OK));
  const int first = BothFigures()[0].worker_pid;
  kill(BothFigures()[1].worker_pid, SIGKILL);
  EXPECT_EQ(Get(GetInto(1, 100, 8))->outcomes(), All(1, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(Eventually([this] { return BothFigures()[1].workers_lost == 1; }));
  EXPECT_EQ(BothFigures()[0].workers_lost, 0U);
  EXPECT_EQ(BothFigures()[0].worker_pid, first);
  EXPECT_EQ(Get(GetInto(2, 100, 9))->outcomes(), All(1, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(ReadBlock(memory_[1], 9) == ReadBlock(memory_[0], 3));
}

TEST_F(TwoGpusTest, MemoryOfAnotherGpuThanTheRegionNamesIsRefused) {
  ASSERT_NO_FATAL_FAILURE(OpenBoth());
  const auto reply = Register(*client_, OnSecond(RegionOf(Allocate(), 3)));
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kInvalidArgument) << reply.status();
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("handle"));
}

}  // namespace
}  // namespace terrace::doubles
