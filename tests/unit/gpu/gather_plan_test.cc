#include "tiers/gpu/gather_plan.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/doubles/in_child.h"
#include "tests/doubles/seeded.h"
#include "tiers/gpu/gather_choice.h"
#include "tiers/gpu/kernel_image.h"

namespace terrace {
namespace {

constexpr cuda::DevicePointer kDevice = 0x10000;

std::vector<cuda::CopyRange> Pieces(char* host, size_t count, uint64_t bytes) {
  std::vector<cuda::CopyRange> pieces;
  for (size_t i = 0; i < count; ++i) {
    pieces.push_back({kDevice + 2 * i * bytes, host + i * bytes, bytes});
  }
  return pieces;
}

TEST(GatherPlanTest, PiecesThatLieBehindEachOtherInHostMemoryAreOneCopy) {
  std::string host(64 * 64, ' ');
  const GatherPlan plan = PlanGather(Pieces(host.data(), 64, 64), 64);
  ASSERT_EQ(plan.staged.size(), 1U);
  EXPECT_EQ(plan.staged[0].bytes, 64U * 64U);
  EXPECT_EQ(plan.staged[0].host, host.data());
  EXPECT_EQ(plan.moves.size(), 64U);
  EXPECT_EQ(plan.staged_bytes, 64U * 64U);
  EXPECT_TRUE(plan.plain.empty());
}

TEST(GatherPlanTest, LargePiecesAreCopiedAsTheyLie) {
  std::string host(65 * 64, ' ');
  std::vector<cuda::CopyRange> pieces = Pieces(host.data(), 32, 64);
  pieces.push_back({kDevice, host.data() + 32 * 64, 65});
  const GatherPlan plan = PlanGather(pieces, 64);
  EXPECT_EQ(plan.moves.size(), 32U);
  ASSERT_EQ(plan.plain.size(), 1U);
  EXPECT_EQ(plan.plain[0].bytes, 65U);
}

TEST(GatherPlanTest, FewPiecesAndPiecesThatStayApartAreNotGathered) {
  std::string host(1 << 16, ' ');
  EXPECT_TRUE(PlanGather(Pieces(host.data(), kMinGatheredPieces - 1, 64), 64).moves.empty());
  EXPECT_FALSE(PlanGather(Pieces(host.data(), kMinGatheredPieces, 64), 64).moves.empty());
  std::vector<cuda::CopyRange> apart;
  for (size_t i = 0; i < 64; ++i) {
    apart.push_back({kDevice + 64 * i, host.data() + 128 * i, 64});
  }
  const GatherPlan plan = PlanGather(apart, 64);
  EXPECT_TRUE(plan.moves.empty());
  EXPECT_TRUE(plan.staged.empty());
  EXPECT_EQ(plan.plain.size(), 64U);
  EXPECT_EQ(plan.staged_bytes, 0U);
}

TEST(GatherPlanTest, LongPiecesAreSeveralMoves) {
  std::string host(20 * 40000, ' ');
  const GatherPlan plan = PlanGather(Pieces(host.data(), 20, 40000), 40000);
  EXPECT_EQ(plan.moves.size(), 60U);
  for (const GatherMove& move : plan.moves) {
    EXPECT_LE(move.bytes, kMaxMoveBytes);
  }
}

TEST(GatherPlanTest, AStretchOfTheStageIsAsFarFromWideWordsAsTheMemory) {
  std::string host(1 << 12, ' ');
  std::vector<cuda::CopyRange> pieces = Pieces(host.data(), 16, 64);
  for (cuda::CopyRange& piece : pieces) {
    piece.device += 4;
  }
  const GatherPlan plan = PlanGather(pieces, 64);
  ASSERT_FALSE(plan.moves.empty());
  for (const GatherMove& move : plan.moves) {
    EXPECT_EQ(move.device % 16, move.offset % 16);
  }
}

// Done by hand, the plan has to bring every byte to its place and stay in its stage.
TEST(GatherPlanTest, RandomBatchesArriveWhole) {
  doubles::Seeded random(11);
  for (int round = 0; round < 300; ++round) {
    const std::string source = random.Bytes(1 << 16);
    std::string host(1 << 16, '.');
    std::string expected = host;
    std::vector<cuda::CopyRange> pieces;
    uint64_t bytes = 0;
    for (uint64_t at = 0; at + 3000 < host.size();) {
      const uint64_t length = 1 + random.Below(round % 2 == 0 ? 300 : 3000);
      const uint64_t from = random.Below(source.size() - length);
      pieces.push_back({from, host.data() + at, length});
      expected.replace(at, length, source, from, length);
      bytes += length;
      at += length + (random.OneIn(8) ? random.Below(100) : 0);
    }
    for (size_t i = pieces.size(); i-- > 1;) {
      std::swap(pieces[i], pieces[random.Below(i + 1)]);
    }
    const GatherPlan plan = PlanGather(pieces, 256);
    std::string stage(StageBytesFor(bytes, pieces.size()), '#');
    ASSERT_LE(plan.moves.size(), MovesFor(bytes, pieces.size()));
    for (const GatherMove& move : plan.moves) {
      ASSERT_LE(move.offset + move.bytes, stage.size());
      stage.replace(move.offset, move.bytes, source, move.device, move.bytes);
    }
    for (const StagedCopy& copy : plan.staged) {
      std::memcpy(copy.host, stage.data() + copy.offset, copy.bytes);
    }
    for (const cuda::CopyRange& copy : plan.plain) {
      std::memcpy(copy.host, source.data() + copy.device, copy.bytes);
    }
    ASSERT_TRUE(host == expected) << "round " << round;
  }
}

TEST(GatherChoiceTest, TheLargestSizeCountsUpToWhichGatheringWasFasterByATenth) {
  const auto sample = [](uint64_t bytes, int one_by_one, int gathered) {
    return GatherSample{bytes, absl::Microseconds(one_by_one), absl::Microseconds(gathered)};
  };
  EXPECT_EQ(LargestWorthGathering({}), 0U);
  EXPECT_EQ(LargestWorthGathering({sample(1, 100, 95)}), 0U);
  EXPECT_EQ(LargestWorthGathering({sample(1, 100, 10), sample(2, 100, 90), sample(4, 100, 91)}),
            2U);
  EXPECT_EQ(LargestWorthGathering({sample(1, 100, 99), sample(2, 100, 10)}), 0U);
}

TEST(KernelImageTest, IsWhatAFileHoldsThatTheEnvironmentNames) {
  // In processes of their own, as it is read once.
  const std::string path = testing::TempDir() + "kernels-" + std::to_string(getpid());
  std::ofstream(path) << "PTX";
  const auto image_of = [](const std::string& file) {
    return InChild([&file] {
      setenv("TERRACE_GATHER_KERNELS", file.c_str(), 1);
      const absl::Span<const char> image = KernelImage();
      return std::string(image.data(), image.size()) == "PTX" ? 3 : image.empty() ? 4 : 5;
    });
  };
  EXPECT_EQ(image_of(path), 3);
  std::filesystem::remove(path);
  EXPECT_EQ(image_of(path), 4);
}

TEST(KernelImageTest, IsAFatBinaryWhereThereWasACompiler) {
  const absl::Span<const char> image = KernelImage();
  if (image.empty()) {
    GTEST_SKIP() << "built without nvcc";
  }
  uint32_t magic = 0;
  ASSERT_GT(image.size(), sizeof magic);
  std::memcpy(&magic, image.data(), sizeof magic);
  EXPECT_EQ(magic, 0xba55ed50U);
  const std::string text(image.data(), image.size());
  for (const char* name : {kGatherKernel, kSpreadKernel}) {
    EXPECT_NE(text.find(name), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace terrace
