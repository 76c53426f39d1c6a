#include "tiers/gpu/copy_engine.h"

#include <sys/mman.h>

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>

#include "tests/doubles/in_child.h"
#include "tests/doubles/seeded.h"
#include "tests/unit/gpu/engine_room.h"
#include "tiers/gpu/host_copier.h"

namespace terrace {
namespace {

using cuda::CopyDirection;
using cuda::OwnedEvent;
using cuda::OwnedStream;
using cuda::PinnedMemory;
using testing::HasSubstr;

constexpr uint64_t kKiB = 1024;

std::string Said(const absl::Status& status) {
  return std::string(status.message());
}

// All ways of reaching host memory, and of copying small pieces, have to do the same.
struct Way {
  HostPath path = HostPath::kDirect;
  bool gathers = false;
};

class EnginePathTest : public EngineTest, public testing::WithParamInterface<Way> {
 protected:
  EnginePathTest() {
    if (GetParam().gathers) {
      piece_bytes_ = kSmallPiece;
    }
  }
  void StartThisWay() {
    StartWith(GetParam().path, GetParam().gathers ? GatheringOptions() : SmallOptions());
  }
};

INSTANTIATE_TEST_SUITE_P(Paths,
                         EnginePathTest,
                         testing::Values(Way{HostPath::kDirect, false},
                                         Way{HostPath::kRing, false},
                                         Way{HostPath::kDirect, true},
                                         Way{HostPath::kRing, true}),
                         [](const auto& way) {
                           return std::string(way.param.path == HostPath::kDirect ? "Direct"
                                                                                  : "Ring") +
                                  (way.param.gathers ? "Gathered" : "");
                         });

TEST_P(EnginePathTest, BytesComeBackAsTheyWent) {
  StartThisWay();
  const std::string bytes = doubles::Seeded(3).Bytes(kDeviceBytes);
  bytes.copy(host_.bytes(), bytes.size());
  Submit(Load(0, kDeviceBytes), 0);
  ASSERT_TRUE(endings_.Await(0).ok());
  EXPECT_TRUE(Read(device_, kDeviceBytes) == bytes);
  FillHost('.');
  Submit(Save(0, kDeviceBytes), 1);
  ASSERT_TRUE(endings_.Await(1).ok());
  EXPECT_TRUE(std::string(host_.bytes(), kDeviceBytes) == bytes);

  const CopyEngineFacts facts = engine_->facts();
  EXPECT_EQ(facts.bytes_to_device, kDeviceBytes);
  EXPECT_EQ(facts.bytes_to_host, kDeviceBytes);
  const bool ring = GetParam().path == HostPath::kRing;
  EXPECT_EQ(facts.bytes_through_ring, ring ? 2 * kDeviceBytes : 0);
  EXPECT_EQ(facts.ring_memory_bytes, ring ? kDeviceBytes : 0);
  EXPECT_EQ(facts.direct_memory_bytes, ring ? 0 : kDeviceBytes);
  EXPECT_EQ(facts.ring_reason.empty(), !ring);
  EXPECT_EQ(facts.bytes_gathered, GetParam().gathers ? 2 * kDeviceBytes : 0);
  EXPECT_EQ(Counters().kernels > 0, GetParam().gathers);
  EXPECT_EQ(Counters().pageable_copies, 1U) << "only the test's own";
}

TEST_P(EnginePathTest, BytesInFlightAreBounded) {
  StartThisWay();
  for (size_t i = 0; i < 8; ++i) {
    Submit(Load(i * 200 * kKiB, 100 * kKiB), 2 * i);
    Submit(Save(i * 200 * kKiB + 100 * kKiB, 100 * kKiB), 2 * i + 1);
  }
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_TRUE(endings_.Await(i).ok());
  }
  EXPECT_LE(Counters().most_queued_bytes_to_device, SmallOptions().max_bytes_in_flight);
  EXPECT_LE(Counters().most_queued_bytes_to_host, SmallOptions().max_bytes_in_flight);
}

TEST_P(EnginePathTest, CancelDuringACopyAnswersWhenNoneCanTouchTheMemory) {
  StartThisWay();
  FillHost('a');
  stand_in_hold_back(1);
  const uint64_t token = Submit(Save(0, kDeviceBytes), 0);
  ASSERT_TRUE(doubles::Eventually([] { return Counters().queued_bytes_to_host > 0; }));
  engine_->Cancel(token);
  engine_->Cancel(token);
  Submit(Load(0, kKiB), 1);
  ASSERT_TRUE(doubles::Eventually([] { return Counters().queued_bytes_to_device > 0; }))
      << "the engine has heard of both";
  ASSERT_FALSE(endings_.Has(0)) << "copies of it are with the driver";
  stand_in_hold_back(0);
  EXPECT_EQ(endings_.Await(0).code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(endings_.Await(1).ok());
  FillHost('b');
  EXPECT_EQ(Counters().queued_bytes_to_host, 0U);
  EXPECT_EQ(std::string(host_.bytes(), kDeviceBytes), std::string(kDeviceBytes, 'b'));
  engine_->Cancel(token);
  ExpectIdle();
}

TEST_P(EnginePathTest, LayersAreCountedInOrderAsTheyLand) {
  StartThisWay();
  std::atomic<uint32_t> layers{0};
  DeviceTransfer transfer;
  transfer.layers_landed = &layers;
  for (uint64_t i = 0; i < 6; ++i) {
    transfer.plan.pieces.push_back(
        {device_ + i * 16 * kKiB, host_.bytes() + i * 16 * kKiB, 16 * kKiB});
  }
  transfer.plan.layer_ends = {0, 2, 4, 6};
  stand_in_hold_back(1);
  Submit(std::move(transfer), 0);
  EXPECT_EQ(layers, 0U);
  stand_in_let(3);
  EXPECT_TRUE(doubles::Eventually([&] { return layers == 2; }));
  EXPECT_FALSE(endings_.Has(0));
  stand_in_let(1);
  EXPECT_TRUE(doubles::Eventually([&] { return layers == 3; }));
  stand_in_hold_back(0);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_EQ(layers, 4U);
}

TEST_P(EnginePathTest, AnErrorThatEndsTheContextEndsEveryTransferAndTheEngine) {
  StartThisWay();
  stand_in_fail("copy", 3, cuda::kEccUncorrectable);
  stand_in_hold_back(1);
  for (size_t i = 0; i < 4; ++i) {
    Submit(Load(i * 64 * kKiB, 64 * kKiB), i);
    Submit(Save(kKiB * kKiB + i * 64 * kKiB, 64 * kKiB), 4 + i);
  }
  stand_in_hold_back(0);
  for (size_t i = 0; i < 8; ++i) {
    const absl::Status status = endings_.Await(i);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      EXPECT_THAT(Said(status), HasSubstr("CUDA_ERROR_ECC_UNCORRECTABLE"));
    }
  }
  EXPECT_EQ(engine_->Submit(Load(0, kKiB), endings_.Into(9)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_THAT(Said(engine_->facts().failure), HasSubstr("CUDA_ERROR_ECC_UNCORRECTABLE"));
  std::string more(4096, ' ');
  EXPECT_EQ(engine_->AddHostMemory({more.data(), more.size()}, PinnedMemory::Access::kReadWrite)
                .status()
                .code(),
            absl::StatusCode::kUnavailable);
  stand_in_reset();  // so that what is held can be given back
}

TEST_P(EnginePathTest, TheEndOfTheEngineEndsWhatIsInFlight) {
  StartThisWay();
  stand_in_set_delay_us(200);
  for (size_t i = 0; i < 6; ++i) {
    Submit(i % 2 == 0 ? Load(0, kDeviceBytes) : Save(0, kDeviceBytes), i);
  }
  engine_.reset();
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(endings_.Await(i).code(), absl::StatusCode::kCancelled);
  }
}

class CopyEngineTest : public EngineTest {};

TEST_F(CopyEngineTest, OptionsOutOfRangeAreRefusedByName) {
  const auto said = [this](const CopyEngineOptions& options) {
    return Said(CopyEngine::Start(context(), options).status());
  };
  CopyEngineOptions options = SmallOptions();
  options.name = "";
  EXPECT_THAT(said(options), HasSubstr("name"));
  options = SmallOptions();
  options.max_bytes_in_flight = 1;
  EXPECT_THAT(said(options), HasSubstr("max_bytes_in_flight"));
  options = SmallOptions();
  options.ring_half_bytes = options.max_bytes_in_flight + 1;
  EXPECT_THAT(said(options), HasSubstr("ring_half_bytes"));
  options = SmallOptions();
  options.max_transfers = 0;
  EXPECT_THAT(said(options), HasSubstr("max_transfers"));
  options = SmallOptions();
  options.stage_bytes = 1;
  EXPECT_THAT(said(options), HasSubstr("stage_bytes"));
}

TEST_F(CopyEngineTest, AnEngineThatCannotHaveWhatItNeedsDoesNotStart) {
  for (const char* function : {"cuStreamCreateWithPriority", "cuEventCreate"}) {
    stand_in_fail(function, 2, cuda::kOutOfMemory);
    EXPECT_EQ(CopyEngine::Start(context(), SmallOptions()).status().code(),
              absl::StatusCode::kResourceExhausted)
        << function;
  }
}

TEST(HostCopierTest, WithoutAThreadThereIsNone) {
  EXPECT_EQ(InChildWithoutThreads([] {
              return HostCopier::Start("copier").status().code() ==
                             absl::StatusCode::kResourceExhausted
                         ? 0
                         : 1;
            }),
            0);
}

TEST(HostCopierTest, CopiesInOrderAndFinishesBeforeItEnds) {
  std::string from = "abc";
  std::string to(3, ' ');
  std::string order;
  auto copier = HostCopier::Start("copier");
  ASSERT_TRUE(copier.ok());
  for (size_t i = 0; i < 3; ++i) {
    (*copier)->Copy({{to.data() + i, from.data() + i, 1}}, [&order, i] { order += "012"[i]; });
  }
  copier->reset();
  EXPECT_EQ(to, "abc");
  EXPECT_EQ(order, "012");
}

TEST_F(CopyEngineTest, ItsThreadsHaveNames) {
  StartWith(HostPath::kRing);
  const auto named = [](const std::string& wanted) {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name;
      std::getline(std::ifstream(task.path() / "comm"), name);
      if (name == wanted) {
        return true;
      }
    }
    return false;
  };
  EXPECT_TRUE(named("gpu-0"));
  EXPECT_TRUE(named("gpu-0-ring"));
}

TEST_F(CopyEngineTest, ReadOnlySlabsGoThroughTheRingWhereTheDeviceCannotRegisterThem) {
  auto slab = SealedMemory::Create({.bytes = kDeviceBytes, .huge_pages = false});
  ASSERT_TRUE(slab.ok());
  std::fill_n(slab->memory().data(), kDeviceBytes, 's');
  const auto view = Mapping::Map(slab->descriptor().get(), 0, kDeviceBytes, MapAccess::kReadOnly);
  const absl::Span<char> seen(view->data(), kDeviceBytes);
  for (const int supported : {1, 0}) {
    stand_in_set_read_only_registration(supported);
    Start();
    const auto path = engine_->AddHostMemory(seen, PinnedMemory::Access::kReadOnly);
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(*path, supported != 0 ? HostPath::kDirect : HostPath::kRing);
    if (supported == 0) {
      EXPECT_THAT(engine_->facts().ring_reason, HasSubstr("read-only"));
    }
    Write(device_, std::string(4096, '-'));
    DeviceTransfer load = Load(0, 100 * kKiB);
    load.plan.pieces[0].host = seen.data();
    Submit(std::move(load), static_cast<size_t>(supported));
    EXPECT_TRUE(endings_.Await(static_cast<size_t>(supported)).ok());
    EXPECT_EQ(Read(device_, 100 * kKiB), std::string(100 * kKiB, 's'));
    DeviceTransfer save = Save(0, kKiB);
    save.plan.pieces[0].host = seen.data();
    EXPECT_THAT(Said(engine_->Submit(std::move(save), endings_.Into(9)).status()),
                HasSubstr("read-only"));
    ExpectIdle();
    EXPECT_TRUE(engine_->RemoveHostMemory(seen).ok());
    engine_.reset();
  }
}

TEST_F(CopyEngineTest, TheRingMayBeAskedForOfDevicesThatDoNotNeedIt) {
  auto slab = SealedMemory::Create({.bytes = 65536, .huge_pages = false});
  ASSERT_TRUE(slab.ok());
  const auto view = Mapping::Map(slab->descriptor().get(), 0, 65536, MapAccess::kReadOnly);
  EXPECT_EQ(CopyEngineOptions().read_only_memory, HostPath::kDirect);
  setenv("TERRACE_GPU_SLABS", "ring", 1);
  EXPECT_EQ(CopyEngineOptions().read_only_memory, HostPath::kRing);
  unsetenv("TERRACE_GPU_SLABS");
  CopyEngineOptions options = SmallOptions();
  options.read_only_memory = HostPath::kRing;
  Start(options);
  const auto path = engine_->AddHostMemory({view->data(), 65536}, PinnedMemory::Access::kReadOnly);
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, HostPath::kRing);
  const auto added = engine_->AddHostMemory(host_.span(), PinnedMemory::Access::kReadWrite);
  ASSERT_TRUE(added.ok());
  EXPECT_EQ(*added, HostPath::kDirect) << "what is written to is pinned as ever";
}

TEST_F(CopyEngineTest, HostMemoryIsAddedOnceAndRemovedWhenNobodyNamesIt) {
  StartWith(HostPath::kDirect);
  EXPECT_THAT(Said(engine_->AddHostMemory({}, PinnedMemory::Access::kReadWrite).status()),
              HasSubstr("empty"));
  EXPECT_THAT(
      Said(
          engine_->AddHostMemory(host_.span().subspan(4096, 4096), PinnedMemory::Access::kReadWrite)
              .status()),
      HasSubstr("overlaps"));
  stand_in_hold_back(1);
  Submit(Load(0, kKiB), 0);
  EXPECT_EQ(engine_->RemoveHostMemory(host_.span()).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(engine_->RemoveHostMemory(host_.span().subspan(0, 1)).code(),
            absl::StatusCode::kNotFound);
  stand_in_hold_back(0);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_TRUE(engine_->RemoveHostMemory(host_.span()).ok());
  EXPECT_EQ(engine_->RemoveHostMemory(host_.span()).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Counters().registered_bytes, 0U);
}

TEST_F(CopyEngineTest, MemoryThatCannotBeWrittenIsNotTakenForWritable) {
  auto slab = SealedMemory::Create({.bytes = 65536, .huge_pages = false});
  const auto view = Mapping::Map(slab->descriptor().get(), 0, 65536, MapAccess::kReadOnly);
  Start();
  EXPECT_EQ(engine_->AddHostMemory({view->data(), 65536}, PinnedMemory::Access::kReadWrite)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->facts().ring_memory_bytes, 0U);
}

TEST_F(CopyEngineTest, ARingThatCannotBePinnedIsRefused) {
  Start();
  stand_in_fail("cuMemHostRegister_v2", 1, cuda::kOutOfMemory);
  stand_in_fail("cuMemHostRegister_v2", 2, cuda::kOutOfMemory);
  EXPECT_EQ(engine_->AddHostMemory(host_.span(), PinnedMemory::Access::kReadWrite).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->RemoveHostMemory(host_.span()).code(), absl::StatusCode::kNotFound);
}

TEST_F(CopyEngineTest, BadTransfersAreRefusedByName) {
  StartWith(HostPath::kDirect);
  const auto said = [this](DeviceTransfer transfer) {
    return Said(engine_->Submit(std::move(transfer), endings_.Into(0)).status());
  };
  EXPECT_THAT(said(DeviceTransfer{}), HasSubstr("pieces"));
  DeviceTransfer transfer = Load(0, kKiB);
  transfer.plan.layer_ends = {};
  EXPECT_THAT(said(transfer), HasSubstr("layer_ends"));
  transfer.plan.layer_ends = {1, 0};
  EXPECT_THAT(said(transfer), HasSubstr("layer_ends"));
  transfer.plan.layer_ends = {2};
  EXPECT_THAT(said(transfer), HasSubstr("layer_ends"));
  EXPECT_THAT(said(Load(0, 0)), HasSubstr("pieces"));
  EXPECT_THAT(said(Load(kDeviceBytes - 1, 2)), HasSubstr("pieces"));
  transfer = Load(0, kKiB);
  transfer.plan.pieces[0].host -= 1;
  EXPECT_THAT(said(transfer), HasSubstr("pieces"));
}

TEST_F(CopyEngineTest, TransfersBeyondTheMaximumAreResourceExhausted) {
  CopyEngineOptions options = SmallOptions();
  options.max_transfers = 2;
  StartWith(HostPath::kDirect, options);
  stand_in_hold_back(1);
  Submit(Load(0, kKiB), 0);
  Submit(Load(0, kKiB), 1);
  EXPECT_EQ(engine_->Submit(Load(0, kKiB), endings_.Into(2)).status().code(),
            absl::StatusCode::kResourceExhausted);
  stand_in_hold_back(0);
  EXPECT_TRUE(endings_.Await(1).ok());
  Submit(Load(0, kKiB), 2);
  EXPECT_TRUE(endings_.Await(2).ok());
}

TEST_F(CopyEngineTest, ASaveBeginsBehindTheProducersEvent) {
  StartWith(HostPath::kDirect);
  stand_in::ExportingProcess producer;
  const auto memory =
      cuda::ImportedMemory::OpenIpc(context(), producer.Allocate(kDeviceBytes), kDeviceBytes);
  const auto event = OwnedEvent::Open(context(), producer.event());
  ASSERT_TRUE(memory.ok() && event.ok());
  producer.HoldBack(true);
  producer.Fill(0, kDeviceBytes, 'p');

  DeviceTransfer behind = Save(0, 128 * kKiB);
  behind.plan.pieces[0].device = memory->address();
  behind.behind = event->get();
  Submit(behind, 0);
  Submit(Load(0, kKiB), 1);
  Submit(Save(kKiB * kKiB, kKiB), 2);
  EXPECT_TRUE(endings_.Await(1).ok());
  EXPECT_TRUE(endings_.Await(2).ok()) << "others pass";
  EXPECT_FALSE(endings_.Has(0));
  producer.HoldBack(false);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_EQ(Counters().reads_under_pending_write, 0U);
  EXPECT_EQ(std::string(host_.bytes(), 128 * kKiB), std::string(128 * kKiB, 'p'));
}

TEST_F(CopyEngineTest, ASaveWithoutTheProducersEventIsCaughtByTheStandIn) {
  StartWith(HostPath::kDirect);
  stand_in::ExportingProcess producer;
  const auto memory =
      cuda::ImportedMemory::OpenIpc(context(), producer.Allocate(kDeviceBytes), kDeviceBytes);
  producer.HoldBack(true);
  producer.Fill(0, kDeviceBytes, 'p');
  DeviceTransfer early = Save(0, 4 * kKiB);
  early.plan.pieces[0].device = memory->address();
  Submit(early, 0);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_GT(Counters().reads_under_pending_write, 0U);
  EXPECT_NE(host_.bytes()[0], 'p');
}

TEST_F(CopyEngineTest, ATransferWhoseProducerNeverGetsThereIsCancelledAtOnce) {
  StartWith(HostPath::kDirect);
  stand_in::ExportingProcess producer;
  const cuda::IpcMemHandle handle = producer.Allocate(kDeviceBytes);
  const auto event = OwnedEvent::Open(context(), producer.event());
  producer.HoldBack(true);
  producer.Fill(0, kKiB, 'p');
  auto memory = cuda::ImportedMemory::OpenIpc(context(), handle, kDeviceBytes);
  DeviceTransfer save = Save(0, kKiB);
  save.plan.pieces[0].device = memory->address();
  save.behind = event->get();
  const uint64_t token = Submit(save, 0);
  producer.Kill();
  engine_->Cancel(token);
  EXPECT_EQ(endings_.Await(0).code(), absl::StatusCode::kCancelled);
  // Fence, drain, unmap: now the mapping may go, and the engine goes on.
  { const auto unmapped = std::move(memory); }
  Submit(Load(0, kKiB), 1);
  EXPECT_TRUE(endings_.Await(1).ok());
  EXPECT_EQ(Counters().faults, 0U);
  EXPECT_EQ(Counters().late_copies, 0U);
}

TEST_F(CopyEngineTest, AnEventThatIsNoneAnyMoreEndsItsTransferAndNoOther) {
  StartWith(HostPath::kDirect);
  const auto event = OwnedEvent::Create(context());
  FillHost('x');
  DeviceTransfer load = Load(0, kKiB);
  load.behind = event->get();
  const uint64_t copies = Counters().copies;
  stand_in_fail("cuEventQuery", 1, cuda::kInvalidHandle);
  Submit(load, 0);
  const absl::Status refused = endings_.Await(0);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Said(refused), HasSubstr("the producer's event"));
  EXPECT_EQ(Counters().copies, copies) << "none of it was copied";
  Submit(load, 2);
  EXPECT_TRUE(endings_.Await(2).ok()) << "the engine goes on";
  EXPECT_TRUE(engine_->facts().failure.ok());
}

TEST_F(CopyEngineTest, AnEventWhoseContextIsLostFailsTheEngine) {
  StartWith(HostPath::kDirect);
  const auto event = OwnedEvent::Create(context());
  DeviceTransfer load = Load(0, kKiB);
  load.behind = event->get();
  stand_in_fail("cuEventQuery", 1, cuda::kLaunchFailed);
  Submit(load, 0);
  EXPECT_EQ(endings_.Await(0).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(engine_->facts().failure.ok());
  stand_in_reset();
}

TEST_F(CopyEngineTest, ACopyFromADeadExportersMemoryFailsTheEngineAndNothingElse) {
  StartWith(HostPath::kDirect);
  {
    stand_in::ExportingProcess producer;
    const auto memory =
        cuda::ImportedMemory::OpenIpc(context(), producer.Allocate(kDeviceBytes), kDeviceBytes);
    producer.Kill();
    DeviceTransfer save = Save(0, kKiB);
    save.plan.pieces[0].device = memory->address();
    Submit(save, 0);
    EXPECT_THAT(Said(endings_.Await(0)), HasSubstr("CUDA_ERROR_ILLEGAL_ADDRESS"));
    stand_in_reset();  // so that what is held can be given back
  }
}

TEST_F(CopyEngineTest, AnErrorThatDoesNotEndTheContextAlsoFailsTheEngineWhenCopiesAreDone) {
  StartWith(HostPath::kDirect);
  stand_in_fail("cuEventRecord", 4, cuda::kOutOfMemory);
  Submit(Load(0, kDeviceBytes), 0);
  const absl::Status status = endings_.Await(0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Counters().queued_bytes_to_device, 0U);
  EXPECT_EQ(engine_->Submit(Load(0, kKiB), endings_.Into(1)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(CopyEngineTest, LoadsOvertakeSaves) {
  StartWith(HostPath::kDirect);
  stand_in_hold_back(1);
  for (size_t i = 0; i < 16; ++i) {
    Submit(Save(i * 64 * kKiB, 64 * kKiB), 1 + i);
  }
  ASSERT_TRUE(doubles::Eventually([] { return Counters().queued_bytes_to_host > 0; }));
  Submit(Load(kDeviceBytes - kKiB, kKiB), 0);
  stand_in_set_delay_us(1000);
  stand_in_hold_back(0);
  for (size_t i = 0; i <= 16; ++i) {
    EXPECT_TRUE(endings_.Await(i).ok());
  }
  const std::vector<size_t> order = endings_.order();
  EXPECT_LE(std::find(order.begin(), order.end(), 0U) - order.begin(), 4)
      << "what was with the driver, and not what waited";
}

TEST_F(CopyEngineTest, TheEventBehindATransferIsRecordedWhenItIsDone) {
  StartWith(HostPath::kRing);
  const auto event = OwnedEvent::CreateShared(context());
  const auto gate = OwnedEvent::Create(context());
  DeviceTransfer load = Load(0, 128 * kKiB);
  FillHost('e');
  load.after = event->get();
  Submit(load, 0);
  ASSERT_TRUE(endings_.Await(0).ok());
  const auto stream = OwnedStream::Create(context(), OwnedStream::Urgency::kLast);
  ASSERT_EQ(driver()->StreamWaitEvent(stream->get(), event->get(), 0), cuda::kSuccess);
  std::string seen(4, ' ');
  ASSERT_EQ(driver()->MemcpyDtoHAsync(seen.data(), device_ + 100 * kKiB, 4, stream->get()),
            cuda::kSuccess);
  ASSERT_EQ(driver()->StreamSynchronize(stream->get()), cuda::kSuccess);
  EXPECT_EQ(seen, "eeee");
}

TEST_F(CopyEngineTest, SmallPiecesGoToTheDriverInBatches) {
  StartWith(HostPath::kDirect);
  DeviceTransfer load;
  for (uint64_t i = 0; i < 256; ++i) {
    load.plan.pieces.push_back({device_ + i * kKiB, host_.bytes() + (255 - i) * kKiB, 64});
  }
  load.plan.layer_ends = {256};
  Submit(std::move(load), 0);
  EXPECT_TRUE(endings_.Await(0).ok());
  EXPECT_EQ(Counters().copies, 256U);
  EXPECT_EQ(Counters().batches, 1U);
}

}  // namespace
}  // namespace terrace
