// The kernels' own source, run by threads of the processor: a thread is a lane, and lanes of a warp
// meet where they exchange values.
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace on_processor {

// What nvcc declares by itself.
struct Index {
  unsigned x = 0;
};
thread_local Index threadIdx;
thread_local Index blockIdx;
constexpr Index blockDim{64};
constexpr Index gridDim{3};
struct alignas(16) uint4 {
  uint32_t words[4];
};

constexpr unsigned kLanes = 32;

// One warp's meeting place.
class Warp {
 public:
  uint64_t Exchange(uint64_t mine, unsigned lane, unsigned from) {
    Meet([&] { values_[lane] = mine; });
    uint64_t theirs = 0;
    Meet([&] { theirs = values_[from]; });
    return theirs;
  }

 private:
  template <typename Deed>
  void Meet(const Deed& deed) {
    std::unique_lock<std::mutex> lock(mutex_);
    deed();
    const uint64_t meeting = meetings_;
    if (++there_ == kLanes) {
      there_ = 0;
      ++meetings_;
      all_there_.notify_all();
    }
    all_there_.wait(lock, [&] { return meetings_ != meeting; });
  }

  std::mutex mutex_;
  std::condition_variable all_there_;
  uint64_t values_[kLanes] = {};
  unsigned there_ = 0;
  uint64_t meetings_ = 0;
};
thread_local Warp* warp = nullptr;

uint64_t __shfl_sync(unsigned lanes, uint64_t value, unsigned from) {
  EXPECT_EQ(lanes, 0xffffffffU);
  return warp->Exchange(value, threadIdx.x % kLanes, from);
}

}  // namespace on_processor

#define __device__
#define __global__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
using on_processor::__shfl_sync;
using on_processor::blockDim;
using on_processor::blockIdx;
using on_processor::gridDim;
using on_processor::threadIdx;
using on_processor::uint4;
#include "tiers/gpu/gather_kernels.cu"
#pragma GCC diagnostic pop

namespace terrace {
namespace {

using Kernel = void (*)(const GatherMove*, uint32_t, char*);

void RunKernel(Kernel kernel, const std::vector<GatherMove>& moves, char* stage) {
  for (unsigned block = 0; block < on_processor::gridDim.x; ++block) {
    for (unsigned first = 0; first < on_processor::blockDim.x; first += on_processor::kLanes) {
      on_processor::Warp warp;
      std::vector<std::thread> lanes;
      for (unsigned lane = 0; lane < on_processor::kLanes; ++lane) {
        lanes.emplace_back([&, block, thread = first + lane] {
          on_processor::blockIdx.x = block;
          on_processor::threadIdx.x = thread;
          on_processor::warp = &warp;
          kernel(moves.data(), static_cast<uint32_t>(moves.size()), stage);
        });
      }
      for (std::thread& lane : lanes) {
        lane.join();
      }
    }
  }
}

// Pieces of every length and alignment; more of them than the grid's warps have lanes.
TEST(GatherKernelsTest, MoveEveryByteToItsPlaceAndNoOther) {
  doubles::Seeded random(21);
  const std::string memory_before = random.Bytes(1 << 20);
  const std::string stage_before = random.Bytes(1 << 20);
  for (const bool gathers : {true, false}) {
    std::string memory = memory_before;
    std::string stage = stage_before;
    std::string expected_memory = memory;
    std::string expected_stage = stage;
    std::vector<GatherMove> moves;
    uint64_t at = 0;
    uint64_t offset = 0;
    for (int i = 0; i < 230; ++i) {
      const uint64_t bytes = random.OneIn(5) ? 1 + random.Below(16384) : 1 + random.Below(700);
      at += random.Below(3) == 0 ? random.Below(64) : (16 - at % 16) % 16;
      offset += random.Below(3) == 0 ? random.Below(64) : (16 - offset % 16) % 16;
      moves.push_back({reinterpret_cast<uint64_t>(memory.data()) + at, offset, bytes});
      if (gathers) {
        expected_stage.replace(offset, bytes, memory_before, at, bytes);
      } else {
        expected_memory.replace(at, bytes, stage_before, offset, bytes);
      }
      at += bytes;
      offset += bytes;
    }
    ASSERT_LT(std::max(at, offset), memory.size());
    RunKernel(gathers ? terrace_gather : terrace_spread, moves, stage.data());
    EXPECT_TRUE(memory == expected_memory);
    EXPECT_TRUE(stage == expected_stage);
  }
}

TEST(GatherKernelsTest, FewerMovesThanWarpsAreDoneOnce) {
  std::string memory = "0123456789";
  std::string stage(16, '.');
  RunKernel(terrace_gather, {{reinterpret_cast<uint64_t>(memory.data()) + 2, 3, 5}}, stage.data());
  EXPECT_EQ(stage, "...23456........");
}

}  // namespace
}  // namespace terrace
