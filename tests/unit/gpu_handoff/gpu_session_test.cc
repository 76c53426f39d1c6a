// Gets into and puts from the memory of a GPU, over a session.
#include "tests/unit/gpu_handoff/gpu_room.h"

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

}  // namespace
}  // namespace terrace::doubles
