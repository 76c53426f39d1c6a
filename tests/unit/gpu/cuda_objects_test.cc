#include "tiers/gpu/cuda_objects.h"

#include <sys/mman.h>

#include <cstring>

#include <gmock/gmock.h>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/unit/gpu/stand_in_room.h"

namespace terrace {
namespace {

using cuda::ImportedMemory;
using cuda::OwnedEvent;
using cuda::OwnedStream;
using cuda::PinnedMemory;
using cuda::PrimaryContext;
using stand_in::ExportingProcess;
using testing::HasSubstr;

constexpr uint64_t kBytes = uint64_t{2} << 20;

class CudaObjectsTest : public StandInTest {
 protected:
  ~CudaObjectsTest() override { ExpectNothingHeld(); }

  static std::string Said(const absl::Status& status) { return std::string(status.message()); }
};

TEST_F(CudaObjectsTest, AContextTellsItsDevice) {
  EXPECT_EQ(context().Attribute(cuda::kAttributeReadOnlyHostRegister), 1);
  EXPECT_EQ(context().Attribute(99999), 0);
  ASSERT_TRUE(context().Uuid().ok());
  EXPECT_EQ(std::string(context().Uuid()->bytes, 16), "stand-in-device0");
}

TEST_F(CudaObjectsTest, ADeviceThatIsNotThereIsRefused) {
  EXPECT_EQ(PrimaryContext::Retain(driver(), 7).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaObjectsTest, MemoryByHandleIsTheOtherProcesses) {
  ExportingProcess engine;
  const cuda::IpcMemHandle handle = engine.Allocate(kBytes);
  const auto event = OwnedEvent::Open(context(), engine.event());
  ASSERT_TRUE(event.ok()) << event.status();
  engine.Fill(0, kBytes, 'x');
  ASSERT_EQ(driver()->EventSynchronize(event->get()), cuda::kSuccess);

  const auto memory = ImportedMemory::OpenIpc(context(), handle, kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(Read(memory->address() + 4096, 3), "xxx");
  EXPECT_EQ(Counters().open_ipc_mappings, 1U);
}

TEST_F(CudaObjectsTest, AHandleOfAnotherSizeIsRefusedAndNothingStaysMapped) {
  ExportingProcess engine;
  const auto memory = ImportedMemory::OpenIpc(context(), engine.Allocate(kBytes), kBytes * 2);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Said(memory.status()), HasSubstr("bytes"));
  EXPECT_EQ(Counters().open_ipc_mappings, 0U);
}

TEST_F(CudaObjectsTest, HandlesThatNameNothingAreRefused) {
  cuda::IpcMemHandle nonsense{};
  EXPECT_THAT(Said(ImportedMemory::OpenIpc(context(), nonsense, kBytes).status()),
              HasSubstr("handle"));
  cuda::IpcMemHandle stale{};
  {
    ExportingProcess engine;
    stale = engine.Allocate(kBytes);
  }
  EXPECT_EQ(ImportedMemory::OpenIpc(context(), stale, kBytes).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OwnedEvent::Open(context(), cuda::IpcEventHandle{}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaObjectsTest, AHandleIsOpenedOnceAtATime) {
  ExportingProcess engine;
  const cuda::IpcMemHandle handle = engine.Allocate(kBytes);
  const auto first = ImportedMemory::OpenIpc(context(), handle, kBytes);
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(ImportedMemory::OpenIpc(context(), handle, kBytes).ok());
}

TEST_F(CudaObjectsTest, MemoryByDescriptorIsTheOtherProcessesAndOutlivesIt) {
  ExportingProcess engine;
  const Descriptor descriptor = engine.AllocateShared(kBytes);
  const auto event = OwnedEvent::Open(context(), engine.event());
  engine.Fill(0, kBytes, 'y');
  ASSERT_EQ(driver()->EventSynchronize(event->get()), cuda::kSuccess);
  const auto memory = ImportedMemory::MapShared(context(), descriptor, kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  engine.Kill();
  EXPECT_EQ(Read(memory->address(), 2), "yy");
}

TEST_F(CudaObjectsTest, DescriptorsOfNoMemoryOrOfTooLittleAreRefused) {
  ExportingProcess engine;
  const Descriptor descriptor = engine.AllocateShared(kBytes);
  EXPECT_THAT(Said(ImportedMemory::MapShared(context(), descriptor, kBytes * 2).status()),
              HasSubstr("bytes"));
  EXPECT_THAT(Said(ImportedMemory::MapShared(context(), descriptor, 4096).status()),
              HasSubstr("bytes: a multiple of"));
  const Descriptor other(memfd_create("other", MFD_CLOEXEC));
  EXPECT_THAT(Said(ImportedMemory::MapShared(context(), other, kBytes).status()),
              HasSubstr("descriptor"));
}

// The fixture looks whether anything is still held.
TEST_F(CudaObjectsTest, WhateverStepFailsNothingIsLeftBehind) {
  const auto failed = [](const char* function, const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << function << ": " << status;
    EXPECT_THAT(Said(status), HasSubstr("CUDA_ERROR_OUT_OF_MEMORY")) << function;
  };
  ExportingProcess engine;
  const Descriptor descriptor = engine.AllocateShared(kBytes);
  for (const char* function : {"cuMemGetAllocationGranularity", "cuMemImportFromShareableHandle",
                               "cuMemAddressReserve", "cuMemMap", "cuMemSetAccess"}) {
    stand_in_fail(function, 1, cuda::kOutOfMemory);
    failed(function, ImportedMemory::MapShared(context(), descriptor, kBytes).status());
    EXPECT_EQ(Counters().reserved_ranges, 0U) << function;
    EXPECT_EQ(Counters().mapped_bytes, 0U) << function;
    EXPECT_EQ(Counters().allocation_handles, 0U) << function;
  }
  const cuda::IpcMemHandle handle = engine.Allocate(kBytes);
  for (const char* function : {"cuIpcOpenMemHandle_v2", "cuMemGetAddressRange_v2"}) {
    stand_in_fail(function, 1, cuda::kOutOfMemory);
    failed(function, ImportedMemory::OpenIpc(context(), handle, kBytes).status());
    EXPECT_EQ(Counters().open_ipc_mappings, 0U) << function;
  }
  stand_in_fail("cuDevicePrimaryCtxRetain", 1, cuda::kOutOfMemory);
  failed("context", PrimaryContext::Retain(driver(), 0).status());
  stand_in_fail("cuStreamCreateWithPriority", 1, cuda::kOutOfMemory);
  failed("stream", OwnedStream::Create(context(), OwnedStream::Urgency::kFirst).status());
  stand_in_fail("cuEventCreate", 1, cuda::kOutOfMemory);
  failed("event", OwnedEvent::Create(context()).status());
  stand_in_fail("cuEventCreate", 1, cuda::kOutOfMemory);
  failed("shared event", OwnedEvent::CreateShared(context()).status());
  stand_in_fail("cuDeviceGetUuid_v2", 1, cuda::kOutOfMemory);
  failed("uuid", context().Uuid().status());
}

TEST_F(CudaObjectsTest, AContextThatIsLostMakesNothing) {
  stand_in_fail("cuCtxSetCurrent", 1, cuda::kInvalidContext);
  EXPECT_EQ(OwnedEvent::Create(context()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CudaObjectsTest, MemoryMappedReadOnlyIsRegisteredReadOnlyOrNotAtAll) {
  auto memory = SealedMemory::Create({.bytes = kBytes, .huge_pages = false});
  ASSERT_TRUE(memory.ok());
  auto view = Mapping::Map(memory->descriptor().get(), 0, kBytes, MapAccess::kReadOnly);
  ASSERT_TRUE(view.ok());
  const absl::Span<char> seen(view->data(), view->size());
  EXPECT_EQ(
      PinnedMemory::Register(context(), seen, PinnedMemory::Access::kReadWrite).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(PinnedMemory::Register(context(), seen, PinnedMemory::Access::kReadOnly).ok());
  stand_in_set_read_only_registration(0);
  EXPECT_EQ(
      PinnedMemory::Register(context(), seen, PinnedMemory::Access::kReadOnly).status().code(),
      absl::StatusCode::kUnimplemented);
}

TEST_F(CudaObjectsTest, MemoryIsRegisteredOnce) {
  std::string memory(8192, ' ');
  const absl::Span<char> span(memory.data(), memory.size());
  const auto first = PinnedMemory::Register(context(), span, PinnedMemory::Access::kReadWrite);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(
      PinnedMemory::Register(context(), span, PinnedMemory::Access::kReadWrite).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaObjectsTest, LockedMemoryThatIsUsedUpIsResourceExhausted) {
  stand_in_fail("cuMemHostRegister_v2", 1, cuda::kOutOfMemory);
  std::string memory(8192, ' ');
  EXPECT_EQ(PinnedMemory::Register(context(), {memory.data(), memory.size()},
                                   PinnedMemory::Access::kReadWrite)
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

// What the stand-in is for: each of these mistakes of an engine has to show.

class StandInCatchesTest : public CudaObjectsTest {};

TEST_F(StandInCatchesTest, AReadBeforeTheProducersEventSeesOldBytesAndIsRecorded) {
  ExportingProcess engine;
  const cuda::IpcMemHandle handle = engine.Allocate(kBytes);
  const auto memory = ImportedMemory::OpenIpc(context(), handle, kBytes);
  const auto event = OwnedEvent::Open(context(), engine.event());
  engine.HoldBack(true);
  engine.Fill(4096, 4096, 'n');
  EXPECT_EQ(driver()->EventQuery(event->get()), cuda::kNotReady);
  EXPECT_EQ(Read(memory->address(), 2), std::string(2, '\0'));
  EXPECT_EQ(Counters().reads_under_pending_write, 0U);
  EXPECT_EQ(Read(memory->address() + 4096, 2), std::string(2, '\0'));
  EXPECT_EQ(Counters().reads_under_pending_write, 1U);

  const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kFirst);
  std::string seen(2, ' ');
  ASSERT_EQ(driver()->StreamWaitEvent(stream->get(), event->get(), 0), cuda::kSuccess);
  ASSERT_EQ(driver()->MemcpyDtoHAsync(seen.data(), memory->address() + 4096, 2, stream->get()),
            cuda::kSuccess);
  engine.HoldBack(false);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(seen, "nn");
  EXPECT_EQ(Counters().reads_under_pending_write, 1U);
}

TEST_F(StandInCatchesTest, ACopyThatRunsAfterItsMemoryBecameAnothersIsRecorded) {
  const cuda::DevicePointer memory = Allocate(kBytes);
  const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kFirst);
  std::string bytes = "late";
  stand_in_hold_back(1);
  ASSERT_EQ(driver()->MemcpyHtoDAsync(memory, bytes.data(), 4, stream->get()), cuda::kSuccess);
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
  EXPECT_EQ(Allocate(kBytes), memory) << "addresses are used again at once";
  stand_in_hold_back(0);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(Counters().late_copies, 1U);
  EXPECT_EQ(Read(memory, 4), "late") << "and so somebody else's memory was written";
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

TEST_F(StandInCatchesTest, ACopyFromADeadExportersMemoryEndsTheContext) {
  {
    ExportingProcess engine;
    const auto memory = ImportedMemory::OpenIpc(context(), engine.Allocate(kBytes), kBytes);
    ASSERT_TRUE(memory.ok());
    engine.Kill();
    const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kFirst);
    std::string bytes(4, ' ');
    ASSERT_EQ(driver()->MemcpyDtoHAsync(bytes.data(), memory->address(), 4, stream->get()),
              cuda::kSuccess);
    EXPECT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kIllegalAddress);
    cuda::DevicePointer more = 0;
    EXPECT_EQ(driver()->MemAlloc(&more, 4096), cuda::kIllegalAddress) << "it is sticky";
    EXPECT_EQ(Counters().faults, 1U);
    stand_in_reset();  // so that what is held can be given back
  }
}

TEST_F(StandInCatchesTest, AnAddressOfTheDeviceIsNoneOfTheProcessors) {
  const cuda::DevicePointer memory = Allocate(kBytes);
  EXPECT_DEATH(std::memset(reinterpret_cast<void*>(memory), 1, 1), "");
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

TEST_F(StandInCatchesTest, ACopyFromMemoryThatIsNotPinnedIsCounted) {
  const cuda::DevicePointer memory = Allocate(kBytes);
  Write(memory, "pageable");
  EXPECT_EQ(Counters().pageable_copies, 1U);
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

TEST_F(StandInCatchesTest, AStreamWaitsForAValueAndCallsTheHostInItsTurn) {
  const cuda::DevicePointer memory = Allocate(kBytes);
  const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kFirst);
  std::atomic<bool> called{false};
  ASSERT_EQ(driver()->StreamWaitValue64(stream->get(), memory, 1, cuda::kWaitValueAtLeast),
            cuda::kSuccess);
  ASSERT_EQ(driver()->LaunchHostFunc(
                stream->get(), [](void* flag) { *static_cast<std::atomic<bool>*>(flag) = true; },
                &called),
            cuda::kSuccess);
  EXPECT_FALSE(called);
  Write(memory, std::string("\1\0\0\0\0\0\0\0", 8));
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_TRUE(called);
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

TEST_F(StandInCatchesTest, BytesMoveWithinTheDevice) {
  const cuda::DevicePointer memory = Allocate(kBytes);
  Write(memory, "within");
  const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kFirst);
  ASSERT_EQ(driver()->MemcpyDtoDAsync(memory + 4096, memory, 6, stream->get()), cuda::kSuccess);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(Read(memory + 4096, 6), "within");
  ASSERT_EQ(driver()->MemFree(memory), cuda::kSuccess);
}

}  // namespace
}  // namespace terrace
