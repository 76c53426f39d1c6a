// What is relied on of a CUDA driver: that types, values and versions of its calls are as declared,
// and that they do what the copy engine takes them to do. Runs over the stand-in, and over the
// driver of this host where there is one; skips, and says so, where there is none.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <gtest/gtest.h>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/seeded.h"
#include "tiers/gpu/batch_trial.h"
#include "tiers/gpu/copy_engine.h"
#include "tiers/os/file_system.h"

namespace terrace {
namespace {

using cuda::CopyDirection;
using cuda::ImportedMemory;
using cuda::OwnedEvent;
using cuda::OwnedStream;
using cuda::PinnedMemory;
using stand_in::ExportingProcess;

constexpr uint64_t kBytes = uint64_t{8} << 20;

class CudaContractTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("STAND_IN_CUDA", "kernels", 0);  // means something to the stand-in alone
    auto loaded = cuda::CudaDriver::Load();
    if (absl::IsUnavailable(loaded.status())) {
      GTEST_SKIP() << loaded.status();
    }
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    driver_ = *std::move(loaded);
    auto context = cuda::PrimaryContext::Retain(*driver_, 0);
    ASSERT_TRUE(context.ok()) << context.status();
    context_.emplace(*std::move(context));
    ASSERT_TRUE(context_->MakeCurrent().ok());
    stream_.emplace(*OwnedStream::Create(*context_, OwnedStream::Urgency::kFirst));
  }

  [[nodiscard]] const cuda::CudaDriver& driver() const { return *driver_; }

  // Returns when it has ended, well.
  static void Run(CopyEngine& engine, DeviceTransfer transfer) {
    absl::Notification done;
    const auto token = engine.Submit(std::move(transfer), [&done](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      done.Notify();
    });
    ASSERT_TRUE(token.ok()) << token.status();
    done.WaitForNotification();
  }

  cuda::DevicePointer Allocate(uint64_t bytes) {
    cuda::DevicePointer pointer = 0;
    EXPECT_EQ(driver()->MemAlloc(&pointer, bytes), cuda::kSuccess);
    return pointer;
  }
  void Write(cuda::DevicePointer to, const std::string& from) {
    EXPECT_EQ(driver()->MemcpyHtoDAsync(to, from.data(), from.size(), stream_->get()),
              cuda::kSuccess);
    EXPECT_EQ(driver()->StreamSynchronize(stream_->get()), cuda::kSuccess);
  }
  std::string Read(cuda::DevicePointer from, uint64_t bytes) {
    std::string out(bytes, '\0');
    EXPECT_EQ(driver()->MemcpyDtoHAsync(out.data(), from, bytes, stream_->get()), cuda::kSuccess);
    EXPECT_EQ(driver()->StreamSynchronize(stream_->get()), cuda::kSuccess);
    return out;
  }

  std::unique_ptr<cuda::CudaDriver> driver_;
  std::optional<cuda::PrimaryContext> context_;
  std::optional<OwnedStream> stream_;
};

TEST_F(CudaContractTest, TheDeviceIsDescribed) {
  int version = 0;
  int count = 0;
  ASSERT_EQ(driver()->DriverGetVersion(&version), cuda::kSuccess);
  ASSERT_EQ(driver()->DeviceGetCount(&count), cuda::kSuccess);
  EXPECT_GE(version, 11040);
  EXPECT_GE(count, 1);
  EXPECT_TRUE(context_->Uuid().ok());
  EXPECT_EQ(context_->Attribute(cuda::kAttributeUnifiedAddressing), 1);
  EXPECT_EQ(context_->Attribute(cuda::kAttributeHostRegister), 1);
  EXPECT_GE(context_->Attribute(cuda::kAttributeAsyncEngineCount), 1);
  std::cout << "driver " << version << ", batches " << driver().copies_in_batches()
            << ", read-only registration "
            << context_->Attribute(cuda::kAttributeReadOnlyHostRegister) << '\n';
}

TEST_F(CudaContractTest, ErrorsHaveTheNamesThatTheirValuesAreDeclaredWith) {
  const std::pair<cuda::Result, const char*> known[] = {
      {cuda::kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
      {cuda::kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
      {cuda::kStubLibrary, "CUDA_ERROR_STUB_LIBRARY"},
      {cuda::kNoDevice, "CUDA_ERROR_NO_DEVICE"},
      {cuda::kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
      {cuda::kEccUncorrectable, "CUDA_ERROR_ECC_UNCORRECTABLE"},
      {cuda::kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
      {cuda::kNotReady, "CUDA_ERROR_NOT_READY"},
      {cuda::kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {cuda::kHostMemoryAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
      {cuda::kHostMemoryNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"},
      {cuda::kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
      {cuda::kNotSupported, "CUDA_ERROR_NOT_SUPPORTED"}};
  for (const auto& [result, name] : known) {
    EXPECT_NE(driver().StatusOf(result, "").message().find(name), absl::string_view::npos) << name;
  }
}

TEST_F(CudaContractTest, BatchesOfManySizesMoveTheBytesThatTheyName) {
  const cuda::DevicePointer device = Allocate(kBytes);
  AlignedBuffer host(kBytes);
  const auto pinned =
      PinnedMemory::Register(*context_, host.span(), PinnedMemory::Access::kReadWrite);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  const std::string bytes = doubles::Seeded(11).Bytes(kBytes);
  bytes.copy(host.bytes(), kBytes);
  std::vector<cuda::CopyRange> copies;
  uint64_t at = 0;
  for (uint64_t size = 1; at + size <= kBytes; size = size * 3 % 70001 + 1) {
    copies.push_back({device + at, host.bytes() + at, size});
    at += size;
  }
  for (const CopyDirection direction : {CopyDirection::kToDevice, CopyDirection::kToHost}) {
    ASSERT_EQ(driver().EnqueueCopies(direction, copies, stream_->get()), cuda::kSuccess);
    ASSERT_EQ(driver()->StreamSynchronize(stream_->get()), cuda::kSuccess);
    if (direction == CopyDirection::kToDevice) {
      EXPECT_TRUE(Read(device, at) == bytes.substr(0, at));
      std::memset(host.bytes(), 0, kBytes);
    }
  }
  EXPECT_TRUE(std::string(host.bytes(), at) == bytes.substr(0, at));
  EXPECT_EQ(driver()->MemFree(device), cuda::kSuccess);
}

// What a worker does before it trusts the call.
TEST_F(CudaContractTest, SeveralCopiesInOneCallAreTriedWhereTheDriverHasIt) {
  const absl::Status tried = TryCopiesInBatches(*context_);
  std::cout << "several copies in one call: " << tried << '\n';
  EXPECT_TRUE(tried.ok() || absl::IsUnimplemented(tried)) << tried;
  EXPECT_EQ(tried.ok(),
            driver().copies_in_batches() && context_->Attribute(cuda::kAttributeHostPointers) == 1);
}

TEST_F(CudaContractTest, AnEventThatWasNeverRecordedHasCompleted) {
  const auto event = OwnedEvent::Create(*context_);
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(driver()->EventQuery(event->get()), cuda::kSuccess);
}

TEST_F(CudaContractTest, AStreamWaitsForTheHostsValueAndAnEventTellsThatItHas) {
  if (driver()->StreamWaitValue64 == nullptr) {
    GTEST_SKIP() << "the driver has no such call";
  }
  const cuda::DevicePointer word = Allocate(4096);
  Write(word, std::string(8, '\0'));
  const auto waiting = OwnedStream::Create(*context_, OwnedStream::Urgency::kLast);
  const auto event = OwnedEvent::Create(*context_);
  ASSERT_EQ(driver()->StreamWaitValue64(waiting->get(), word, 5, cuda::kWaitValueAtLeast),
            cuda::kSuccess);
  ASSERT_EQ(driver()->EventRecord(event->get(), waiting->get()), cuda::kSuccess);
  EXPECT_EQ(driver()->EventQuery(event->get()), cuda::kNotReady);
  Write(word, std::string("\5\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(driver()->EventSynchronize(event->get()), cuda::kSuccess);
  EXPECT_EQ(driver()->MemFree(word), cuda::kSuccess);
}

TEST_F(CudaContractTest, MemoryOfAnotherProcessByHandleAndItsEvent) {
  ExportingProcess engine(ExportingProcess::Driver::kAsLoadedHere);
  const cuda::IpcMemHandle handle = engine.Allocate(kBytes);
  const auto event = OwnedEvent::Open(*context_, engine.event());
  ASSERT_TRUE(event.ok()) << event.status();
  engine.Fill(0, kBytes, 'h');
  ASSERT_EQ(driver()->EventSynchronize(event->get()), cuda::kSuccess);
  const auto memory = ImportedMemory::OpenIpc(*context_, handle, kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(Read(memory->address() + kBytes - 4, 4), "hhhh");
}

TEST_F(CudaContractTest, AHandleOfAnotherSizeIsRefused) {
  ExportingProcess engine(ExportingProcess::Driver::kAsLoadedHere);
  EXPECT_EQ(ImportedMemory::OpenIpc(*context_, engine.Allocate(kBytes), kBytes / 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CudaContractTest, MemoryOfAnotherProcessByDescriptorOutlivesIt) {
  if (context_->Attribute(cuda::kAttributePosixDescriptors) == 0) {
    GTEST_SKIP() << "the device cannot export by descriptor";
  }
  ExportingProcess engine(ExportingProcess::Driver::kAsLoadedHere);
  const Descriptor descriptor = engine.AllocateShared(kBytes);
  engine.Fill(0, kBytes, 'd');
  const auto memory = ImportedMemory::MapShared(*context_, descriptor, kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  engine.Kill();
  EXPECT_EQ(Read(memory->address() + kBytes - 4, 4), "dddd");
  EXPECT_FALSE(ImportedMemory::MapShared(*context_, descriptor, 2 * kBytes).ok());
}

TEST_F(CudaContractTest, ReadOnlySlabsAreLoadedByWhicheverPathTheDeviceHas) {
  auto slab = SealedMemory::Create({.bytes = kBytes, .huge_pages = false});
  ASSERT_TRUE(slab.ok()) << slab.status();
  const std::string bytes = doubles::Seeded(12).Bytes(kBytes);
  bytes.copy(slab->memory().data(), kBytes);
  const auto view = Mapping::Map(slab->descriptor().get(), 0, kBytes, MapAccess::kReadOnly);
  ASSERT_TRUE(view.ok());
  auto engine = CopyEngine::Start(*context_, {});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto path =
      (*engine)->AddHostMemory({view->data(), kBytes}, PinnedMemory::Access::kReadOnly);
  ASSERT_TRUE(path.ok()) << path.status();
  std::cout << (*path == HostPath::kDirect ? "direct" : (*engine)->facts().ring_reason) << '\n';
  const cuda::DevicePointer device = Allocate(kBytes);
  DeviceTransfer load;
  load.plan = {{{device, view->data(), kBytes}}, {1}, kBytes};
  absl::Notification done;
  ASSERT_TRUE((*engine)
                  ->Submit(std::move(load),
                           [&done](const absl::Status& status) {
                             EXPECT_TRUE(status.ok()) << status;
                             done.Notify();
                           })
                  .ok());
  done.WaitForNotification();
  EXPECT_TRUE(Read(device, kBytes) == bytes);
  EXPECT_EQ(driver()->MemFree(device), cuda::kSuccess);
}

// There and back in pieces of a layer's size; the figures are for whoever looks, and judged
// nowhere.
TEST_F(CudaContractTest, TheEngineMovesBlocksThereAndBack) {
  constexpr uint64_t kWhole = uint64_t{64} << 20;
  constexpr uint64_t kPiece = uint64_t{64} << 10;
  const cuda::DevicePointer device = Allocate(kWhole);
  AlignedBuffer host(kWhole);
  auto engine = CopyEngine::Start(*context_, {});
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE((*engine)->AddHostMemory(host.span(), PinnedMemory::Access::kReadWrite).ok());
  const std::string bytes = doubles::Seeded(13).Bytes(kWhole);
  bytes.copy(host.bytes(), kWhole);
  for (const CopyDirection direction : {CopyDirection::kToDevice, CopyDirection::kToHost}) {
    DeviceTransfer transfer;
    transfer.direction = direction;
    for (uint64_t at = 0; at < kWhole; at += kPiece) {
      // Scattered in the device, so that no two are one copy.
      transfer.plan.pieces.push_back({device + (kWhole - kPiece - at), host.bytes() + at, kPiece});
    }
    transfer.plan.layer_ends = {static_cast<uint32_t>(transfer.plan.pieces.size())};
    absl::Notification done;
    const absl::Time begin = absl::Now();
    ASSERT_TRUE((*engine)
                    ->Submit(std::move(transfer),
                             [&done](const absl::Status& status) {
                               EXPECT_TRUE(status.ok()) << status;
                               done.Notify();
                             })
                    .ok());
    done.WaitForNotification();
    std::cout << (direction == CopyDirection::kToDevice ? "load " : "save ")
              << static_cast<double>(kWhole) / absl::ToDoubleSeconds(absl::Now() - begin) / 1e9
              << " GB/s\n";
    if (direction == CopyDirection::kToDevice) {
      std::memset(host.bytes(), 0, kWhole);
    }
  }
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), host.bytes()));
  EXPECT_EQ(driver()->MemFree(device), cuda::kSuccess);
}

// The kernels against plain copies: pieces of every length and alignment that a geometry allows.
TEST_F(CudaContractTest, GatheredPiecesOfEverySizeAndAlignmentArrive) {
  if (KernelImage().empty()) {
    GTEST_SKIP() << "built without nvcc";
  }
  doubles::Seeded random(14);
  const std::string before = random.Bytes(kBytes);
  const std::string written = random.Bytes(kBytes);
  const cuda::DevicePointer device = Allocate(kBytes);
  AlignedBuffer host(kBytes);
  CopyEngineOptions options;
  options.gathered_piece_bytes = uint64_t{64} << 10;
  auto engine = CopyEngine::Start(*context_, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_EQ((*engine)->facts().plain_reason, "");
  ASSERT_TRUE((*engine)->AddHostMemory(host.span(), PinnedMemory::Access::kReadWrite).ok());
  for (const CopyDirection direction : {CopyDirection::kToDevice, CopyDirection::kToHost}) {
    Write(device, before);
    written.copy(host.bytes(), kBytes);
    DeviceTransfer transfer;
    transfer.direction = direction;
    const bool loads = direction == CopyDirection::kToDevice;
    std::string expected = loads ? before : written;
    uint64_t in_host = 0;
    for (uint64_t at = 4 * random.Below(8); at + 70000 < kBytes;) {
      const uint64_t length = 1 + random.Below(random.OneIn(8) ? 66000 : 3000);
      transfer.plan.pieces.push_back({device + at, host.bytes() + in_host, length});
      expected.replace(loads ? at : in_host, length, loads ? written : before, loads ? in_host : at,
                       length);
      in_host += length;
      at += (length + 3) / 4 * 4 + 4 * random.Below(8);
    }
    transfer.plan.layer_ends = {static_cast<uint32_t>(transfer.plan.pieces.size())};
    Run(**engine, std::move(transfer));
    EXPECT_TRUE(loads ? Read(device, kBytes) == expected
                      : std::equal(expected.begin(), expected.end(), host.bytes()));
  }
  EXPECT_GT((*engine)->facts().bytes_gathered, kBytes / 2);
  EXPECT_EQ(driver()->MemFree(device), cuda::kSuccess);
}

TEST_F(CudaContractTest, ItIsMeasuredUpToWhichSizePiecesAreGathered) {
  auto engine = CopyEngine::Start(*context_, {});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const CopyEngineFacts facts = (*engine)->facts();
  std::cout << "gathered up to " << facts.gathered_piece_bytes_to_device << " bytes in loads, "
            << facts.gathered_piece_bytes_to_host << " in saves " << facts.plain_reason << '\n';
  EXPECT_EQ(facts.plain_reason.find("built without nvcc") != std::string::npos,
            KernelImage().empty());
}

}  // namespace
}  // namespace terrace
