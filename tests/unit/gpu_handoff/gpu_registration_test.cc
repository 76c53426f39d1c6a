// What a session may register as a GPU's memory, and what it may not.
#include <functional>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/cuda/gpu_room.h"

namespace terrace::doubles {
namespace {

using ::testing::HasSubstr;

class RegistrationTest : public GpuRoomTest {
 protected:
  static std::string Said(const absl::Status& status) { return std::string(status.message()); }
  // Nothing is mapped in the worker, and no id taken.
  void ExpectNothingKept() const {
    EXPECT_EQ(Figures().regions, 0U);
    EXPECT_EQ(DeviceFigures().regions, 0U);
  }
};

TEST_F(RegistrationTest, WhatIsWrongIsNamedAndNothingIsMapped) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  using Change = std::function<void(v1::RegisterRegionRequest&)>;
  const std::vector<std::pair<std::string, Change>> cases = {
      {"region_id", [](auto& r) { r.set_region_id(0); }},
      {"handle", [](auto& r) { r.set_handle("short"); }},
      {"device_uuid", [](auto& r) { r.set_device_uuid("short"); }},
      {"bytes", [](auto& r) { r.set_bytes(0); }},
      {"bytes", [](auto& r) { r.set_bytes(kRegionBytes + 4); }},
      {"bytes", [](auto& r) { r.set_bytes(UINT64_MAX); }},
      {"offset", [](auto& r) { r.set_offset(2); }},
      {"bytes", [](auto& r) { r.set_offset(UINT64_MAX - 3); }},
      {"read_only", [](auto& r) { r.set_read_only(true); }},
      {"planes_per_layer", [](auto& r) { r.set_planes_per_layer(3); }},
      {"canary_block", [](auto& r) { r.set_canary_block(kBlocks + 1); }},
      {"geometry.block_count", [](auto& r) { r.mutable_geometry()->set_block_count(0); }},
      {"geometry.planes", [](auto& r) { r.mutable_geometry()->clear_planes(); }},
      {"geometry", [](auto& r) { r.mutable_geometry()->mutable_planes(1)->set_offset(0); }},
      {"geometry", [](auto& r) { r.mutable_geometry()->set_block_count(kBlocks + 1); }},
      {"segments.bytes",
       [](auto& r) {
         r.mutable_geometry()->mutable_planes(0)->mutable_segments(0)->set_bytes(4095);
       }},
      // What only the driver knows: another size than the allocation's, and a handle of nothing.
      {"bytes",
       [](auto& r) {
         r.set_allocation_bytes(kRegionBytes * 4);
         r.set_bytes(kRegionBytes * 2);
         r.mutable_geometry()->set_block_count(1);
       }},
      {"handle", [](auto& r) { r.set_handle(std::string(64, 'x')); }}};
  for (const auto& [field, change] : cases) {
    v1::RegisterRegionRequest request = RegionOf(memory);
    change(request);
    const auto reply = Register(*client_, request);
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kInvalidArgument) << reply.status();
    EXPECT_THAT(Said(reply.status()), HasSubstr(field));
  }
  ExpectNothingKept();
  EXPECT_TRUE(Register(*client_, RegionOf(memory)).ok()) << "and it works as before";
}

TEST_F(RegistrationTest, AGpuThatIsNotHereIsNotFound) {
  Open();
  v1::RegisterRegionRequest request = RegionOf(Allocate());
  request.set_device_uuid(std::string(16, 'x'));
  const auto reply = Register(*client_, request);
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kNotFound) << reply.status();
  EXPECT_THAT(Said(reply.status()), HasSubstr("device_uuid"));
  ExpectNothingKept();
}

TEST_F(RegistrationTest, GpusThatAreNotHereTakeNobodysPlace) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  for (char which = 'a'; which < 'a' + static_cast<char>(kMaxGpus) + 2; ++which) {
    v1::RegisterRegionRequest request = RegionOf(memory);
    request.set_device_uuid(std::string(16, which));
    EXPECT_EQ(Register(*client_, request).status().code(), absl::StatusCode::kNotFound) << which;
  }
  const auto reply = Register(*client_, RegionOf(memory));
  EXPECT_TRUE(reply.ok()) << reply.status();
}

TEST_F(RegistrationTest, NoWorkerIsStartedWhereTooManyHang) {
  FrontRoomOptions options;
  options.gpus.emplace();
  options.gpus->max_stuck = 0;
  Open("", std::move(options));
  const auto reply = Register(*client_, RegionOf(Allocate()));
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable) << reply.status();
  ExpectNothingKept();
}

TEST_F(RegistrationTest, AHandleIsOneSessionsAlone) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  ASSERT_TRUE(Register(*client_, RegionOf(memory)).ok());
  const std::unique_ptr<FrameClient> other = NewSession();
  const auto foreign = Register(*other, RegionOf(memory));
  EXPECT_EQ(foreign.status().code(), absl::StatusCode::kAlreadyExists) << foreign.status();
  EXPECT_THAT(Said(foreign.status()), HasSubstr("handle"));
  client_.reset();
  EXPECT_TRUE(Eventually([&] { return Register(*other, RegionOf(memory)).ok(); }))
      << "until that one is over";
}

TEST_F(RegistrationTest, AHandleOfAProcessThatIsGoneIsRefused) {
  Open();
  cuda::IpcMemHandle handle{};
  {
    stand_in::ExportingProcess engine;
    handle = engine.Allocate(kRegionBytes);
  }
  v1::RegisterRegionRequest request = RegionOf(Allocate());
  request.set_handle(handle.reserved, sizeof(handle.reserved));
  EXPECT_FALSE(Register(*client_, request).ok());
  ExpectNothingKept();
}

TEST_F(RegistrationTest, SeveralRegionsMayLieInOneAllocation) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  for (const uint32_t id : {1, 2}) {
    v1::RegisterRegionRequest request = RegionOf(memory, id);
    request.mutable_geometry()->clear_planes();
    request.set_planes_per_layer(1);
    v1::Plane* plane = request.mutable_geometry()->add_planes();
    plane->set_block_stride(kBlockBytes);
    plane->add_segments()->set_bytes(kBlockBytes);
    request.mutable_geometry()->set_block_count(kBlocks / 2);
    request.set_bytes(kRegionBytes / 2);
    request.set_offset((id - 1) * kRegionBytes / 2);
    const auto reply = Register(*client_, request);
    EXPECT_TRUE(reply.ok()) << reply.status();
  }
  EXPECT_EQ(DeviceFigures().regions, 2U);
}

TEST_F(RegistrationTest, AnIdNamesOneRegionWhateverItsMemoryIs) {
  Open();
  v1::RegisterRegionRequest host;
  host.set_region_id(1);
  host.set_bytes(4096);
  host.mutable_geometry()->set_block_count(1);
  host.mutable_geometry()->add_planes()->add_segments()->set_bytes(4096);
  Descriptor memfd(memfd_create("region", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(memfd.get(), 4096), 0);
  ASSERT_TRUE(Register(*client_, host, {memfd.get()}).ok());
  const cuda::DevicePointer memory = Allocate();
  EXPECT_EQ(Register(*client_, RegionOf(memory)).status().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(Register(*client_, RegionOf(memory, 2)).ok());
  EXPECT_EQ(Register(*client_, RegionOf(memory, 2)).status().code(),
            absl::StatusCode::kAlreadyExists);
  host.set_region_id(2);
  EXPECT_EQ(Register(*client_, host, {memfd.get()}).status().code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(RegistrationTest, MemoryThatIsSharedByDescriptorIsMappedAndCopied) {
  Open();
  stand_in::ExportingProcess engine;
  const uint64_t bytes = kRegionBytes;  // a multiple of the device's granularity
  const Descriptor shared = engine.AllocateShared(bytes);
  engine.Fill(0, bytes, 'v');
  v1::RegisterRegionRequest request = RegionOf(Allocate());
  request.set_kind(v1::REGION_KIND_CUDA_VMM);
  request.clear_handle();
  const auto reply = Register(*client_, request, {shared.get()});
  ASSERT_TRUE(reply.ok()) << reply.status();
  const cuda::IpcEventHandle event = engine.event();
  v1::PutRequest put = PutOf({100}, {5});
  put.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
  ASSERT_TRUE(Put(put).ok());
  EXPECT_TRUE(Kept(100) == std::string(kBlockBytes, 'v'));
}

TEST_F(RegistrationTest, TheCanaryOverwritesItsBlockAndNoOther) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  const std::string before = Seeded(4).Bytes(kRegionBytes);
  Write(memory, before);
  const std::string fifth = ReadBlock(memory, 5);
  const std::string sixth = ReadBlock(memory, 6);
  v1::RegisterRegionRequest request = RegionOf(memory);
  request.set_canary_block(6);
  ASSERT_TRUE(Register(*client_, request).ok());
  EXPECT_FALSE(ReadBlock(memory, 5) == fifth);
  EXPECT_TRUE(ReadBlock(memory, 6) == sixth);
}

TEST_F(RegistrationTest, ACanaryThatComesBackOtherwiseIsRefused) {
  // Of the first canary that is sent, a byte on the way out or on the way back; eight copies each,
  // behind the eight that a worker begins with.
  for (const unsigned copy : {9, 16, 17, 24}) {
    Open("fail=flip," + std::to_string(copy) + ",999");
    v1::RegisterRegionRequest request = RegionOf(Allocate());
    request.set_canary_block(6);
    const auto reply = Register(*client_, request);
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kDataLoss) << reply.status();
    EXPECT_THAT(Said(reply.status()), HasSubstr("canary"));
    ExpectNothingKept();
    EXPECT_TRUE(Register(*client_, request).ok()) << "the next one is well";
    client_.reset();
    room_.reset();
  }
}

// An allocation that is freed and another one at the same address: the handle tells them apart.
TEST_F(RegistrationTest, MemoryAtAnAddressThatWasUsedBeforeIsItsOwn) {
  Open();
  stand_in::ExportingProcess engine;
  const auto registered = [&](uint32_t id) {
    const cuda::IpcMemHandle handle = engine.Allocate(kRegionBytes);
    v1::RegisterRegionRequest request = RegionOf(Allocate(), id);
    request.set_handle(handle.reserved, sizeof(handle.reserved));
    return Register(*client_, request);
  };
  ASSERT_TRUE(registered(1).ok());
  engine.Fill(0, kRegionBytes, 'o');
  engine.Free();
  const auto second = registered(2);
  ASSERT_TRUE(second.ok()) << second.status();
  engine.Fill(0, kRegionBytes, 'n');
  const cuda::IpcEventHandle event = engine.event();
  for (const uint32_t region : {1, 2}) {
    v1::PutRequest put = PutOf({100 + region}, {5});
    put.mutable_region()->set_region_id(region);
    put.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
    ASSERT_TRUE(Put(put).ok());
  }
  EXPECT_TRUE(Kept(101) == std::string(kBlockBytes, 'o'));
  EXPECT_TRUE(Kept(102) == std::string(kBlockBytes, 'n'));
}

TEST_F(RegistrationTest, OrdersForGpusAreRefusedForMemoryOfTheHost) {
  Open();
  v1::PutRequest put = PutOf({1}, {0});
  put.mutable_region()->set_region_id(9);
  put.mutable_region()->set_progress_slot(1);
  EXPECT_THAT(Said(Put(put).status()), HasSubstr("region.progress_slot"));
  v1::GetRequest get = GetOf({1}, {0});
  get.mutable_regions(0)->set_region_id(9);
  get.mutable_regions(0)->set_after_event("x");
  EXPECT_THAT(Said(Get(get).status()), HasSubstr("regions[0].after_event"));
}

TEST_F(RegistrationTest, OrdersAreCheckedBeforeAnythingIsCopied) {
  Open();
  ASSERT_NO_FATAL_FAILURE(RegisterOne(Allocate()));
  v1::PutRequest put = PutOf({1}, {0});
  put.mutable_region()->set_after_event("short");
  EXPECT_THAT(Said(Put(put).status()), HasSubstr("region.after_event"));
  v1::GetRequest get = GetOf({1}, {0});
  get.mutable_regions(0)->set_progress_slot(1025);
  EXPECT_THAT(Said(Get(get).status()), HasSubstr("regions[0].progress_slot"));
  put.mutable_region()->set_after_event(std::string(64, 'x'));
  const auto reply = Put(put);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->reasons()[0], v1::REASON_INVALID) << "a handle of no event";
}

TEST_F(RegistrationTest, AWorkerWithoutADriverIsSaidSo) {
  Open();
  setenv("TERRACE_CUDA_DRIVER", "/nonexistent/libcuda.so", 1);
  const auto reply = Register(*client_, RegionOf(Allocate()));
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable) << reply.status();
  ExpectNothingKept();
}

}  // namespace
}  // namespace terrace::doubles
