// The messages between the core and the worker of a GPU.
#include "daemon/gpu/gpu_frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

GpuCopy CopyOf(size_t blocks) {
  GpuCopy copy;
  copy.call = 7;
  copy.region = 3;
  copy.direction = cuda::CopyDirection::kToHost;
  copy.behind.emplace();
  copy.behind->reserved[63] = 'e';
  copy.progress_slot = 1023;
  for (uint32_t i = 0; i < blocks; ++i) {
    copy.blocks.push_back({i, i + 1, uint64_t{i} << 33U, 4096});
  }
  return copy;
}

RegionGeometry Geometry() {
  return {5, {{0, 4096, {{0, 1024}, {2048, 1024}}}, {uint64_t{1} << 40, 0, {{0, 8}}}}};
}

// One of each, in their bytes.
std::vector<std::string> EveryMessage() {
  GpuOpenRegion open;
  open.call = 1;
  open.region = 2;
  open.kind = GpuMemoryKind::kShared;
  open.canary_block = 9;
  open.allocation_bytes = 1 << 20;
  GpuReady ready;
  ready.status = absl::NotFoundError("no such GPU");
  ready.read_only_memory = true;
  ready.plain_reason = "no kernels";
  ready.single_reason = "no batches";
  GpuSeen seen;
  seen.call = 5;
  seen.facts.ring_reason = "read-only";
  std::vector<std::string> all = {Encode(GpuGreeting{{{'u'}}, 1 << 20}),
                                  Encode(GpuSlab{4, 64}),
                                  Encode(GpuDropSlab{1, 4}),
                                  Encode(GpuGeometryPiece{2, "piece"}),
                                  Encode(open),
                                  Encode(GpuCloseRegion{1, 2}),
                                  Encode(ready),
                                  Encode(GpuDone{8, absl::CancelledError("why")}),
                                  Encode(seen),
                                  EncodeNumber(GpuMessage::kCancel, 8)};
  for (std::string& packet : Encode(CopyOf(3))) {
    all.push_back(std::move(packet));
  }
  return all;
}

// Which decoders take the packet.
int Taken(const std::string& packet) {
  const absl::Span<const char> bytes(packet);
  return int{DecodeGpuGreeting(bytes).has_value()} + int{DecodeGpuSlab(bytes).has_value()} +
         int{DecodeGpuDropSlab(bytes).has_value()} +
         int{DecodeGpuGeometryPiece(bytes).has_value()} +
         int{DecodeGpuOpenRegion(bytes).has_value()} +
         int{DecodeGpuCloseRegion(bytes).has_value()} + int{DecodeGpuCopy(bytes).has_value()} +
         int{DecodeGpuReady(bytes).has_value()} + int{DecodeGpuDone(bytes).has_value()} +
         int{DecodeGpuSeen(bytes).has_value()} +
         int{DecodeGpuNumber(GpuMessage::kCancel, bytes).has_value()};
}

TEST(GpuFrame, EveryMessageIsOneKindAndNoOther) {
  for (const std::string& packet : EveryMessage()) {
    EXPECT_TRUE(KindOf(packet).has_value());
    EXPECT_EQ(Taken(packet), 1);
  }
}

TEST(GpuFrame, ACopyOfManyBlocksComesInSeveralPackets) {
  const GpuCopy copy = CopyOf(2 * kMaxBlocksOfPacket + 1);
  std::vector<GpuBlock> blocks;
  std::vector<bool> more;
  for (const std::string& packet : Encode(copy)) {
    ASSERT_LE(packet.size(), size_t{65536});
    const auto part = DecodeGpuCopy(packet);
    ASSERT_TRUE(part.has_value());
    EXPECT_EQ(part->copy.call, copy.call);
    EXPECT_EQ(part->copy.progress_slot, copy.progress_slot);
    EXPECT_EQ(part->copy.behind->reserved[63], 'e');
    EXPECT_EQ(part->copy.direction, copy.direction);
    more.push_back(part->more);
    blocks.insert(blocks.end(), part->copy.blocks.begin(), part->copy.blocks.end());
  }
  EXPECT_THAT(more, ::testing::ElementsAre(true, true, false));
  EXPECT_EQ(blocks, copy.blocks);
}

TEST(GpuFrame, WhatIsSaidIsUnderstood) {
  GpuOpenRegion open;
  open.call = 11;
  open.kind = GpuMemoryKind::kIpc;
  open.handle.reserved[5] = 'h';
  open.offset = 4;
  open.bytes = 12;
  open.planes_per_layer = 2;
  const auto opened = DecodeGpuOpenRegion(Encode(open));
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->handle.reserved[5], 'h');
  EXPECT_EQ(opened->offset, 4U);
  EXPECT_EQ(opened->bytes, 12U);
  EXPECT_EQ(opened->planes_per_layer, 2U);
  EXPECT_FALSE(opened->canary_block.has_value());
  GpuReady ready;
  ready.ordinal = 3;
  ready.node = 1;
  ready.load_piece_bytes = 4096;
  ready.save_piece_bytes = 8192;
  ready.plain_reason = "why not";
  ready.single_reason = "nor that";
  const auto readied = DecodeGpuReady(Encode(ready));
  ASSERT_TRUE(readied.has_value());
  EXPECT_EQ(readied->ordinal, 3U);
  EXPECT_EQ(readied->node, 1U);
  EXPECT_EQ(readied->load_piece_bytes, 4096U);
  EXPECT_EQ(readied->save_piece_bytes, 8192U);
  EXPECT_EQ(readied->plain_reason, "why not");
  EXPECT_EQ(readied->single_reason, "nor that");
  const auto done = DecodeGpuDone(Encode(GpuDone{8, absl::CancelledError("why")}));
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->status, absl::CancelledError("why"));
}

TEST(GpuFrame, AGeometrySurvivesItsBytes) {
  const RegionGeometry before = Geometry();
  const auto after = DecodeGeometry(EncodeGeometry(before));
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(EncodeGeometry(*after), EncodeGeometry(before));
  EXPECT_EQ(after->planes[0].segments[1].offset, 2048U);
}

TEST(GpuFrame, NothingIsTakenThatIsShorterOrLonger) {
  for (const std::string& packet : EveryMessage()) {
    if (KindOf(packet) == GpuMessage::kGeometry) {
      continue;  // its last field is the rest
    }
    for (size_t bytes = 0; bytes < packet.size(); ++bytes) {
      EXPECT_EQ(Taken(packet.substr(0, bytes)), 0);
    }
    EXPECT_EQ(Taken(packet + '\0'), 0);
  }
  const std::string geometry = EncodeGeometry(Geometry());
  for (size_t bytes = 0; bytes < geometry.size(); ++bytes) {
    EXPECT_FALSE(DecodeGeometry(absl::MakeSpan(geometry).first(bytes)).has_value());
  }
}

TEST(GpuFrame, GarbageIsRefusedOrUnderstoodAndNeverMore) {
  doubles::Seeded random(17);
  const std::vector<std::string> all = EveryMessage();
  for (int round = 0; round < 20000; ++round) {
    std::string packet = all[random.Below(all.size())];
    for (uint64_t flips = 1 + random.Below(4); flips > 0; --flips) {
      packet[random.Below(packet.size())] ^= static_cast<char>(1U << random.Below(8));
    }
    EXPECT_LE(Taken(packet), 1);
    std::string geometry = EncodeGeometry(Geometry());
    geometry[random.Below(geometry.size())] ^= static_cast<char>(1U << random.Below(8));
    DecodeGeometry(geometry);
  }
}

}  // namespace
}  // namespace terrace
