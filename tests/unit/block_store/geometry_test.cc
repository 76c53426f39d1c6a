// Every geometry that leaves the region or overlaps itself is refused; the layouts of real engines
// are not.
#include <gtest/gtest.h>

#include "daemon/block_store.h"

namespace terrace {
namespace {

RegionPlane Plane(uint64_t offset, uint64_t stride, std::vector<RegionSegment> segments) {
  return {offset, stride, std::move(segments)};
}

TEST(Geometry, KvFirstBlocksFirstAndPackedLayoutsAreValid) {
  // KV-first: [2, blocks, bytes]; blocks-first: [blocks, 2, bytes]; packed: one segment a block.
  EXPECT_EQ(*ValidateGeometry({8, {Plane(0, 100, {{0, 100}}), Plane(800, 100, {{0, 100}})}}, 1600),
            200U);
  EXPECT_EQ(*ValidateGeometry({8, {Plane(0, 200, {{0, 100}}), Plane(100, 200, {{0, 100}})}}, 1600),
            200U);
  EXPECT_EQ(*ValidateGeometry({8, {Plane(0, 200, {{0, 100}, {100, 100}})}}, 1600), 200U);
  EXPECT_EQ(*ValidateGeometry({1, {Plane(0, 0, {{0, 1600}})}}, 1600), 1600U);
}

TEST(Geometry, WhatReachesBeyondTheRegionIsRefused) {
  EXPECT_FALSE(ValidateGeometry({8, {Plane(0, 200, {{0, 200}})}}, 1599).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(1, 0, {{0, 1600}})}}, 1600).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(UINT64_MAX, 0, {{0, 1}})}}, 1600).ok());
  EXPECT_FALSE(ValidateGeometry({UINT32_MAX, {Plane(0, UINT64_MAX / 2, {{0, 1}})}}, 1600).ok());
  EXPECT_FALSE(ValidateGeometry({2, {Plane(0, UINT64_MAX, {{0, 1}})}}, 1600).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(0, 0, {{UINT64_MAX, 2}})}}, 1600).ok());
}

TEST(Geometry, OverlapsAreRefused) {
  EXPECT_FALSE(ValidateGeometry({2, {Plane(0, 99, {{0, 100}})}}, 1600).ok())
      << "neighbouring blocks";
  EXPECT_FALSE(ValidateGeometry({1, {Plane(0, 0, {{0, 100}, {99, 10}})}}, 1600).ok()) << "segments";
  EXPECT_FALSE(
      ValidateGeometry({8, {Plane(0, 100, {{0, 100}}), Plane(799, 100, {{0, 100}})}}, 1700).ok())
      << "planes";
  EXPECT_FALSE(
      ValidateGeometry({8, {Plane(0, 200, {{0, 101}}), Plane(100, 200, {{0, 100}})}}, 1700).ok());
  EXPECT_FALSE(
      ValidateGeometry({8, {Plane(0, 200, {{0, 50}}), Plane(100, 100, {{0, 50}})}}, 1700).ok())
      << "strides";
  EXPECT_FALSE(ValidateGeometry({2, {Plane(0, 0, {{0, 50}})}}, 1700).ok()) << "no stride";
}

TEST(Geometry, EmptyAndOversizedOnesAreRefused) {
  EXPECT_FALSE(ValidateGeometry({0, {Plane(0, 1, {{0, 1}})}}, 100).ok());
  EXPECT_FALSE(ValidateGeometry({1, {}}, 100).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(0, 0, {})}}, 100).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(0, 0, {{0, 0}})}}, 100).ok());
  EXPECT_FALSE(ValidateGeometry({1, {Plane(0, 0, {{0, kMaxPayloadBytes + 1}})}}, UINT64_MAX).ok());
  EXPECT_FALSE(
      ValidateGeometry({1, std::vector<RegionPlane>(1025, Plane(0, 0, {{0, 1}}))}, 1 << 20).ok());
}

}  // namespace
}  // namespace terrace
