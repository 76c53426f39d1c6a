#include "tiers/gpu/copy_plan.h"

#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/cuda/kv_layouts.h"
#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

using testing::HasSubstr;

constexpr uint32_t kBlocks = 5;
constexpr uint32_t kLayers = 3;
constexpr uint64_t kHalf = 64;  // bytes of a block's keys, or values, in one layer
constexpr stand_in::KvShape kShape{kBlocks, kLayers, kHalf};

std::string Said(const absl::Status& status) {
  return std::string(status.message());
}

// [block]: one plane, one segment
RegionGeometry Packed() {
  return {kBlocks, {{0, 2 * kHalf * kLayers, {{0, 2 * kHalf * kLayers}}}}};
}
// [layer][block]: one latent vector a token
RegionGeometry Latent() {
  RegionGeometry geometry{kBlocks, {}};
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    geometry.planes.push_back({layer * kBlocks * kHalf, kHalf, {{0, kHalf}}});
  }
  return geometry;
}

uint64_t BytesFor(const RegionGeometry& geometry) {
  uint64_t end = 0;
  for (const RegionPlane& plane : geometry.planes) {
    for (const RegionSegment& segment : plane.segments) {
      end = std::max(end, plane.offset + plane.block_stride * (geometry.block_count - 1) +
                              segment.offset + segment.bytes);
    }
  }
  return end;
}

// The payload of a block, byte by byte, by the definition.
std::string Gathered(const RegionGeometry& geometry, const std::string& region, uint32_t block) {
  std::string out;
  for (const RegionPlane& plane : geometry.planes) {
    for (const RegionSegment& segment : plane.segments) {
      out +=
          region.substr(plane.offset + plane.block_stride * block + segment.offset, segment.bytes);
    }
  }
  return out;
}

struct Layout {
  const char* name;
  RegionGeometry geometry;
  uint32_t planes_per_layer;
};

void PrintTo(const Layout& layout, std::ostream* out) {
  *out << layout.name;
}

class LayoutTest : public testing::TestWithParam<Layout> {};

TEST_P(LayoutTest, IsValidatedAndItsPlanCopiesEveryBlockWhole) {
  const RegionGeometry& geometry = GetParam().geometry;
  const std::string region = doubles::Seeded(7).Bytes(BytesFor(geometry));
  const absl::StatusOr<uint64_t> payload = ValidateGpuGeometry(geometry, region.size());
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_FALSE(ValidateGpuGeometry(geometry, region.size() - 1).ok());

  std::string host(3 * *payload, ' ');
  std::vector<BlockPlace> places;
  for (uint32_t i = 0; i < 3; ++i) {
    places.push_back({i * 2, host.data() + i * *payload, *payload});
  }
  const auto plan = PlanCopies({&geometry, 0, places, GetParam().planes_per_layer});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->bytes, host.size());
  ASSERT_EQ(plan->layer_ends.size(), geometry.planes.size() / GetParam().planes_per_layer);
  EXPECT_EQ(plan->layer_ends.back(), plan->pieces.size());
  for (const cuda::CopyRange& piece : plan->pieces) {
    region.copy(piece.host, piece.bytes, piece.device);
  }
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(host.substr(i * *payload, *payload), Gathered(geometry, region, i * 2));
  }
}

INSTANTIATE_TEST_SUITE_P(OfEngines,
                         LayoutTest,
                         testing::Values(Layout{"KeysFirst", stand_in::KeysFirst(kShape), 2},
                                         Layout{"BlocksFirst", stand_in::BlocksFirst(kShape), 1},
                                         Layout{"OneStridedAllocation",
                                                stand_in::OneStridedAllocation(kShape, kHalf), 1},
                                         Layout{"Packed", Packed(), 1},
                                         Layout{"Latent", Latent(), 1}),
                         [](const auto& layout) { return std::string(layout.param.name); });

TEST(CopyPlanTest, SegmentsThatLieTogetherOnBothSidesAreOneCopy) {
  const RegionGeometry strided = stand_in::OneStridedAllocation(kShape, kHalf);
  std::string host(2 * kHalf * kLayers, ' ');
  const std::vector<BlockPlace> place = {{1, host.data(), host.size()}};
  const auto by_layer = PlanCopies({&strided, 0, place, 1});
  EXPECT_EQ(by_layer->pieces.size(), kLayers) << "layers stay apart, to be counted";
  const auto whole = PlanCopies({&strided, 0, place, kLayers});
  EXPECT_EQ(whole->pieces.size(), 1U);
  const RegionGeometry blocks_first = stand_in::BlocksFirst(kShape);
  EXPECT_EQ(PlanCopies({&blocks_first, 0, place, 1})->pieces.size(), kLayers);
}

TEST(CopyPlanTest, ALayerOfAllBlocksComesBeforeTheNextLayer) {
  const RegionGeometry geometry = stand_in::KeysFirst(kShape);
  std::string host(4 * kHalf * kLayers, ' ');
  const std::vector<BlockPlace> places = {
      {0, host.data(), 2 * kHalf * kLayers},
      {3, host.data() + 2 * kHalf * kLayers, 2 * kHalf * kLayers}};
  const auto plan = PlanCopies({&geometry, 0, places, 2});
  EXPECT_THAT(plan->layer_ends, testing::ElementsAre(4, 8, 12));
  for (size_t i = 0; i < plan->pieces.size(); ++i) {
    EXPECT_EQ(plan->pieces[i].device / (2 * kBlocks * kHalf), i / 4);
  }
}

TEST(CopyPlanTest, AShortPayloadEndsWithinALayerAndTheRestAreEmpty) {
  const RegionGeometry geometry = stand_in::KeysFirst(kShape);
  std::string host(2 * kHalf * kLayers, ' ');
  const std::vector<BlockPlace> place = {{0, host.data(), 2 * kHalf + 10}};
  const auto plan = PlanCopies({&geometry, 0, place, 2});
  EXPECT_EQ(plan->bytes, 2 * kHalf + 10);
  EXPECT_THAT(plan->layer_ends, testing::ElementsAre(2, 3, 3));
  EXPECT_EQ(plan->pieces.back().bytes, 10U);
}

TEST(CopyPlanTest, TwoGroupsInOneAllocationAreTwoRegions) {
  // Full attention in the front, a sliding window behind it; each its own block size.
  const RegionGeometry full = {4, {{0, 256, {{0, 256}}}}};
  const RegionGeometry window = {8, {{0, 64, {{0, 64}}}}};
  EXPECT_EQ(*ValidateGpuGeometry(full, 1024), 256U);
  EXPECT_EQ(*ValidateGpuGeometry(window, 512), 64U);
  std::string host(64, ' ');
  const std::vector<BlockPlace> place = {{7, host.data(), 64}};
  EXPECT_EQ(PlanCopies({&window, 1024, place, 1})->pieces[0].device, 1024 + 7 * 64U);
}

TEST(CopyPlanTest, OffsetsThatAreNotAlignedAreRefusedByName) {
  RegionGeometry geometry = {2, {{2, 256, {{0, 64}}}}};
  EXPECT_THAT(Said(ValidateGpuGeometry(geometry, 4096).status()),
              HasSubstr("geometry.planes.offset"));
  geometry = {2, {{0, 130, {{0, 64}}}}};
  EXPECT_THAT(Said(ValidateGpuGeometry(geometry, 4096).status()),
              HasSubstr("geometry.planes.block_stride"));
  geometry = {2, {{0, 256, {{1, 64}}}}};
  EXPECT_THAT(Said(ValidateGpuGeometry(geometry, 4096).status()),
              HasSubstr("geometry.planes.segments.offset"));
  geometry = {2, {{0, 256, {{0, 63}}}}};
  EXPECT_THAT(Said(ValidateGpuGeometry(geometry, 4096).status()),
              HasSubstr("geometry.planes.segments.bytes"));
}

TEST(CopyPlanTest, RequestsBeyondTheGeometryAreRefusedByName) {
  const RegionGeometry geometry = stand_in::KeysFirst(kShape);
  std::string host(2 * kHalf * kLayers, ' ');
  std::vector<BlockPlace> place = {{kBlocks, host.data(), kHalf}};
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, place, 2}).status()), HasSubstr("block"));
  place = {{0, host.data(), host.size() + 1}};
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, place, 2}).status()), HasSubstr("payload_bytes"));
  place = {{0, host.data(), 0}};
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, place, 2}).status()), HasSubstr("payload_bytes"));
  place = {{0, host.data(), kHalf}};
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, place, 4}).status()), HasSubstr("planes_per_layer"));
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, place, 0}).status()), HasSubstr("planes_per_layer"));
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, {}, 2}).status()), HasSubstr("blocks"));
  const std::vector<BlockPlace> many(kMaxPiecesOfPlan / 6 + 1, place[0]);
  EXPECT_THAT(Said(PlanCopies({&geometry, 0, many, 2}).status()), HasSubstr("blocks: at most"));
}

}  // namespace
}  // namespace terrace
