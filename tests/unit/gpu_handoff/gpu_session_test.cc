// Gets into and puts from the memory of a GPU, over a session.
#include <signal.h>

#include "tests/doubles/cuda/exporting_process.h"
#include "tests/doubles/cuda/gpu_room.h"
#include "tiers/gpu/kernel_image.h"

namespace terrace::doubles {
namespace {

std::string All(size_t keys, int outcome) {
  return std::string(keys, static_cast<char>(outcome));
}

TEST_F(GpuRoomTest, WhatWasSavedFromAGpuIsKeptAndLoadedBack) {
  Open();
  const cuda::DevicePointer memory = Allocate();
  ASSERT_NO_FATAL_FAILURE(RegisterOne(memory));
  Seeded random(5);
  std::vector<std::string> payloads;
  for (uint32_t block = 0; block < 8; ++block) {
    payloads.push_back(random.Bytes(kBlockBytes));
    WriteBlock(memory, block, payloads.back());
  }
  const auto put = Put(PutOf(Numbers(100, 8), Numbers(0, 8)));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->outcomes(), All(8, v1::PUT_OUTCOME_STORED));
  EXPECT_TRUE(Kept(103) == payloads[3]);
  const auto get = Get(GetOf(Numbers(100, 8), Numbers(40, 8)));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(8, v1::GET_OUTCOME_OK));
  EXPECT_EQ(get->payload_bytes(7), kBlockBytes);
  for (uint32_t block = 0; block < 8; ++block) {
    EXPECT_TRUE(ReadBlock(memory, 40 + block) == payloads[block]) << block;
  }
  EXPECT_EQ(Figures().loaded_bytes, 8 * kBlockBytes);
  EXPECT_EQ(Figures().saved_bytes, 8 * kBlockBytes);
}

// Region 1 over fresh memory, with keys 100.. saved from blocks 0.. of it.
class SavedTest : public GpuRoomTest {
 protected:
  void OpenAndSave(const std::string& script, uint32_t count, FrontRoomOptions options = {}) {
    Open(script, std::move(options));
    memory_ = Allocate();
    ASSERT_NO_FATAL_FAILURE(RegisterOne(memory_));
    Seeded random(7);
    for (uint32_t block = 0; block < count; ++block) {
      payloads_.push_back(random.Bytes(kBlockBytes));
      WriteBlock(memory_, block, payloads_.back());
    }
    const auto put = Put(PutOf(Numbers(100, count), Numbers(0, count)));
    ASSERT_TRUE(put.ok()) << put.status();
    ASSERT_EQ(put->outcomes(), All(count, v1::PUT_OUTCOME_STORED));
  }
  // Region 1 lies in memory of that process.
  void RegisterMemoryOf(stand_in::ExportingProcess& engine) {
    const cuda::IpcMemHandle handle = engine.Allocate(kRegionBytes);
    v1::RegisterRegionRequest region = RegionOf(Allocate());
    region.set_handle(handle.reserved, sizeof(handle.reserved));
    ASSERT_TRUE(Register(*client_, region).ok());
  }
  // Of a get of all of them into blocks 32.. of the region.
  v1::GetRequest GetAll() const {
    return GetOf(Numbers(100, payloads_.size()), Numbers(32, payloads_.size()));
  }
  void ExpectLoaded() {
    for (uint32_t block = 0; block < payloads_.size(); ++block) {
      EXPECT_TRUE(ReadBlock(memory_, 32 + block) == payloads_[block]) << block;
    }
  }
  // The load of key 100 into block 9 is held back.
  void HoldALoad(FrontRoomOptions options = {}) {
    ASSERT_NO_FATAL_FAILURE(OpenAndSave(HoldScript(), 0, std::move(options)));
    ASSERT_TRUE(Put(PutOf({100}, {0})).ok());
    Hold();
    client_->Send(v1::METHOD_GET, GetOf({100}, {9}));
    ASSERT_TRUE(EventuallyCopying());
  }
  // It sends what ends its session.
  void BreakARule() {
    client_->SendBytes(std::string(24, '\xff'));
    ASSERT_TRUE(Eventually(
        [this] { return room_->observer().Connections(Carrier::kSession, "closed") == 1; }));
  }
  // A session that is gone, whose load of key 100 into block 9 is held back; and a new one.
  void LeaveALoadBehind() {
    ASSERT_NO_FATAL_FAILURE(HoldALoad());
    client_ = NewSession();
    ASSERT_EQ(OpenNamespace(*client_), digest_);
  }
  // The worker has begun what it was told and is held back. One that it has only been asked for may
  // still be taken back at once.
  [[nodiscard]] bool EventuallyCopying() const {
    return Eventually([this] {
      const GpuDeviceFigures figures = DeviceFigures();
      return figures.copies_in_flight > 0 && figures.worker.copies > 0;
    });
  }

  cuda::DevicePointer memory_ = 0;
  std::vector<std::string> payloads_;
};

TEST_F(SavedTest, WhatFollowsAMissInAChainIsAMissToo) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 4));
  const std::string before = ReadBlock(memory_, 42);
  const auto get = Get(GetOf({100, 101, 999, 103}, {40, 41, 42, 43}));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(2, v1::GET_OUTCOME_OK) + All(2, v1::GET_OUTCOME_MISS));
  EXPECT_TRUE(ReadBlock(memory_, 41) == payloads_[1]);
  EXPECT_TRUE(ReadBlock(memory_, 42) == before) << "a miss is not written to";
}

TEST_F(SavedTest, KeysOfOnePartMayBeFoundWhereOthersAreNot) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 3));
  v1::GetRequest request = GetOf({100, 999, 102, 101}, {40, 41, 42, kBlocks});
  request.mutable_parts(0)->set_rule(v1::RULE_INDEPENDENT);
  const auto get = Get(request);
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes()[0], v1::GET_OUTCOME_OK);
  EXPECT_EQ(get->outcomes()[1], v1::GET_OUTCOME_MISS);
  EXPECT_EQ(get->outcomes()[2], v1::GET_OUTCOME_OK);
  EXPECT_EQ(get->outcomes()[3], v1::GET_OUTCOME_INVALID) << "block beyond the region";
}

TEST_F(SavedTest, APutSaysOfEachKeyWhatBecameOfIt) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 2));
  v1::PutRequest request = PutOf({100, 200, 201, 202}, {0, kBlocks, 5, 6});
  request.mutable_part()->set_rule(v1::RULE_INDEPENDENT);
  for (const uint64_t bytes : {kBlockBytes, kBlockBytes, kBlockBytes - 100, kBlockBytes + 1}) {
    request.add_payload_bytes(static_cast<uint32_t>(bytes));
  }
  const std::string short_payload = Seeded(9).Bytes(kBlockBytes);
  WriteBlock(memory_, 5, short_payload);
  const auto put = Put(request);
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->outcomes()[0], v1::PUT_OUTCOME_DUPLICATE);
  EXPECT_EQ(put->outcomes()[1], v1::PUT_OUTCOME_FAILED);
  EXPECT_EQ(put->reasons()[1], v1::REASON_INVALID);
  EXPECT_EQ(put->outcomes()[2], v1::PUT_OUTCOME_STORED);
  EXPECT_EQ(put->reasons()[3], v1::REASON_INVALID);
  EXPECT_TRUE(Kept(201) == short_payload.substr(0, kBlockBytes - 100));
}

TEST_F(SavedTest, WhatIsKeptAlreadyIsNotCopiedAgain) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 4));
  const uint64_t saved = Figures().saved_bytes;
  EXPECT_EQ(saved, 4 * kBlockBytes);
  const auto put = Put(PutOf({100, 101, 102, 103, 200}, {0, 1, 2, 3, 8}));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->outcomes(), All(4, v1::PUT_OUTCOME_DUPLICATE) + All(1, v1::PUT_OUTCOME_STORED));
  EXPECT_EQ(Figures().saved_bytes, saved + kBlockBytes);
  EXPECT_TRUE(Kept(200) == ReadBlock(memory_, 8));
}

TEST_F(SavedTest, LayersAreCountedAsTheyLand) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave(HoldScript(), 0));
  const std::string payload = Seeded(3).Bytes(kBlockBytes);
  WriteBlock(memory_, 0, payload);
  ASSERT_TRUE(Put(PutOf({100}, {0})).ok());
  std::atomic<uint32_t>* const counter = Counter(3);
  *counter = 0;
  Hold();
  v1::GetRequest request = GetOf({100}, {9});
  request.mutable_regions(0)->set_progress_slot(4);
  const uint64_t call = client_->Send(v1::METHOD_GET, request);
  ASSERT_TRUE(EventuallyCopying());
  EXPECT_EQ(*counter, 0U);
  LetGo();
  const auto get = client_->Result<v1::GetReply>(client_->ReceiveReply(call));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(*counter, kLayers);
  EXPECT_TRUE(ReadBlock(memory_, 9) == payload);
}

TEST_F(SavedTest, NoByteIsCopiedBeforeTheProducersEvent) {
  Open();
  stand_in::ExportingProcess engine;
  ASSERT_NO_FATAL_FAILURE(RegisterMemoryOf(engine));
  engine.Fill(0, kRegionBytes, 'a');
  const cuda::IpcEventHandle event = engine.event();
  v1::PutRequest first = PutOf({100}, {0});
  first.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
  ASSERT_TRUE(Put(first).ok());
  EXPECT_TRUE(Kept(100) == std::string(kBlockBytes, 'a'));
  engine.HoldBack(true);
  engine.Fill(0, kRegionBytes, 'b');
  v1::PutRequest second = PutOf({101}, {0});
  second.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
  const uint64_t call = client_->Send(v1::METHOD_PUT, second);
  ASSERT_TRUE(EventuallyCopying());
  EXPECT_FALSE(client_->ReceiveReply(call, absl::Milliseconds(50)).has_value());
  engine.HoldBack(false);
  const auto put = client_->Result<v1::PutReply>(client_->ReceiveReply(call));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_TRUE(Kept(101) == std::string(kBlockBytes, 'b'));
}

TEST_F(SavedTest, ACancelAnswersWhenNoCopyCanTouchTheMemory) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave(HoldScript(), 0));
  ASSERT_TRUE(Put(PutOf({100}, {0})).ok());
  Hold();
  const uint64_t get = client_->Send(v1::METHOD_GET, GetOf({100}, {9}));
  ASSERT_TRUE(EventuallyCopying());
  v1::CancelRequest request;
  request.set_call_id(get);
  const uint64_t cancel = client_->Send(v1::METHOD_CANCEL, request);
  EXPECT_FALSE(client_->ReceiveReply(cancel, absl::Milliseconds(100)).has_value())
      << "the copy is with the driver";
  LetGo();
  const auto cancelled = client_->Result<v1::CancelReply>(client_->ReceiveReply(cancel));
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_TRUE(cancelled->found());
  const auto reply = client_->Result<v1::GetReply>(client_->ReceiveReply(get));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(Figures().calls_in_flight, 0U);
}

TEST_F(SavedTest, ADeadlineEndsACopyThatWaitsForItsProducer) {
  Open();
  stand_in::ExportingProcess engine;
  ASSERT_NO_FATAL_FAILURE(RegisterMemoryOf(engine));
  engine.HoldBack(true);
  engine.Fill(0, kRegionBytes, 'b');
  const cuda::IpcEventHandle event = engine.event();
  v1::PutRequest request = PutOf({101}, {0});
  request.mutable_region()->set_after_event(event.reserved, sizeof(event.reserved));
  const uint64_t call = client_->Send(v1::METHOD_PUT, request, {}, 100);
  const auto put = client_->Result<v1::PutReply>(client_->ReceiveReply(call));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->reasons()[0], v1::REASON_DEADLINE);
  engine.HoldBack(false);
}

TEST_F(SavedTest, AClientThatDiesLeavesNothingBehind) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave(HoldScript(), 0));
  ASSERT_TRUE(Put(PutOf(Numbers(100, 4), Numbers(0, 4))).ok());
  Hold();
  client_->Send(v1::METHOD_GET, GetOf(Numbers(100, 4), Numbers(8, 4)));
  client_->Send(v1::METHOD_PUT, PutOf(Numbers(200, 4), Numbers(0, 4)));
  ASSERT_TRUE(EventuallyCopying());
  client_.reset();
  LetGo();
  EXPECT_TRUE(Eventually([this] {
    const GpuFigures figures = Figures();
    return figures.regions == 0 && figures.calls_in_flight == 0 && DeviceFigures().regions == 0 &&
           DeviceFigures().copies_in_flight == 0 && room_->store().Usage().sessions == 0;
  }));
  EXPECT_EQ(DeviceFigures().staging_bytes_used, 0U);
  room_->EvictAll();
  EXPECT_EQ(room_->store().Usage().used_slot_bytes, 0U) << "nothing is pinned any more";
}

// Else the copies of the session before would overtake calls of this one.
TEST_F(SavedTest, ARegionIsOpenedWhenOneInTheSameMemoryHasBeenClosed) {
  ASSERT_NO_FATAL_FAILURE(LeaveALoadBehind());
  ASSERT_TRUE(Eventually([this] { return Figures().regions == 0; }));
  const uint64_t call = client_->Send(v1::METHOD_REGISTER_REGION, RegionOf(memory_));
  const std::string elsewhere = Seeded(8).Bytes(kBlockBytes);
  EXPECT_FALSE(client_->ReceiveReply(call, absl::Milliseconds(100)).has_value());
  LetGo();
  const auto reply = client_->Result<v1::RegisterRegionReply>(client_->ReceiveReply(call));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(DeviceFigures().copies_in_flight, 0U);
  WriteBlock(memory_, 9, elsewhere);
  EXPECT_EQ(Get(GetOf({100}, {10}))->outcomes(), All(1, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(ReadBlock(memory_, 9) == elsewhere);
}

TEST_F(SavedTest, MemoryOfItsOwnWaitsForNobody) {
  ASSERT_NO_FATAL_FAILURE(LeaveALoadBehind());
  EXPECT_TRUE(Register(*client_, RegionOf(Allocate())).ok());
  EXPECT_EQ(DeviceFigures().copies_in_flight, 1U);
  LetGo();
}

// The client gives its memory to somebody else as soon as it sees the end.
TEST_F(SavedTest, TheEndOfASessionIsSeenWhenTheWorkerCopiesNoMore) {
  ASSERT_NO_FATAL_FAILURE(HoldALoad());
  ASSERT_NO_FATAL_FAILURE(BreakARule());
  ASSERT_TRUE(Eventually([this] { return Figures().regions == 0; }));
  EXPECT_FALSE(client_->SeesEnd(absl::ZeroDuration()));
  EXPECT_EQ(DeviceFigures().copies_in_flight, 1U);
  LetGo();
  EXPECT_TRUE(client_->SeesEnd());
  EXPECT_EQ(DeviceFigures().copies_in_flight, 0U);
}

TEST_F(SavedTest, TheEndOfASessionIsSeenWhenItsRegionHasBeenUnregistered) {
  ASSERT_NO_FATAL_FAILURE(HoldALoad());
  v1::UnregisterRegionRequest request;
  request.set_region_id(1);
  client_->Send(v1::METHOD_UNREGISTER_REGION, request);
  ASSERT_NO_FATAL_FAILURE(BreakARule());
  EXPECT_FALSE(client_->SeesEnd(absl::ZeroDuration()));
  LetGo();
  EXPECT_TRUE(client_->SeesEnd());
  EXPECT_EQ(DeviceFigures().copies_in_flight, 0U);
}

TEST_F(SavedTest, TheEndOfASessionIsSeenWhenTheWorkerThatHungIsGone) {
  FrontRoomOptions options;
  options.gpus.emplace();
  options.gpus->staging_bytes = uint64_t{64} << 20;
  options.gpus->cancel_deadline = absl::Milliseconds(100);
  ASSERT_NO_FATAL_FAILURE(HoldALoad(std::move(options)));
  const int worker = DeviceFigures().worker_pid;
  kill(worker, SIGSTOP);
  ASSERT_NO_FATAL_FAILURE(BreakARule());
  EXPECT_TRUE(client_->SeesEnd());
  EXPECT_EQ(DeviceFigures().workers_lost, 1U);
  EXPECT_NE(kill(worker, 0), 0) << "reaped";
}

TEST_F(SavedTest, AStopDoesNotWaitForACopyThatHangs) {
  ASSERT_NO_FATAL_FAILURE(HoldALoad());
  room_->StopFront();
  EXPECT_FALSE(client_->SeesEnd(absl::ZeroDuration()));
  room_.reset();
  EXPECT_TRUE(client_->SeesEnd());
}

TEST_F(SavedTest, AWorkerThatIsKilledIsReplacedAndTheRegionsAreOpenedAgain) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 3));
  const int first = DeviceFigures().worker_pid;
  ASSERT_NE(first, 0);
  kill(first, SIGKILL);
  ASSERT_TRUE(Eventually([this] { return DeviceFigures().workers_lost == 1; }));
  const auto get = Get(GetAll());
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(3, v1::GET_OUTCOME_OK)) << "it waits for the next worker";
  ExpectLoaded();
  EXPECT_NE(DeviceFigures().worker_pid, first);
  const auto put = Put(PutOf({300}, {1}));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_TRUE(Kept(300) == payloads_[1]);
}

TEST_F(SavedTest, WhatAWorkerWasCopyingWhenItDiedHasFailed) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave(HoldScript(), 0));
  ASSERT_TRUE(Put(PutOf({100}, {0})).ok());
  Hold();
  const uint64_t get = client_->Send(v1::METHOD_GET, GetOf({100}, {9}));
  const uint64_t put = client_->Send(v1::METHOD_PUT, PutOf({101}, {1}));
  ASSERT_TRUE(Eventually([this] { return DeviceFigures().copies_in_flight == 2; }));
  ASSERT_TRUE(Eventually([this] { return DeviceFigures().worker.copies == 2; }));
  kill(DeviceFigures().worker_pid, SIGKILL);
  const auto got = client_->Result<v1::GetReply>(client_->ReceiveReply(get));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->outcomes()[0], v1::GET_OUTCOME_REGION_FAILED);
  const auto stored = client_->Result<v1::PutReply>(client_->ReceiveReply(put));
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->outcomes()[0], v1::PUT_OUTCOME_FAILED);
  EXPECT_EQ(stored->reasons()[0], v1::REASON_REGION_FAILED);
  LetGo();
  EXPECT_EQ(Get(GetOf({100}, {9}))->outcomes()[0], v1::GET_OUTCOME_OK);
}

TEST_F(SavedTest, AnErrorThatEndsTheContextCostsTheWorkerItsPlace) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("fail=copy,20,700", 1));
  setenv("STAND_IN_CUDA", "", 1);  // the next worker is well
  std::string outcome(1, static_cast<char>(v1::GET_OUTCOME_OK));
  for (int i = 0; i < 20 && outcome[0] == v1::GET_OUTCOME_OK; ++i) {
    const auto get = Get(GetAll());
    ASSERT_TRUE(get.ok()) << get.status();
    outcome = get->outcomes();
  }
  EXPECT_EQ(outcome[0], v1::GET_OUTCOME_REGION_FAILED);
  EXPECT_EQ(DeviceFigures().workers_lost, 1U);
  EXPECT_THAT(DeviceFigures().last_fault, ::testing::HasSubstr("CUDA_ERROR_ILLEGAL_ADDRESS"));
  EXPECT_EQ(Get(GetAll())->outcomes(), All(1, v1::GET_OUTCOME_OK));
  ExpectLoaded();
}

TEST_F(SavedTest, MemoryThatCannotBeRegisteredReadOnlyGoesThroughTheRing) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("ring", 5));
  const auto get = Get(GetAll());
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(5, v1::GET_OUTCOME_OK));
  ExpectLoaded();
  EXPECT_TRUE(Eventually([this] { return DeviceFigures().worker.ring_memory_bytes > 0; }));
  EXPECT_FALSE(DeviceFigures().read_only_memory);
  EXPECT_NE(DeviceFigures().worker.ring_reason, "");
}

TEST_F(SavedTest, BlocksInSmallPiecesAreGatheredWhereTheWorkerHasKernels) {
  setenv("TERRACE_GATHER_PIECE_BYTES", "65536", 1);
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("kernels", 5));
  const auto get = Get(GetAll());
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(5, v1::GET_OUTCOME_OK));
  ExpectLoaded();
  const GpuDeviceFigures figures = DeviceFigures();
  if (KernelImage().empty()) {
    EXPECT_THAT(figures.plain_reason, ::testing::HasSubstr("built without nvcc"));
    EXPECT_EQ(figures.load_piece_bytes, 0U);
    return;
  }
  EXPECT_EQ(figures.plain_reason, "");
  EXPECT_EQ(figures.load_piece_bytes, 65536U);
  EXPECT_EQ(figures.save_piece_bytes, 65536U);
  EXPECT_TRUE(
      Eventually([this] { return DeviceFigures().worker.bytes_gathered >= 2 * 5 * kBlockBytes; }));
}

TEST_F(SavedTest, WhyPiecesAreNotGatheredIsKnown) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 1));
  EXPECT_NE(DeviceFigures().plain_reason, "");
  EXPECT_EQ(DeviceFigures().save_piece_bytes, 0U);
}

TEST_F(SavedTest, AnUnregisteredRegionIsNotTouchedAndItsIdIsFree) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 1));
  v1::UnregisterRegionRequest request;
  request.set_region_id(1);
  for (int times = 0; times < 2; ++times) {
    EXPECT_TRUE(
        client_->Call<v1::UnregisterRegionReply>(v1::METHOD_UNREGISTER_REGION, request).ok());
  }
  EXPECT_EQ(Get(GetAll()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Put(PutOf({300}, {1})).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DeviceFigures().regions, 0U);
  ASSERT_NO_FATAL_FAILURE(RegisterOne(memory_));
  EXPECT_EQ(Get(GetAll())->outcomes(), All(1, v1::GET_OUTCOME_OK));
}

TEST_F(SavedTest, AWorkerThatHangsIsKilledAndReplaced) {
  FrontRoomOptions options;
  options.gpus.emplace();
  options.gpus->staging_bytes = uint64_t{64} << 20;
  options.gpus->cancel_deadline = absl::Milliseconds(100);
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 2, std::move(options)));
  kill(DeviceFigures().worker_pid, SIGSTOP);
  const uint64_t call = client_->Send(v1::METHOD_GET, GetAll(), {}, 200);
  const auto get = client_->Result<v1::GetReply>(client_->ReceiveReply(call));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(2, v1::GET_OUTCOME_REGION_FAILED));
  EXPECT_EQ(DeviceFigures().workers_lost, 1U);
  EXPECT_THAT(DeviceFigures().last_fault, ::testing::HasSubstr("did not answer in time"));
  EXPECT_EQ(Get(GetAll())->outcomes(), All(2, v1::GET_OUTCOME_OK));
  ExpectLoaded();
}

TEST_F(SavedTest, ASlabThatItsTenantGivesUpIsDroppedByTheWorker) {
  ASSERT_NO_FATAL_FAILURE(OpenAndSave("", 1));
  ASSERT_EQ(Get(GetAll())->outcomes(), All(1, v1::GET_OUTCOME_OK)) << "the worker has it mapped";
  // Both slabs of the DRAM become this tenant's, and then another one wants a block.
  for (uint64_t first = 1000; first < 5000; first += kBlocks) {
    ASSERT_TRUE(Put(PutOf(Numbers(first, kBlocks), Numbers(0, kBlocks))).ok());
  }
  BlockStore& store = room_->store();
  const TenantId other = *store.OpenTenant("other");
  NamespaceRecord record;
  record.model = "other";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "test/1";
  record.hash_algorithm = "test";
  record.block_tokens = 16;
  record.block_bytes = 1024;
  const Digest128 digest = store.OpenNamespace(other, record)->digest;
  const auto stored = [&] {
    PutCall call;
    call.part.namespace_digest = digest;
    call.part.keys = TestKey(1);
    call.payload = std::string(1024, 'p');
    call.payload_bytes = {1024};
    call.deadline = BootClock().Now() + absl::Seconds(20);
    absl::Notification done;
    char outcome = 0;
    store.Put({other, kNoSession}, std::move(call), [&](absl::StatusOr<PutResult> result) {
      outcome = result.ok() ? result->outcomes[0] : 0;
      done.Notify();
    });
    done.WaitForNotification();
    return outcome == static_cast<char>(PutOutcome::kStored);
  };
  EXPECT_TRUE(Eventually(stored)) << "its memory comes when the worker has unmapped the slab";
  EXPECT_GE(store.Usage().counters.slabs_retired, 1U);
  const auto put = Put(PutOf({100}, {0}));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(Get(GetOf({100}, {32}))->outcomes(), All(1, v1::GET_OUTCOME_OK));
}

// ---- large blocks: several groups, and less DRAM than they need at a time

class LargeBlocksTest : public GpuRoomTest {
 protected:
  static constexpr uint64_t kLarge = uint64_t{6} << 20;
  static constexpr uint32_t kCount = 12;

  void SetUp() override {
    // A quarter of the DRAM may be pinned at a time: five blocks.
    ASSERT_NO_FATAL_FAILURE(Open());
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kLarge);
    open.mutable_record()->set_model("large");
    digest_ =
        client_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open)->namespace_digest();
    memory_ = Allocate(kCount * kLarge);
    v1::RegisterRegionRequest region = RegionOf(memory_);
    region.set_allocation_bytes(kCount * kLarge);
    region.set_bytes(kCount * kLarge);
    region.set_planes_per_layer(1);
    region.mutable_geometry()->clear_planes();
    region.mutable_geometry()->set_block_count(kCount);
    v1::Plane* plane = region.mutable_geometry()->add_planes();
    plane->set_block_stride(kLarge);
    plane->add_segments()->set_bytes(kLarge);
    const auto registered = Register(*client_, region);
    ASSERT_TRUE(registered.ok()) << registered.status();
    all_ = Seeded(21).Bytes(kCount * kLarge);
    Write(memory_, all_);
  }

  cuda::DevicePointer memory_ = 0;
  std::string all_;
};

TEST_F(LargeBlocksTest, ManyGroupsGoUpOneAfterTheOtherWhereNotAllFitAtOnce) {
  const auto put = Put(PutOf(Numbers(0, kCount), Numbers(0, kCount)));
  ASSERT_TRUE(put.ok()) << put.status();
  ASSERT_EQ(put->outcomes(), All(kCount, v1::PUT_OUTCOME_STORED));
  Write(memory_, std::string(kCount * kLarge, '\0'));
  const auto get = Get(GetOf(Numbers(0, kCount), Numbers(0, kCount)));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->outcomes(), All(kCount, v1::GET_OUTCOME_OK));
  EXPECT_TRUE(Read(memory_, kCount * kLarge) == all_);
}

TEST_F(LargeBlocksTest, PiecesOfAPutAreOneChain) {
  ASSERT_TRUE(Put(PutOf(Numbers(0, kCount), Numbers(0, kCount))).ok());
  v1::ProbeRequest probe;
  *probe.add_parts() = PartOf(Numbers(0, kCount));
  const auto reply = client_->Call<v1::ProbeReply>(v1::METHOD_PROBE, probe);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->part_hits(0), kCount);
}

}  // namespace
}  // namespace terrace::doubles
