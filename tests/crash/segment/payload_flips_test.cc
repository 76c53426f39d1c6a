// Every bit of a payload of 64 KiB, flipped on the medium, through the real read path.
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"

namespace terrace {
namespace {

constexpr uint32_t kPayload = 64 << 10;

TEST(PayloadFlipsTest, EachOfTheBitsOf64KiBIsAMiss) {
  TierRoom room;
  room.options().max_payload_bytes = kPayload;
  room.options().max_read_faults = 1000000;
  room.Open();
  const TestBlock block(1, kPayload);
  ASSERT_EQ(room.Write(block), WriteOutcome::kWritten);
  const auto [name, offset] = room.PlaceOf(block);
  const std::string payload = room.disk().Read(kTierPath, name, offset + kPageBytes, kPayload);
  ASSERT_EQ(payload, block.payload());
  const AlignedBuffer slot(kPageBytes + kPayload);
  LowerTier::ReadRequest request;
  request.destination = slot.span().subspan(kPageBytes);
  request.header_page_in_front = true;
  request.deadline = absl::InfiniteDuration();
  const BlockIdentity identity = block.identity();
  for (uint64_t bit = 0; bit < uint64_t{kPayload} * 8; ++bit) {
    const uint64_t at = bit / 8 / 512 * 512;
    std::string sector = payload.substr(at, 512);
    sector[bit / 8 - at] = static_cast<char>(sector[bit / 8 - at] ^ (1 << bit % 8));
    room.disk().Overwrite(kTierPath, name, offset + kPageBytes + at, sector);
    request.identity = identity;
    ASSERT_TRUE(room.tier().Lookup(identity, &request.block)) << bit;
    std::optional<ReadOutcome> outcome;
    room.tier().Read(request, [&](ReadOutcome ended) { outcome = ended; });
    room.RunAll();
    ASSERT_EQ(outcome, ReadOutcome::kCorrupt) << bit;
    ASSERT_FALSE(room.tier().Lookup(identity, &request.block)) << bit;
    room.disk().Overwrite(kTierPath, name, offset + kPageBytes + at, payload.substr(at, 512));
    room.Kill();
    room.Open();
  }
  EXPECT_EQ(room.Read(block), ReadOutcome::kVerified);
}

}  // namespace
}  // namespace terrace
