// A front that serves regions of GPUs, with a worker process over the stand-in driver; and the test
// as an engine: device memory of its own, and a session.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/cuda/kv_layouts.h"
#include "tests/doubles/cuda/stand_in.h"
#include "tests/doubles/front_room.h"
#include "tests/doubles/seeded.h"
#include "tiers/gpu/cuda_objects.h"

namespace terrace::doubles {

// Region 1 lies in device memory of the test's; keys first, four layers.
class GpuRoomTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlocks = 64;
  static constexpr uint32_t kLayers = 4;
  static constexpr uint64_t kHalfBytes = 4096;
  static constexpr uint64_t kBlockBytes = 2 * kLayers * kHalfBytes;
  static constexpr uint64_t kRegionBytes = kBlocks * kBlockBytes;

  GpuRoomTest() {
    stand_in_reset();
    setenv("TERRACE_CUDA_DRIVER", TERRACE_STAND_IN_CUDA, 1);
    unsetenv("STAND_IN_CUDA");
    unsetenv("TERRACE_GATHER_PIECE_BYTES");
    auto driver = cuda::CudaDriver::Load();
    EXPECT_TRUE(driver.ok()) << driver.status();
    driver_ = *std::move(driver);
    context_.emplace(*cuda::PrimaryContext::Retain(*driver_, 0));
    EXPECT_TRUE(context_->MakeCurrent().ok());
    stream_.emplace(*cuda::OwnedStream::Create(*context_, cuda::OwnedStream::Urgency::kLast));
  }
  ~GpuRoomTest() override {
    client_.reset();
    room_.reset();
    for (const cuda::DevicePointer pointer : allocated_) {
      (*driver_)->MemFree(pointer);
    }
    if (!hold_file_.empty()) {
      std::filesystem::remove(hold_file_);
    }
  }

  // `script`: as STAND_IN_CUDA has it, for workers.
  void Open(const std::string& script = "", FrontRoomOptions options = {}) {
    setenv("STAND_IN_CUDA", script.c_str(), 1);
    if (!options.gpus.has_value()) {
      options.gpus.emplace();
      options.gpus->staging_bytes = uint64_t{64} << 20;
    }
    options.gpus->program = GPU_WORKER_PATH;
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    client_ = NewSession();
    digest_ = OpenNamespace(*client_);
  }
  // Workers that are started with it make no copy from Hold to LetGo.
  std::string HoldScript() {
    hold_file_ =
        (std::filesystem::temp_directory_path() / ("terrace-hold-" + std::to_string(getpid())))
            .string();
    return "hold=" + hold_file_;
  }
  void Hold() const { std::ofstream(hold_file_).put('x'); }
  void LetGo() const { std::filesystem::remove(hold_file_); }

  std::unique_ptr<FrameClient> NewSession() const {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  static std::string OpenNamespace(FrameClient& client) {
    v1::OpenNamespaceRequest request;
    *request.mutable_record() = TestRecord(kBlockBytes);
    const auto reply = client.Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, request);
    return reply.ok() ? reply->namespace_digest() : "";
  }

  // ---- device memory of the test's
  cuda::DevicePointer Allocate(uint64_t bytes = kRegionBytes) {
    cuda::DevicePointer pointer = 0;
    EXPECT_EQ((*driver_)->MemAlloc(&pointer, bytes), cuda::kSuccess);
    allocated_.push_back(pointer);
    return pointer;
  }
  void Write(cuda::DevicePointer to, const std::string& from) {
    EXPECT_EQ((*driver_)->MemcpyHtoDAsync(to, from.data(), from.size(), stream_->get()),
              cuda::kSuccess);
    EXPECT_EQ((*driver_)->StreamSynchronize(stream_->get()), cuda::kSuccess);
  }
  std::string Read(cuda::DevicePointer from, uint64_t bytes) {
    std::string out(bytes, '\0');
    EXPECT_EQ((*driver_)->MemcpyDtoHAsync(out.data(), from, bytes, stream_->get()), cuda::kSuccess);
    EXPECT_EQ((*driver_)->StreamSynchronize(stream_->get()), cuda::kSuccess);
    return out;
  }
  static stand_in::KvShape Shape() { return {kBlocks, kLayers, kHalfBytes}; }
  // A block's payload, gathered from or scattered to the layout.
  std::string ReadBlock(cuda::DevicePointer region, uint32_t block) {
    std::string payload;
    for (const RegionPlane& plane : stand_in::KeysFirst(Shape()).planes) {
      payload += Read(region + plane.offset + block * plane.block_stride, kHalfBytes);
    }
    return payload;
  }
  void WriteBlock(cuda::DevicePointer region, uint32_t block, const std::string& payload) {
    uint64_t at = 0;
    for (const RegionPlane& plane : stand_in::KeysFirst(Shape()).planes) {
      Write(region + plane.offset + block * plane.block_stride, payload.substr(at, kHalfBytes));
      at += kHalfBytes;
    }
  }

  // ---- requests
  v1::RegisterRegionRequest RegionOf(cuda::DevicePointer memory, uint32_t region_id = 1) {
    cuda::IpcMemHandle handle{};
    EXPECT_EQ((*driver_)->IpcGetMemHandle(&handle, memory), cuda::kSuccess);
    v1::RegisterRegionRequest request;
    request.set_region_id(region_id);
    request.set_kind(v1::REGION_KIND_CUDA_IPC);
    request.set_handle(handle.reserved, sizeof(handle.reserved));
    const cuda::DeviceUuid uuid = *context_->Uuid();
    request.set_device_uuid(uuid.bytes, sizeof(uuid.bytes));
    request.set_allocation_bytes(kRegionBytes);
    request.set_bytes(kRegionBytes);
    request.set_planes_per_layer(2);
    request.mutable_geometry()->set_block_count(kBlocks);
    for (const RegionPlane& plane : stand_in::KeysFirst(Shape()).planes) {
      v1::Plane* out = request.mutable_geometry()->add_planes();
      out->set_offset(plane.offset);
      out->set_block_stride(plane.block_stride);
      out->add_segments()->set_bytes(kHalfBytes);
    }
    return request;
  }
  absl::StatusOr<v1::RegisterRegionReply> Register(FrameClient& client,
                                                   const v1::RegisterRegionRequest& request,
                                                   const std::vector<int>& descriptors = {}) {
    return client.Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request, descriptors);
  }
  v1::Part PartOf(const std::vector<uint64_t>& keys) const {
    v1::Part part;
    part.set_namespace_digest(digest_);
    for (const uint64_t key : keys) {
      part.mutable_keys()->append(TestKey(key));
    }
    return part;
  }
  static void SayBlocks(v1::RegionBlocks& blocks, const std::vector<uint64_t>& indexes) {
    blocks.set_region_id(1);
    for (const uint64_t index : indexes) {
      blocks.add_block_indexes(static_cast<uint32_t>(index));
    }
  }
  v1::PutRequest PutOf(const std::vector<uint64_t>& keys,
                       const std::vector<uint64_t>& blocks) const {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(keys);
    SayBlocks(*request.mutable_region(), blocks);
    return request;
  }
  v1::GetRequest GetOf(const std::vector<uint64_t>& keys,
                       const std::vector<uint64_t>& blocks) const {
    v1::GetRequest request;
    *request.add_parts() = PartOf(keys);
    request.set_delivery(v1::DELIVERY_REGION);
    SayBlocks(*request.add_regions(), blocks);
    return request;
  }
  absl::StatusOr<v1::PutReply> Put(const v1::PutRequest& request) {
    return client_->Call<v1::PutReply>(v1::METHOD_PUT, request);
  }
  absl::StatusOr<v1::GetReply> Get(const v1::GetRequest& request) {
    return client_->Call<v1::GetReply>(v1::METHOD_GET, request);
  }
  // The payload that the daemon keeps, by way of a message.
  std::string Kept(uint64_t key) {
    v1::GetRequest request;
    *request.add_parts() = PartOf({key});
    request.set_wait_pending(1);
    const auto reply = Get(request);
    return reply.ok() ? reply->payload() : std::string(reply.status().message());
  }
  // Registers `memory` as region 1.
  void RegisterOne(cuda::DevicePointer memory) {
    const auto reply = Register(*client_, RegionOf(memory));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->payload_bytes(), kBlockBytes);
    ASSERT_EQ(client_->received().size(), 1U);
    page_ = std::move(client_->received().front());
  }
  // The counter of the progress page of the region that was registered last.
  std::atomic<uint32_t>* Counter(uint32_t slot) {
    auto mapping = Mapping::Map(page_.get(), 0, 4096, MapAccess::kReadWrite);
    EXPECT_TRUE(mapping.ok()) << mapping.status();
    page_mapping_ = *std::move(mapping);
    return reinterpret_cast<std::atomic<uint32_t>*>(page_mapping_.data()) + slot;
  }
  GpuFigures Figures() const { return room_->gpu().figures(); }
  GpuDeviceFigures DeviceFigures() const {
    const GpuFigures figures = Figures();
    return figures.devices.empty() ? GpuDeviceFigures{} : figures.devices.front();
  }

  std::unique_ptr<cuda::CudaDriver> driver_;
  std::optional<cuda::PrimaryContext> context_;
  std::optional<cuda::OwnedStream> stream_;
  std::vector<cuda::DevicePointer> allocated_;
  std::string hold_file_;
  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::string digest_;
  Descriptor page_;
  Mapping page_mapping_;
};

inline std::vector<uint64_t> Numbers(uint64_t first, uint64_t count) {
  std::vector<uint64_t> numbers;
  for (uint64_t i = 0; i < count; ++i) {
    numbers.push_back(first + i);
  }
  return numbers;
}

}  // namespace terrace::doubles
