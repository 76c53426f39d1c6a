// Regions: blocks named in a client's memory, and clients that misbehave with it.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

TEST_F(StoreTest, BlocksMoveBetweenARegionAndTheArena) {
  const TestRegion memory(8 * 65536);
  Register(memory, 1, Flat(8, 65536));
  const std::string one = PayloadOf(1, 65536);
  const std::string two = PayloadOf(2, 65536);
  std::memcpy(memory.data() + 3 * 65536, one.data(), one.size());
  std::memcpy(memory.data() + 5 * 65536, two.data(), two.size());
  PutCall put;
  put.part = Part({1, 2});
  put.payload_bytes = {65536, 65536};
  put.region = {1, {3, 5}};
  put.deadline = clock_.Now() + absl::Seconds(5);
  EXPECT_EQ(OutcomeAt(Put(std::move(put)), 1), PutOutcome::kStored);
  GetCall get = GetOf({1, 2}, Delivery::kRegion);
  get.regions = {{1, {0, 7}}};
  EXPECT_EQ(OutcomeAt(Get(std::move(get)), 1), GetOutcome::kOk);
  EXPECT_TRUE(std::string(memory.data(), 65536) == one);
  EXPECT_TRUE(std::string(memory.data() + 7 * 65536, 65536) == two);
}

// Two layers, K and V apart, blocks at a stride: the payload is K0 V0 K1 V1 of the block.
TEST_F(StoreTest, AGeometryOfPlanesGathersAndScatters) {
  constexpr uint64_t kPiece = 1000;
  constexpr uint64_t kStride = 4096;
  constexpr uint32_t kBlocks = 4;
  const TestRegion memory(4 * kBlocks * kStride);
  RegionGeometry geometry;
  geometry.block_count = kBlocks;
  for (uint64_t plane = 0; plane < 4; ++plane) {
    geometry.planes.push_back(
        {plane * kBlocks * kStride, kStride, {{0, kPiece / 2}, {2048, kPiece / 2}}});
  }
  Register(memory, 1, geometry);
  const std::string payload = PayloadOf(1, 4 * kPiece);
  Put([&] {
    PutCall call = InlinePut({1}, 4 * kPiece);
    return call;
  }());
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {2}}};
  ASSERT_EQ(OutcomeAt(Get(std::move(get)), 0), GetOutcome::kOk);
  std::string gathered;
  for (uint64_t plane = 0; plane < 4; ++plane) {
    const char* base = memory.data() + plane * kBlocks * kStride + 2 * kStride;
    gathered += std::string(base, kPiece / 2) + std::string(base + 2048, kPiece / 2);
  }
  EXPECT_TRUE(gathered == payload);
  EXPECT_EQ(std::string(memory.data() + kStride, kPiece), std::string(kPiece, '\0'))
      << "neighbours are untouched";
}

// Two large blocks are fewer than copy threads: each is copied in slices, whose borders lie where
// they lie in the segments.
TEST_F(StoreTest, ABlockThatIsCopiedInSlicesArrivesWhole) {
  constexpr uint32_t kBytes = (3 << 20) + 1;
  constexpr uint64_t kSegment = 700'001;
  constexpr uint64_t kStride = uint64_t{4} << 20;
  const TestRegion memory(2 * kStride);
  RegionGeometry geometry{2, {RegionPlane{0, kStride, {}}}};
  for (uint64_t at = 0; at < kBytes; at += kSegment) {  // a byte lies between segments
    const uint64_t index = at / kSegment;
    geometry.planes[0].segments.push_back({at + index, std::min<uint64_t>(kSegment, kBytes - at)});
  }
  for (const uint32_t verify_one_in : {0, 1, 2}) {
    BlockStoreOptions options;
    options.verify_one_in = verify_one_in;
    Make(options);
    ns_ = Open(RecordOf(kBytes));
    Register(memory, 1, geometry);
    PutKeys({1}, kBytes);
    PutKeys({2}, kBytes - 12345);
    std::memset(memory.data(), 0x55, memory.bytes());
    GetCall get = GetOf({1, 2}, Delivery::kRegion);
    get.regions = {{1, {0, 1}}};
    const GetResult result = Get(std::move(get));
    for (const uint64_t key : {1, 2}) {
      const uint32_t bytes = key == 1 ? kBytes : kBytes - 12345;
      ASSERT_EQ(OutcomeAt(result, key - 1), GetOutcome::kOk);
      ASSERT_EQ(result.payload_bytes[key - 1], bytes);
      const char* const block = memory.data() + (key - 1) * kStride;
      std::string arrived;
      for (const RegionSegment& segment : geometry.planes[0].segments) {
        arrived.append(block + segment.offset, segment.bytes);
        ASSERT_EQ(block[segment.offset + segment.bytes], 0x55) << "between segments";
      }
      ASSERT_TRUE(arrived.substr(0, bytes) == PayloadOf(key, bytes));
    }
  }
}

TEST_F(StoreTest, BlockIndexesBeyondTheRegionAreInvalidPerKey) {
  const TestRegion memory(4 * 65536);
  Register(memory, 1, Flat(4, 65536));
  PutKeys({1, 2});
  GetCall get = GetOf({1, 2}, Delivery::kRegion);
  get.parts[0].rule = Rule::kIndependent;
  get.regions = {{1, {4, 3}}};
  const GetResult result = Get(std::move(get));
  EXPECT_EQ(OutcomeAt(result, 0), GetOutcome::kInvalid);
  EXPECT_EQ(OutcomeAt(result, 1), GetOutcome::kOk);
}

TEST_F(StoreTest, APayloadLargerThanTheBlockOfARegionIsInvalid) {
  const TestRegion memory(4 * 4096);
  Register(memory, 1, Flat(4, 4096));
  PutKeys({1});
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {0}}};
  EXPECT_EQ(OutcomeAt(Get(std::move(get)), 0), GetOutcome::kInvalid);
}

TEST_F(StoreTest, ATruncatedRegionFailsTheCallAndNothingElse) {
  const TestRegion memory(4 * 65536);
  Register(memory, 1, Flat(4, 65536));
  PutKeys({1});
  ASSERT_EQ(ftruncate(memory.fd(), 0), 0);
  PutCall put;
  put.part = Part({2});
  put.payload_bytes = {65536};
  put.region = {1, {0}};
  put.deadline = clock_.Now() + absl::Seconds(5);
  EXPECT_EQ(ReasonAt(Put(std::move(put)), 0), Reason::kRegionFailed);
  EXPECT_FALSE(Holds(2)) << "a failed put is never visible";
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {3}}};
  EXPECT_EQ(OutcomeAt(Get(std::move(get)), 0), GetOutcome::kRegionFailed);
  EXPECT_EQ(store_->Usage().counters.regions_failed, 1U);
  EXPECT_EQ(OutcomeAt(Get(GetOf({1}, Delivery::kInline)), 0), GetOutcome::kOk);
}

TEST_F(StoreTest, UnregisterAnswersOnlyWhenNoCopyCanTouchTheMemory) {
  const TestRegion memory(4 * 65536);
  Register(memory, 1, Flat(4, 65536));
  PutKeys({1});
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {0}}};
  bool got = false;
  bool gone = false;
  store_->Get(caller_, std::move(get), [&](const absl::StatusOr<GetResult>&) { got = true; });
  store_->UnregisterRegion(session_, 1, [&] { gone = true; });
  EXPECT_FALSE(gone);
  executor_.RunAll();
  EXPECT_TRUE(got);
  EXPECT_TRUE(gone);
  EXPECT_EQ(store_->Usage().regions, 0U);
  bool again = false;
  store_->UnregisterRegion(session_, 1, [&] { again = true; });
  EXPECT_TRUE(again) << "an unknown region is answered at once";
}

TEST_F(StoreTest, RegionsEndWithTheirSession) {
  const TestRegion memory(4 * 65536);
  Register(memory, 1, Flat(4, 65536));
  EXPECT_EQ(store_->Usage().region_bytes, 4U * 65536);
  bool free = false;
  store_->CloseSession(session_, [&] { free = true; });
  EXPECT_TRUE(free) << "nothing copies";
  EXPECT_EQ(store_->Usage().regions, 0U);
  EXPECT_EQ(store_->Usage().region_bytes, 0U);
  bool again = false;
  store_->CloseSession(session_, [&] { again = true; });
  EXPECT_TRUE(again);
}

TEST_F(StoreTest, ASessionIsClosedWhenNoCopyCanTouchTheMemoryOfAnyRegion) {
  const TestRegion memory(4 * 65536);
  Register(memory, 1, Flat(4, 65536));
  Register(memory, 2, Flat(4, 65536));
  PutKeys({1});
  PutCall put;
  put.part = Part({2});
  put.payload_bytes = {65536};
  put.region = {2, {1}};
  put.deadline = clock_.Now() + absl::Seconds(5);
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {0}}};
  store_->Put(caller_, std::move(put), [](const absl::StatusOr<PutResult>&) {});
  store_->Get(caller_, std::move(get), [](const absl::StatusOr<GetResult>&) {});
  bool unregistered = false;
  store_->UnregisterRegion(session_, 2, [&] { unregistered = true; });
  int closed = 0;
  store_->CloseSession(session_, [&] { ++closed; });
  store_->ProcessGone(session_);
  ASSERT_TRUE(executor_.Step());
  EXPECT_FALSE(unregistered) << "the get goes first";
  EXPECT_EQ(closed, 0);
  executor_.RunAll();
  EXPECT_TRUE(unregistered);
  EXPECT_EQ(closed, 1);
}

TEST_F(StoreTest, ASessionThatIsUnknownIsClosedAtOnce) {
  bool closed = false;
  store_->CloseSession(SessionId{4711}, [&] { closed = true; });
  EXPECT_TRUE(closed);
}

TEST_F(StoreTest, ARegionIdIsUsedOnceAtATime) {
  const TestRegion memory(4096);
  Register(memory, 1, Flat(1, 4096));
  auto mapped = GuardedRegion::Map(memory.fd(), 0, 4096, MapAccess::kReadWrite);
  EXPECT_EQ(store_->RegisterRegion(session_, {1, std::move(*mapped), Flat(1, 4096), false})
                .status()
                .code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(StoreTest, ASessionHasALimitedNumberOfRegions) {
  BlockStoreOptions options;
  options.max_regions_per_session = 2;
  Make(options);
  const TestRegion memory(4096);
  Register(memory, 1, Flat(1, 4096));
  Register(memory, 2, Flat(1, 4096));
  const auto try_register = [&](SessionId session, uint32_t region_id) {
    auto mapped = GuardedRegion::Map(memory.fd(), 0, 4096, MapAccess::kReadWrite);
    return store_->RegisterRegion(session, {region_id, *std::move(mapped), Flat(1, 4096), false})
        .status()
        .code();
  };
  EXPECT_EQ(try_register(session_, 3), absl::StatusCode::kResourceExhausted);
  store_->UnregisterRegion(session_, 1, [] {});
  EXPECT_EQ(try_register(session_, 3), absl::StatusCode::kOk);
  EXPECT_EQ(try_register(session_, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(try_register(kNoSession, 1), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, ARegionThatIsReadOnlyIsNotWrittenTo) {
  const TestRegion memory(65536);
  auto mapped = GuardedRegion::Map(memory.fd(), 0, 65536, MapAccess::kReadOnly);
  ASSERT_TRUE(store_->RegisterRegion(session_, {1, *std::move(mapped), Flat(1, 65536), true}).ok());
  PutCall put;
  put.part = Part({1});
  put.payload_bytes = {65536};
  put.region = {1, {0}};
  put.deadline = clock_.Now() + absl::Seconds(5);
  EXPECT_EQ(OutcomeAt(Put(std::move(put)), 0), PutOutcome::kStored);
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {0}}};
  std::optional<absl::StatusOr<GetResult>> result;
  store_->Get(caller_, std::move(get), [&](absl::StatusOr<GetResult> r) { result = std::move(r); });
  EXPECT_EQ(result->status().code(), absl::StatusCode::kFailedPrecondition);
  bool gone = false;
  store_->UnregisterRegion(session_, 1, [&] { gone = true; });
  EXPECT_TRUE(gone) << "the call that was refused does not use it any more";
}

TEST_F(StoreTest, ASlabIsMappedByItsTenantsProvenProcessesAlone) {
  PutKeys({1});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  const SlabId slab{lease.slab_ids.front()};
  const SessionId unproven = store_->OpenSession(tenant_, BlockStore::LeaseRight::kNone);
  EXPECT_EQ(store_->MapSlab(unproven, slab).status().code(), absl::StatusCode::kFailedPrecondition);
  const SessionId foreign =
      store_->OpenSession(*store_->OpenTenant("b"), BlockStore::LeaseRight::kProvenByPidfd);
  EXPECT_EQ(store_->MapSlab(foreign, slab).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreTest, UnknownRegionsAndForeignCarriersAreRefused) {
  PutKeys({1});
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{5, {0}}};
  std::optional<absl::StatusOr<GetResult>> result;
  store_->Get(caller_, get, [&](absl::StatusOr<GetResult> r) { result = std::move(r); });
  EXPECT_EQ(result->status().code(), absl::StatusCode::kNotFound);
  store_->Get(Caller{tenant_, kNoSession}, get,
              [&](absl::StatusOr<GetResult> r) { result = std::move(r); });
  EXPECT_EQ(result->status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace terrace::testing
