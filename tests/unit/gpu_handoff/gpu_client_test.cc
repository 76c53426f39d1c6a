// libterrace with the memory of a GPU: what an engine does.
#include <thread>
#include <utility>

#include "terrace/terrace.hpp"

#include "tests/doubles/cuda/gpu_room.h"

namespace terrace::doubles {
namespace {

class GpuClientTest : public GpuRoomTest {
 protected:
  void OpenClient(const std::string& script = "", terrace_slab_watch slabs = {}) {
    Open(script);
    terrace_options options{};
    options.struct_bytes = sizeof(options);
    options.runtime_dir = room_->folder().c_str();
    options.default_deadline_ms = 20'000;
    options.slabs = slabs;
    ASSERT_EQ(terrace_open(&options, &engine_), TERRACE_OK) << terrace_last_error();
    terrace_namespace_record record{};
    record.struct_bytes = sizeof(record);
    record.model = "engine";
    record.weights_revision = "1";
    record.kv_dtype = "bf16";
    record.layout = "test/1";
    record.hash_algorithm = "test";
    record.block_tokens = 16;
    record.block_bytes = kBlockBytes;
    ASSERT_EQ(terrace_open_namespace(engine_, &record, &ns_), TERRACE_OK);
    memory_ = Allocate();
    ASSERT_EQ(terrace_register_region(engine_, Spec(memory_), &region_), TERRACE_OK)
        << terrace_last_error();
  }
  ~GpuClientTest() override { terrace_close(engine_); }

  const terrace_region_spec* Spec(cuda::DevicePointer memory) {
    EXPECT_EQ((*driver_)->IpcGetMemHandle(&handle_, memory), cuda::kSuccess);
    planes_.clear();
    for (const RegionPlane& plane : stand_in::KeysFirst(Shape()).planes) {
      planes_.push_back({plane.offset, plane.block_stride, &half_, 1});
    }
    spec_ = {};
    spec_.struct_bytes = sizeof(spec_);
    spec_.fd = -1;
    spec_.bytes = kRegionBytes;
    spec_.block_count = kBlocks;
    spec_.planes = planes_.data();
    spec_.plane_count = static_cast<uint32_t>(planes_.size());
    spec_.memory = TERRACE_MEMORY_CUDA_IPC;
    spec_.handle = handle_.reserved;
    const cuda::DeviceUuid uuid = *context_->Uuid();
    std::memcpy(spec_.device_uuid, uuid.bytes, sizeof(uuid.bytes));
    spec_.allocation_bytes = kRegionBytes;
    spec_.planes_per_layer = 2;
    return &spec_;
  }
  terrace_part EnginePart(uint64_t key, const uint32_t* block) {
    key_ = TestKey(key);
    terrace_part part{};
    part.struct_bytes = sizeof(part);
    part.ns = ns_;
    part.rule = TERRACE_RULE_PREFIX;
    part.keys = key_.data();
    part.key_bytes = 32;
    part.key_count = 1;
    part.region = region_;
    part.block_indexes = block;
    return part;
  }
  static terrace_call CallOf(const terrace_part& part) {
    terrace_call call{};
    call.struct_bytes = sizeof(call);
    call.parts = &part;
    call.part_count = 1;
    return call;
  }
  uint64_t SubmitGet(const terrace_part& part) {
    const terrace_call call = CallOf(part);
    terrace_get_options options{};
    options.struct_bytes = sizeof(options);
    options.delivery = TERRACE_DELIVER_REGION;
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_get(engine_, &call, &options, &id), TERRACE_OK)
        << terrace_last_error();
    return id;
  }
  // The first outcome of the next completion; 255: its status is not OK.
  uint8_t Outcome() {
    terrace_completion* done = nullptr;
    if (terrace_drain(engine_, &done, 1, 20'000) != 1) {
      return 254;
    }
    const uint8_t outcome = done->status == TERRACE_OK ? done->outcomes[0] : 255;
    said_ = done->error;
    terrace_completion_free(done);
    return outcome;
  }
  uint8_t PutBlock(uint64_t key, uint32_t block) {
    const terrace_part part = EnginePart(key, &block);
    const terrace_call call = CallOf(part);
    EXPECT_EQ(terrace_submit_put(engine_, &call, nullptr, nullptr, 0, nullptr), TERRACE_OK)
        << terrace_last_error();
    return Outcome();
  }

  const terrace_segment half_{0, kHalfBytes};
  cuda::IpcMemHandle handle_{};
  std::vector<terrace_plane> planes_;
  terrace_region_spec spec_{};
  std::string key_;
  terrace_client* engine_ = nullptr;
  terrace_namespace ns_ = 0;
  std::string said_;  // by the last completion
  terrace_region region_ = 0;
  cuda::DevicePointer memory_ = 0;
};

TEST_F(GpuClientTest, AnEngineSavesAndLoadsWithoutTouchingTheBytes) {
  ASSERT_NO_FATAL_FAILURE(OpenClient());
  const std::string payload = Seeded(1).Bytes(kBlockBytes);
  WriteBlock(memory_, 3, payload);
  ASSERT_EQ(PutBlock(1, 3), TERRACE_PUT_STORED) << said_;
  const uint32_t block = 7;
  SubmitGet(EnginePart(1, &block));
  EXPECT_EQ(Outcome(), TERRACE_GET_OK);
  EXPECT_TRUE(ReadBlock(memory_, 7) == payload);
}

TEST_F(GpuClientTest, LayersAreWaitedForOneByOne) {
  ASSERT_NO_FATAL_FAILURE(OpenClient(HoldScript()));
  ASSERT_EQ(PutBlock(1, 0), TERRACE_PUT_STORED);
  Hold();
  const uint32_t block = 9;
  terrace_part part = EnginePart(1, &block);
  part.progress_slot = 5;
  const uint64_t call = SubmitGet(part);
  EXPECT_EQ(terrace_wait_layers(engine_, call, region_, 5, 1, 50), TERRACE_DEADLINE_EXCEEDED);
  LetGo();
  for (uint32_t layer = 1; layer <= kLayers; ++layer) {
    const terrace_status landed = terrace_wait_layers(engine_, call, region_, 5, layer, 20'000);
    EXPECT_EQ(landed, TERRACE_OK) << layer << terrace_last_error();
  }
  EXPECT_EQ(terrace_wait_layers(engine_, call, region_, 5, kLayers + 1, 20'000), TERRACE_NOT_FOUND)
      << "the call has ended";
  EXPECT_EQ(Outcome(), TERRACE_GET_OK);
  int fd = -1;
  ASSERT_EQ(terrace_progress_page(engine_, region_, &fd), TERRACE_OK) << terrace_last_error();
  const Descriptor page(fd);
  auto counters = Mapping::Map(page.get(), 0, 4096, MapAccess::kReadOnly);
  ASSERT_TRUE(counters.ok());
  EXPECT_EQ(reinterpret_cast<const uint32_t*>(counters->data())[4], kLayers);
}

TEST_F(GpuClientTest, ASlotIsZeroAgainWhenItIsUsedAgain) {
  ASSERT_NO_FATAL_FAILURE(OpenClient());
  ASSERT_EQ(PutBlock(1, 0), TERRACE_PUT_STORED);
  const uint32_t block = 9;
  terrace_part part = EnginePart(1, &block);
  part.progress_slot = 1;
  const uint64_t first = SubmitGet(part);
  EXPECT_EQ(terrace_wait_layers(engine_, first, region_, 1, kLayers, 20'000), TERRACE_OK);
  EXPECT_EQ(Outcome(), TERRACE_GET_OK);
  terrace_part miss = EnginePart(2, &block);
  miss.progress_slot = 1;
  const uint64_t second = SubmitGet(miss);
  EXPECT_EQ(terrace_wait_layers(engine_, second, region_, 1, 1, 20'000), TERRACE_NOT_FOUND);
  EXPECT_EQ(Outcome(), TERRACE_GET_MISS);
}

TEST_F(GpuClientTest, WhatTheDaemonRefusesShowsInTheCallsThatUseTheRegion) {
  ASSERT_NO_FATAL_FAILURE(OpenClient());
  terrace_region_spec wrong = *Spec(Allocate());
  wrong.allocation_bytes = kRegionBytes * 8;
  wrong.handle = std::memset(handle_.reserved, 1, sizeof(handle_.reserved));
  ASSERT_EQ(terrace_register_region(engine_, &wrong, &region_), TERRACE_OK);
  EXPECT_NE(PutBlock(1, 0), TERRACE_PUT_STORED) << "it may be on its way before the refusal";
  EXPECT_TRUE(Eventually([this] {
    return PutBlock(1, 0) == 255 && said_.find("handle") != std::string::npos;
  })) << said_;
}

TEST_F(GpuClientTest, AnUnregisteredRegionHasNoPage) {
  ASSERT_NO_FATAL_FAILURE(OpenClient());
  ASSERT_EQ(PutBlock(1, 0), TERRACE_PUT_STORED);
  ASSERT_EQ(terrace_unregister_region(engine_, region_, 20'000), TERRACE_OK);
  int fd = -1;
  EXPECT_EQ(terrace_progress_page(engine_, region_, &fd), TERRACE_UNAVAILABLE);
  EXPECT_EQ(Figures().regions, 0U);
}

TEST_F(GpuClientTest, WhatIsWrongWithASpecIsSaidAtOnce) {
  ASSERT_NO_FATAL_FAILURE(OpenClient());
  const auto said = [this](auto change) {
    terrace_region_spec spec = *Spec(memory_);
    change(spec);
    terrace_region region = 0;
    EXPECT_EQ(terrace_register_region(engine_, &spec, &region), TERRACE_INVALID_ARGUMENT);
    return std::string(terrace_last_error());
  };
  using ::testing::HasSubstr;
  using Spec = terrace_region_spec;
  EXPECT_THAT(said([](Spec& s) { s.handle = nullptr; }), HasSubstr("handle"));
  EXPECT_THAT(said([](Spec& s) { s.allocation_bytes = 0; }), HasSubstr("allocation_bytes"));
  EXPECT_THAT(said([](Spec& s) { s.offset = 2; }), HasSubstr("offset"));
  EXPECT_THAT(said([](Spec& s) { s.read_only = 1; }), HasSubstr("read_only"));
  EXPECT_THAT(said([](Spec& s) { s.memory = static_cast<terrace_memory>(1); }),
              HasSubstr("memory"));
  EXPECT_THAT(said([](Spec& s) { s.memory = TERRACE_MEMORY_CUDA_VMM; }), HasSubstr("fd"));
}

// Where IPC does not work: the engine copies from leased memory, which it registers with the driver
// itself.
class CopyingEngineTest : public GpuClientTest {
 protected:
  ~CopyingEngineTest() override { terrace_close(std::exchange(engine_, nullptr)); }

  terrace_slab_watch Watch() {
    return {
        [](void* context, const void* memory, uint64_t bytes) {
          const auto* const self = static_cast<CopyingEngineTest*>(context);
          EXPECT_EQ(
              (*self->driver_)
                  ->MemHostRegister(const_cast<void*>(memory), bytes, cuda::kHostRegisterReadOnly),
              cuda::kSuccess);
        },
        [](void* context, const void* memory, uint64_t /*bytes*/) {
          const auto* const self = static_cast<CopyingEngineTest*>(context);
          EXPECT_EQ((*self->driver_)->MemHostUnregister(const_cast<void*>(memory)), cuda::kSuccess);
        },
        this};
  }
  static StandInCounters Counters() {
    StandInCounters counters{};
    stand_in_counters(&counters);
    return counters;
  }
};

TEST_F(CopyingEngineTest, LeasedMemoryIsRegisteredOnceAndCopiedFrom) {
  ASSERT_NO_FATAL_FAILURE(OpenClient("", Watch()));
  const std::string payload = Seeded(4).Bytes(kBlockBytes);
  WriteBlock(memory_, 3, payload);
  ASSERT_EQ(PutBlock(1, 3), TERRACE_PUT_STORED) << said_;
  EXPECT_EQ(Counters().registered_bytes, 0U);
  for (const uint64_t at : {0, 1, 2}) {
    terrace_part part = EnginePart(1, nullptr);
    part.region = 0;
    const terrace_call call = CallOf(part);
    terrace_get_options options{};
    options.struct_bytes = sizeof(options);
    options.delivery = TERRACE_DELIVER_LEASE;
    ASSERT_EQ(terrace_submit_get(engine_, &call, &options, nullptr), TERRACE_OK);
    terrace_completion* done = nullptr;
    ASSERT_EQ(terrace_drain(engine_, &done, 1, 20'000), 1U);
    ASSERT_EQ(done->status, TERRACE_OK) << done->error;
    ASSERT_EQ(done->outcomes[0], TERRACE_GET_OK);
    const uint64_t pageable = Counters().pageable_copies;
    EXPECT_EQ((*driver_)->MemcpyHtoDAsync(memory_ + at * kBlockBytes, done->data[0], kBlockBytes,
                                          stream_->get()),
              cuda::kSuccess);
    EXPECT_EQ((*driver_)->StreamSynchronize(stream_->get()), cuda::kSuccess);
    EXPECT_EQ(terrace_submit_release(engine_, &done->lease, 1, nullptr, 0, 0, nullptr), TERRACE_OK);
    terrace_completion_free(done);
    EXPECT_EQ(Counters().pageable_copies, pageable) << "the driver knows the memory";
    EXPECT_TRUE(Read(memory_ + at * kBlockBytes, kBlockBytes) == payload);
  }
  EXPECT_GT(Counters().registered_bytes, kBlockBytes);
  terrace_close(std::exchange(engine_, nullptr));
  EXPECT_EQ(Counters().registered_bytes, 0U);
}

TEST(GpuPart, SaysEventAndSlot) {
  const char event[TERRACE_CUDA_HANDLE_BYTES] = {};
  const Part part = Part(Namespace(), std::string(32, 'k')).OnGpu(event, 9);
  EXPECT_EQ(part.get().after_event, event);
  EXPECT_EQ(part.get().progress_slot, 9U);
}

}  // namespace
}  // namespace terrace::doubles
